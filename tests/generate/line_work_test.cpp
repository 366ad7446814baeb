// Work on lines, kept over interruptions: torn ends, other inputs, other options.
#include "lib/generate/line_work.h"

#include <doctest/doctest.h>

#include <deque>
#include <fstream>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using namespace ratplus::generate;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

namespace {

/// Repeats each line's number, the last added first; fails at a given count.
class Worker : public LineWorker {
 public:
  explicit Worker(const InputLines& lines, int most = 1000) : input(lines), left(most) {}
  void check(std::size_t line) const override { input.object(line); }
  std::int64_t room() const override { return 3 - std::ssize(queue); }
  void add(std::size_t line) override { queue.push_back(line); }
  bool idle() const override { return queue.empty(); }
  void step(const Done& done) override {
    if (left-- == 0) fail("no more");
    const auto line = queue.back();
    queue.pop_back();
    worked.push_back(line);
    done(line, {{"x", input.object(line)["x"]}});
  }
  std::int64_t tokens() const override { return std::ssize(worked); }

  const InputLines& input;
  int left;
  std::deque<std::size_t> queue;
  std::vector<std::size_t> worked;
};

struct Directory {
  Directory() { write(0); }
  void write(int changed) const {
    std::string text;
    for (int i = 0; i < 10; ++i) text += fmt::format("{{\"x\": {}}}\n", i + (i == 2 ? changed : 0));
    write_whole_file(scratch / "in", text);
  }
  /// The lines that were worked on.
  std::vector<std::size_t> work(int most = 1000, const std::string& option = "a",
                                bool replace = false) const {
    const auto world = parallel::World::solo();
    const InputLines input(scratch / "in");
    const LineJob job{.input = input,
                      .output = out,
                      .print = {},
                      .identity = {{"option", option}},
                      .replace = replace,
                      .command = "test"};
    Worker worker(input, most);
    try {
      do_lines(
          job, worker, world, [](const auto&) {}, [](const auto&) {});
    } catch (const Error& error) {
      if (!std::string(error.what()).starts_with("no more")) throw;
    }
    return worker.worked;
  }
  std::string result() const { return read_whole_file(out); }

  test::ScratchDirectory scratch;
  fs::path out = scratch / "out";
  fs::path journal = scratch / ".out.unfinished";
};

const std::string expected =
    "{\"x\":0}\n{\"x\":1}\n{\"x\":2}\n{\"x\":3}\n{\"x\":4}\n{\"x\":5}\n{\"x\":6}\n{\"x\":7}\n{\"x\":8}\n{"
    "\"x\":9}\n";

}  // namespace

TEST_CASE("lines: results come in the order of the input, and what was done is not done again") {
  const Directory whole;
  CHECK(whole.work().size() == 10);
  CHECK(whole.result() == expected);
  CHECK(whole.scratch.files() == std::vector<std::string>{"in", "out"});
  for (int most = 1; most < 10; ++most) {
    const Directory directory;
    directory.work(most);
    CHECK(!fs::exists(directory.out));
    const auto text = read_whole_file(directory.journal);
    const auto kept = static_cast<std::size_t>(std::ranges::count(text, '\n')) - 1;
    CHECK(directory.work().size() == 10 - kept);
    CHECK(directory.result() == expected);
  }
}

TEST_CASE("lines: a file cut at any byte, or with zeros at its end, is resumed to the same result") {
  const Directory directory;
  directory.work(7);
  const auto text = read_whole_file(directory.journal);
  CHECK(std::ranges::count(text, '\n') > 4);
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const Directory cut;
    for (const auto& tail : {std::string(), std::string("\0\0\n", 3)}) {
      if (size <= text.find('\n') && !tail.empty()) continue;  // another header
      write_whole_file(cut.journal, text.substr(0, size) + tail);
      cut.work();
      CHECK(cut.result() == expected);
      fs::remove(cut.out);
    }
  }
}

TEST_CASE(
    "lines: a line that has changed is done again; another option, an output that is there and a bad line "
    "are refused") {
  const Directory directory;
  directory.work(9);
  directory.write(100);
  const auto worked = directory.work();
  CHECK(std::ranges::count(worked, 2) == 1);
  CHECK(directory.result() == std::string(expected).replace(expected.find("2}"), 1, "102"));
  CHECK_THROWS_WITH_AS(directory.work(), doctest::Contains("is there already"), Error);
  CHECK(directory.work(1000, "a", true).size() == 10);

  const Directory other;
  other.work(7);
  CHECK_THROWS_WITH_AS(other.work(1000, "b"), doctest::Contains("option (\"a\" there, \"b\" here)"), Error);
  CHECK(other.work(1000, "b", true).size() == 10);
  CHECK(other.result() == expected);

  const auto input = [&](const std::string& text) {
    write_whole_file(other.scratch / "bad", text);
    const InputLines lines(other.scratch / "bad");
    check_lines(lines, Worker(lines), parallel::World::solo());
  };
  CHECK_THROWS_WITH_AS(input(""), doctest::Contains("bad: has no line"), Error);
  CHECK_THROWS_WITH_AS(input(" \n\n"), doctest::Contains("bad: has no line"), Error);
  CHECK_THROWS_WITH_AS(input("{}\n\n[]"), doctest::Contains("bad, line 3: a JSON array, not an object"),
                       Error);
  CHECK_THROWS_WITH_AS(input("{}\r\n{\n"), doctest::Contains("bad, line 2: not JSON"), Error);
  CHECK_THROWS_WITH_AS(InputLines(other.scratch.path()), doctest::Contains("is a directory"), Error);
}
