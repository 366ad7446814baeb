#include "parallel/node_board.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "parallel/watchdog.h"
#include "tests/support/ranks.h"

using namespace ratplus::parallel;

TEST_CASE("what one process writes on a board another one reads, and one of them reports") {
  const auto name = NodeBoard::create(3);
  REQUIRE(!name.empty());
  const NodeBoard board(name, 3, 2);
  const auto child = fork();
  if (child == 0) {  // no MPI, no doctest: only memory
    const NodeBoard same(name, 3, 1);
    same.own().rank = 41;
    same.own().waits_in.set("all_gather", "blocks.7");
    same.own().waiting = true;
    _exit(same.may_report() && !same.may_report() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  NodeBoard::remove_name(name);
  CHECK(status == 0);
  CHECK(board.entry(1).rank == 41);
  CHECK(board.entry(1).waiting);
  CHECK(board.entry(1).waits_in.get() == "all_gather of blocks.7");
  CHECK(board.own().rank == 0);
  CHECK(!board.may_report());
}

TEST_CASE("without shared memory a board is this process's own") {
  const NodeBoard board("", 2, 0);
  board.own().at.set("forward", "blocks.0");
  CHECK(board.own().at.get() == "forward of blocks.0");
  CHECK(board.may_report());
  CHECK(!board.may_report());
}

TEST_CASE("texts on a board are cut to their room") {
  const NodeBoard board("", 1, 0);
  auto& text = board.own().at;
  text.set(std::string(500, 'x'), "y");
  CHECK(text.get() == std::string(111, 'x'));
  text.set("short", {});
  CHECK(text.get() == "short");
}

TEST_CASE("a watchdog looks at what was added until it is removed, and lets live what is well") {
  std::atomic<int> looks = 0;
  const int check = world().watchdog().add_check([&] {
    ++looks;
    return std::string();
  });
  if (world().size() > 1) {
    while (looks < 2) usleep(1000);
  }
  world().watchdog().remove_check(check);
  const int then = looks;
  usleep(120'000);
  CHECK(looks == then);
}
