// ratplus watch on a terminal of its own (a pseudo-terminal), as a user would see it.
#include <doctest/doctest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

/// A program on a pseudo-terminal, with what it has written so far.
class OnTerminal {
 public:
  OnTerminal(const std::string& run, unsigned short columns, unsigned short rows) {
    winsize size{rows, columns, 0, 0};
    process_ = ::forkpty(&terminal_, nullptr, nullptr, &size);
    REQUIRE(process_ >= 0);
    if (process_ == 0) {
      ::setenv("TERM", "xterm", 1);
      ::execl(RATPLUS_PROGRAM, "ratplus", "watch", run.c_str(), "--every", "0.2", nullptr);
      ::_exit(127);
    }
  }
  ~OnTerminal() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      ::waitpid(process_, nullptr, 0);
    }
    ::close(terminal_);
  }
  OnTerminal(const OnTerminal&) = delete;
  OnTerminal& operator=(const OnTerminal&) = delete;

  /// Whether `text` comes, within some seconds, in what is written from now on.
  bool shows(const std::string& text) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    std::string seen;
    while (std::chrono::steady_clock::now() < until) {
      pollfd input{terminal_, POLLIN, 0};
      char bytes[4096];
      if (::poll(&input, 1, 100) <= 0) continue;
      const ssize_t got = ::read(terminal_, bytes, sizeof bytes);
      if (got <= 0) break;  // the program has ended
      seen.append(bytes, static_cast<std::size_t>(got));
      all_.append(bytes, static_cast<std::size_t>(got));
      if (test::contains(seen, text)) return true;
    }
    return false;
  }
  void type(const std::string& keys) const {
    REQUIRE(::write(terminal_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
  }
  void resize(unsigned short columns, unsigned short rows) const {
    winsize size{rows, columns, 0, 0};
    REQUIRE(::ioctl(terminal_, TIOCSWINSZ, &size) == 0);
  }
  /// Keys are shown and taken line by line, as before a program asks for something else.
  bool takes_lines() const {
    termios state{};
    REQUIRE(::tcgetattr(terminal_, &state) == 0);
    return (state.c_lflag & ECHO) != 0 && (state.c_lflag & ICANON) != 0;
  }
  pid_t process() const { return process_; }
  /// Its exit status; 128 + n if killed by signal n.
  int end() {
    shows("\x1b[?1049l");
    const bool lines = takes_lines();  // before the terminal goes with the process
    shows("the end of all output");    // empties the terminal, so that the process can end
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = -1;
    CHECK(lines);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const std::string& all() const { return all_; }

 private:
  int terminal_ = -1;
  pid_t process_ = -1;
  std::string all_;
};

std::string step_line(int step, int steps = 100) {
  return fmt::format(
      R"({{"kind":"step","time":{},"step":{},"steps":{},"tokens":{},"learning_rate":1e-3,)"
      R"("updates":[{{"pattern":"dense","loss":{},"gradient_norm":1}}],"tokens_per_second":1000,"seconds":{},)"
      R"("seconds_left":9,"step_seconds":0.5}})"
      "\n",
      std::time(nullptr), step, steps, step * 100, 4 + 1.0 / step, step);
}

void append(const fs::path& run, const std::string& text) {
  std::ofstream(run / "metrics.jsonl", std::ios::app) << text;
}

}  // namespace

TEST_CASE(
    "watch: waits for a run, follows it through half lines, resizes and a resume, and gives the terminal "
    "back") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  OnTerminal watch(run.string(), 80, 24);
  CHECK(watch.shows("waiting for a run to begin in " + run.string()));
  CHECK_FALSE(watch.takes_lines());
  fs::create_directories(run);
  append(run, step_line(1) + step_line(2) + step_line(3));
  CHECK(watch.shows("step 3 of 100"));
  const std::string fourth = step_line(4);
  append(run, fourth.substr(0, 50));
  CHECK(watch.shows("step 3 of 100"));
  append(run, fourth.substr(50));
  CHECK(watch.shows("step 4 of 100"));
  CHECK_FALSE(test::contains(watch.all(), "Gradient norm"));  // no room for it
  watch.resize(140, 50);
  CHECK(watch.shows("Gradient norm"));
  std::ofstream(run / "new") << step_line(1) << step_line(2);
  fs::rename(run / "new", run / "metrics.jsonl");
  CHECK(watch.shows("step 2 of 100"));
  watch.type("\x03");
  CHECK(watch.end() == 0);
  CHECK(test::contains(watch.all(), "\x1b[?25h"));  // the cursor is back
}

TEST_CASE(
    "watch: q and SIGTERM end it, Ctrl-Z gives the terminal back until it goes on, and so does a broken "
    "file") {
  const test::ScratchDirectory scratch;
  append(scratch.path(), step_line(5));
  {
    OnTerminal watch(scratch.path().string(), 80, 24);
    CHECK(watch.shows("step 5 of 100"));
    watch.type("xq");
    CHECK(watch.end() == 0);
  }
  {
    OnTerminal watch(scratch.path().string(), 80, 24);
    CHECK(watch.shows("step 5 of 100"));
    watch.type("\x1a");
    int status = 0;
    REQUIRE(::waitpid(watch.process(), &status, WUNTRACED) == watch.process());
    CHECK(WIFSTOPPED(status));
    CHECK(watch.takes_lines());
    ::kill(watch.process(), SIGCONT);
    CHECK(watch.shows("step 5 of 100"));
    CHECK_FALSE(watch.takes_lines());
    ::kill(watch.process(), SIGTERM);
    CHECK(watch.end() == 0);
  }
  {
    OnTerminal watch(scratch.path().string(), 80, 24);
    CHECK(watch.shows("step 5 of 100"));
    append(scratch.path(), "no line of metrics\n");
    CHECK(watch.end() == 1);
    CHECK(test::contains(watch.all(), "metrics.jsonl:2"));
  }
}

TEST_CASE(
    "watch: a directory of something else is named at once, one of a run or without files is waited for") {
  const test::ScratchDirectory scratch;
  const auto directory = scratch / "runs";
  fs::create_directories(directory / "a");
  append(directory / "a", step_line(5));
  {
    OnTerminal watch(directory.string(), 200, 24);
    CHECK(watch.end() == 1);
    CHECK(test::contains(watch.all(), "holds files, but nothing of a run; give a run directory, such as " +
                                          (directory / "a").string()));
  }
  fs::create_directories(directory / "a" / "checkpoints" / "step-00000002");
  const auto inside = test::ratplus("watch --once " + (directory / "a" / "checkpoints").string());
  CHECK(inside.status == 1);
  CHECK(test::contains(inside.output, "give a run directory, " + (directory / "a").string()));
  std::ofstream(scratch / "notes.txt") << "text";
  CHECK(test::contains(test::ratplus("watch " + scratch.path().string()).output,
                       "the job.directory of its job file"));
  fs::create_directories(scratch / "empty");
  {
    OnTerminal watch((scratch / "empty").string(), 200, 24);
    CHECK(watch.shows("waiting for a run to begin in " + (scratch / "empty").string()));
    std::ofstream(scratch / "empty" / "log.txt") << "begun\n";
    CHECK(watch.shows("waiting for the run's first line of metrics"));
    watch.type("q");
    CHECK(watch.end() == 0);
  }
  fs::create_directories(scratch / "queued");
  std::ofstream(scratch / "queued" / "submitted.toml") << "";
  CHECK(test::ratplus("watch " + (scratch / "queued").string()).status == 0);
}

TEST_CASE("watch: it ends with the run, and its last picture stays") {
  const test::ScratchDirectory scratch;
  append(scratch.path(), step_line(99));
  OnTerminal watch(scratch.path().string(), 80, 24);
  CHECK(watch.shows("step 99 of 100"));
  append(scratch.path(), step_line(100) + "{\"kind\":\"checkpoint\",\"step\":100}\n");
  CHECK(watch.end() == 0);
  const auto left = watch.all().rfind("\x1b[?1049l");
  CHECK(test::contains(watch.all().substr(left), "finished"));
}

TEST_CASE("watch: without a terminal one picture, and mistakes are named") {
  const test::ScratchDirectory scratch;
  append(scratch.path(), step_line(5));
  const auto once = test::ratplus("watch " + scratch.path().string());
  CHECK(once.status == 0);
  CHECK(test::contains(once.output, "step 5 of 100"));
  CHECK_FALSE(test::contains(once.output, "\x1b"));
  const auto missing = test::ratplus("watch " + (scratch / "typo").string());
  CHECK(missing.status == 1);
  CHECK(test::contains(missing.output, "typo: there is no such run yet"));
  const auto file = test::ratplus("watch " + (scratch / "metrics.jsonl").string());
  CHECK(file.status == 1);
  CHECK(test::contains(file.output, "is no directory"));
  CHECK(test::ratplus("watch").status == 2);
  CHECK(test::ratplus("watch a b").status == 2);
  CHECK(test::ratplus("watch a --every 0").status == 2);
}
