#include "base/files/conveyor.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/support/messages.h"

using namespace ratplus;

TEST_CASE("a conveyor hands on every item in its order, and keeps the items' memory") {
  std::vector<int> taken;
  const std::vector<int>* memory = nullptr;
  bool same_memory = true;
  Conveyor<std::vector<int>> conveyor(1, [&](std::vector<int>& item) {
    if (memory == nullptr) memory = &item;
    same_memory = same_memory && memory == &item;
    taken.insert(taken.end(), item.begin(), item.end());
  });
  std::vector<int> sent;
  for (int i = 0; i < 1000; ++i) {
    auto& item = conveyor.next();
    item.assign(static_cast<std::size_t>(i % 3 + 1), i);
    sent.insert(sent.end(), item.begin(), item.end());
    conveyor.send();
  }
  conveyor.finish();
  CHECK(taken == sent);
  CHECK(same_memory);
}

TEST_CASE("the maker goes on while an item is being taken, as far as there are free ones") {
  std::atomic<bool> open = false;
  std::atomic<int> taken = 0;
  Conveyor<int> conveyor(3, [&](int&) {
    while (!open) std::this_thread::yield();
    ++taken;
  });
  for (int i = 0; i < 3; ++i) {
    conveyor.next() = i;  // none of them waits for the first to be taken
    conveyor.send();
  }
  CHECK(taken == 0);
  open = true;
  conveyor.next() = 3;
  conveyor.send();
  conveyor.finish();
  CHECK(taken == 4);
}

TEST_CASE(
    "what the taker throws reaches the maker, at the next item or at the end, and nothing more is taken") {
  for (const bool at_end : {false, true}) {
    std::atomic<int> calls = 0;
    const auto work = [&] {
      Conveyor<int> conveyor(2, [&](int& item) {
        ++calls;
        if (item == 5) fail("item {} is bad", item);
      });
      for (int i = 0; i < (at_end ? 6 : 1000); ++i) {
        conveyor.next() = i;
        conveyor.send();
      }
      conveyor.finish();
    };
    CHECK(test::message_of(work) == "item 5 is bad");
    CHECK(calls == 6);
  }
}

TEST_CASE("a maker that fails ends the conveyor without what is still on it") {
  std::atomic<int> calls = 0;
  const auto work = [&] {
    Conveyor<int> conveyor(8, [&](int&) {
      ++calls;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    });
    for (int i = 0; i < 8; ++i) {
      conveyor.next() = i;
      conveyor.send();
    }
    fail("no more");
  };
  CHECK(test::message_of(work) == "no more");
  CHECK(calls < 8);
}
