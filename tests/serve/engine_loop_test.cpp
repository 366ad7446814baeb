// The engine's thread: work of many requests, ended and exchanged between passes.
#include "lib/serve/engine_loop.h"

#include <doctest/doctest.h>

#include <chrono>
#include <future>
#include <thread>

#include "lib/serve/pool.h"
#include "tests/serve/served.h"

using namespace ratplus;
using namespace ratplus::serve;
using test::soon;

namespace {

/// Keeps what it gets.
class Taker : public OutputTaker {
 public:
  void take(std::vector<Output> outputs) override {
    const std::lock_guard lock(mutex_);
    for (auto& output : outputs) {
      ended_ += output.scores || output.event.end != infer::End::none ? 1 : 0;
      ++taken_;
    }
  }
  void fail(const std::string& why, int) override {
    const std::lock_guard lock(mutex_);
    failure_ = why;
  }
  int ended() const { return locked(ended_); }
  int taken() const { return locked(taken_); }
  std::string failure() const { return locked(failure_); }

 private:
  template <typename T>
  T locked(const T& value) const {
    const std::lock_guard lock(mutex_);
    return value;
  }
  mutable std::mutex mutex_;
  int ended_ = 0, taken_ = 0;
  std::string failure_;
};

/// A loop on a thread of its own.
class Running {
 public:
  explicit Running(std::int64_t tokens, double init_std = 0.3) {
    std::promise<void> ready;
    thread_ = std::thread([this, &ready, tokens, init_std] {
      const auto world = parallel::World::solo();
      const test::SmallModel small(tokens, init_std);
      const infer::ServingRequest request{.plans = small.plans, .request = {.slots = 4, .rows = 256}};
      inference = std::make_unique<infer::Inference>(small.model, request, world);
      inference->set_initial(1);
      loop = std::make_unique<EngineLoop>(
          *inference, 2, [this](std::function<void()> task) { outputs_.post(std::move(task)); });
      ready.set_value();
      try {
        loop->run();
      } catch (const std::exception& error) {
        thrown = error.what();
      }
    });
    ready.get_future().wait();
  }
  ~Running() { end(); }
  void end() {
    if (!thread_.joinable()) return;
    loop->stop("the end");
    thread_.join();
  }
  void wait() { thread_.join(); }

  std::unique_ptr<infer::Inference> inference;
  std::unique_ptr<EngineLoop> loop;
  std::string thrown;

 private:
  Pool pool_{2};
  Serial outputs_{pool_};
  std::thread thread_;
};

Work generation(std::size_t sequences, std::int64_t tokens, std::size_t pattern = 0) {
  Work work{.pattern = pattern};
  for (std::size_t i = 0; i < sequences; ++i)
    work.sequences.emplace_back(
        i, infer::Request{.prompt = {5, 6, 7}, .max_tokens = tokens, .sampling = {.seed = i}});
  return work;
}

Work scoring(std::size_t texts) {
  Work work;
  for (std::size_t i = 0; i < texts; ++i)
    work.scores.emplace_back(i, infer::ScoreRequest{.tokens = std::vector<std::int32_t>(40, 9)});
  return work;
}

}  // namespace

TEST_CASE("sequences and scores of both patterns end, beside each other") {
  Running running(200);
  std::vector<std::shared_ptr<Taker>> takers;
  for (std::uint64_t i = 0; i < 20; ++i) {
    takers.push_back(std::make_shared<Taker>());
    running.loop->submit(i, takers.back(), i % 3 == 0 ? scoring(30) : generation(3, 50, i % 2));
  }
  for (std::size_t i = 0; i < takers.size(); ++i) {
    CAPTURE(i);
    CHECK(soon([&] { return takers[i]->ended() == (i % 3 == 0 ? 30 : 3); }));
  }
  CHECK(soon([&] { return running.loop->load().running == 0 && running.loop->load().cache_share == 0; }));
}

TEST_CASE("a cancelled request has no slot at the next pass; its other sequences go on") {
  Running running(4000);
  const auto taker = std::make_shared<Taker>(), other = std::make_shared<Taker>();
  running.loop->submit(1, taker, generation(3, 3900));
  running.loop->submit(2, other, generation(4, 100));
  REQUIRE(soon([&] { return taker->taken() > 20; }));
  running.loop->cancel(1, 0);
  running.loop->cancel(1, 2);
  CHECK(soon([&] { return other->ended() == 4; }));  // it waited for slots
  running.loop->cancel(1);
  running.loop->cancel(77);  // nobody
  CHECK(soon([&] { return running.loop->load().running == 0; }));
  CHECK(taker->ended() == 0);
  CHECK(running.loop->load().cache_share == 0);
}

TEST_CASE("an exchange of weights waits for what runs, and what comes meanwhile waits for it: none is lost") {
  Running running(1000);
  const auto before = std::make_shared<Taker>(), after = std::make_shared<Taker>(),
             gone = std::make_shared<Taker>();
  running.loop->submit(1, before, generation(2, 600));
  REQUIRE(soon([&] { return before->taken() > 0; }));
  std::atomic<int> ended_before = -1, taken_after = -1;
  running.loop->between([&] {
    running.inference->set_initial(2);
    taken_after = after->taken(), ended_before = running.loop->load().running == 0 ? 1 : 0;
  });
  running.loop->submit(2, after, generation(2, 20));
  running.loop->submit(3, gone, generation(1, 20));
  running.loop->cancel(3);
  CHECK(soon([&] { return after->ended() == 2; }));
  CHECK(before->ended() == 2);
  CHECK(before->taken() == 1200);
  CHECK(ended_before == 1);
  CHECK(taken_after == 0);
  CHECK(gone->taken() == 0);
}

TEST_CASE("what is cancelled while it waits for an exchange of weights does not run after it") {
  Running running(1000);
  const auto gone = std::make_shared<Taker>(), after = std::make_shared<Taker>();
  std::promise<void> begun, may_end;
  // All of this is there when the engine's thread looks for it again, and nothing runs.
  running.loop->between([&] {
    begun.set_value();
    may_end.get_future().wait();
  });
  begun.get_future().wait();
  running.loop->submit(1, gone, generation(2, 20));
  running.loop->cancel(1);
  running.loop->submit(2, after, generation(2, 60));
  running.loop->between([] {});
  may_end.set_value();
  CHECK(soon([&] { return after->ended() == 2; }));
  CHECK(gone->taken() == 0);
  CHECK(soon([&] { return running.loop->load().running == 0; }));
}

TEST_CASE("stop() and a failure tell all takers, also those that come later") {
  Running running(4000);
  const auto taker = std::make_shared<Taker>(), late = std::make_shared<Taker>();
  running.loop->submit(1, taker, generation(9, 3900));
  REQUIRE(soon([&] { return taker->taken() > 0; }));
  SUBCASE("stop") {
    running.end();
    CHECK(soon([&] { return taker->failure() == "the end"; }));
  }
  SUBCASE("failure") {
    running.loop->cancel(1);
    running.loop->between([] { throw std::runtime_error("no weights"); });
    running.wait();
    CHECK(running.thrown == "no weights");
  }
  if (running.thrown.empty()) return;
  running.loop->submit(2, late, generation(1, 1));
  CHECK(soon([&] { return late->failure() == (running.thrown.empty() ? "the end" : "no weights"); }));
}
