// ratplus generate: the same tokens as the logits of another path; prompts, terminals, and weights without a tokenizer.
#include <doctest/doctest.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/files/pending_file.h"
#include "data/tokenizer/token_numbers.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/generate/settings.h"
#include "tests/cli/learnt_model.h"
#include "tests/cli/program.h"

using namespace ratplus;
using test::contains;
using test::learnt_run;
using test::likeliest;
using test::log_probabilities;
using test::output_of;
namespace fs = std::filesystem;
using Tokens = std::vector<std::int32_t>;

namespace {

Tokens numbers_of(const std::string& text) {
  return data::parse_tokens(text, 400);
}

/// The program at a terminal of its own.
class AtTerminal {
 public:
  explicit AtTerminal(const std::string& arguments)
      : process_(::forkpty(&terminal_, nullptr, nullptr, nullptr)) {
    if (process_ != 0) return;
    ::execl("/bin/sh", "sh", "-c", ("exec " + test::command(arguments)).c_str(), nullptr);
    ::_exit(127);
  }
  ~AtTerminal() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      ::waitpid(process_, nullptr, 0);
    }
    ::close(terminal_);
  }
  AtTerminal(const AtTerminal&) = delete;
  AtTerminal& operator=(const AtTerminal&) = delete;

  /// Reads until a text has come so many times; false after a minute, and at the program's end.
  bool wait_for(const std::string& text, int times) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (std::chrono::steady_clock::now() < give_up) {
      int found = 0;
      for (auto at = seen.find(text); at != std::string::npos; at = seen.find(text, at + 1)) ++found;
      if (found >= times) return true;
      pollfd waiting{.fd = terminal_, .events = POLLIN, .revents = 0};
      if (::poll(&waiting, 1, 100) <= 0) continue;
      std::array<char, 4096> buffer{};
      const auto got = ::read(terminal_, buffer.data(), buffer.size());
      if (got <= 0) return false;
      seen.append(buffer.data(), static_cast<std::size_t>(got));
      std::erase(seen, '\r');
    }
    return false;
  }
  void type(std::string_view text) {
    REQUIRE(::write(terminal_, text.data(), text.size()) == std::ssize(text));
  }
  void send(int signal) const { ::kill(process_, signal); }
  /// The status with which it ends by itself; 128 + n by signal n.
  int end() {
    CHECK(!wait_for("never", 1));
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  std::string seen;

 private:
  int terminal_ = -1;
  pid_t process_;
};

}  // namespace

TEST_CASE(
    "generate: greedy answers are the likeliest tokens by the logits of an evaluation, under every pattern") {
  for (const std::string pattern : {"dense", "8,0,2", "4,6,1", "none,5,2"}) {
    for (const std::string prompt : {"5 6 7", "259", "300 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27"}) {
      CAPTURE(pattern);
      CAPTURE(prompt);
      auto tokens = numbers_of(prompt);
      const auto given = tokens.size();
      const auto answer = numbers_of(output_of(
          fmt::format("generate {} --pattern {} --tokens \"{}\" --max-tokens 14 --ignore-end-of-text",
                      learnt_run(), pattern, prompt)));
      REQUIRE(answer.size() == 14);
      tokens.insert(tokens.end(), answer.begin(), answer.end());
      const auto rows = log_probabilities(tokens, pattern);
      for (std::size_t t = given; t < tokens.size(); ++t) CHECK(tokens[t] == likeliest(rows[t - 1]));
    }
  }
}

TEST_CASE(
    "generate: prompts as text, stop texts over the borders of tokens, end of the text, log-probabilities") {
  const test::ScratchDirectory scratch;
  const data::Tokenizer tokenizer(test::Playground::get().data / "tokenizer.model");
  const auto generate =
      fmt::format("generate {} --prompt \"ba kelo\" --max-tokens 20 --temperature 1 --seed 5", learnt_run());
  const auto whole = output_of(generate);
  REQUIRE(whole.size() > 12);
  CHECK(output_of(generate) == whole);
  CHECK(output_of(generate + " --echo") == "ba kelo" + whole);
  CHECK(output_of(fmt::format("generate {} --prompt \"ba kelo\" --max-tokens 20 --temperature 1 --seed 6",
                              learnt_run())) != whole);
  // Every two neighbouring characters that no newline and no quote of the shell is among.
  int stops = 0;
  for (std::size_t i = 2; i + 3 < whole.size(); ++i) {
    const auto stop = whole.substr(i, 3);
    const auto plain = [](char c) { return c == ' ' || c == '.' || (c >= 'a' && c <= 'z'); };
    if (!std::ranges::all_of(stop, plain)) continue;
    CAPTURE(stop);
    CHECK(output_of(fmt::format("{} --stop \"{}\" --stop \"@@\"", generate, stop)) ==
          whole.substr(0, whole.find(stop)) + "\n");
    if (++stops == 8) break;
  }
  CHECK(stops > 3);

  const auto end = tokenizer.end_of_text();
  const auto biased =
      fmt::format("generate {} --prompt \"ba kelo\" --max-tokens 6 --logit-bias {}:1000", learnt_run(), end);
  CHECK(output_of(biased) == "\n");
  const auto ignored = output_of(
      fmt::format("generate {} --tokens \"5 6\" --max-tokens 6 --logit-bias {}:1000 --ignore-end-of-text",
                  learnt_run(), end));
  CHECK(numbers_of(ignored) == Tokens(6, end));
  CHECK(numbers_of(output_of(fmt::format("generate {} --tokens \"5 6\" --max-tokens 6 --ban 259 --ban 394",
                                         learnt_run())))
            .size() == 6);

  const auto shown = output_of(
      fmt::format("generate {} --tokens \"5 6 7\" --max-tokens 4 --ignore-end-of-text --log-probabilities 2",
                  learnt_run()));
  std::istringstream in(shown);
  std::string first;
  std::getline(in, first);
  auto tokens = numbers_of("5 6 7 " + first);
  const auto rows = log_probabilities(tokens, "dense");
  for (std::size_t t = 3; t < tokens.size(); ++t) {
    double value = 0;
    std::int32_t token = 0;
    std::string rest;
    REQUIRE(static_cast<bool>(in >> value >> token));
    std::getline(in, rest);
    CHECK(token == tokens[t]);
    CHECK(value == doctest::Approx(rows[t - 1][static_cast<std::size_t>(token)]).epsilon(1e-4));
  }
}

TEST_CASE("generate: standard input is a prompt; several prompts and answers are told apart") {
  const auto one = output_of(fmt::format("generate {} --prompt \"ba ke\" --max-tokens 5", learnt_run()));
  const auto piped = test::shell(fmt::format("echo ba ke | {} 2>/dev/null",
                                             test::command("generate " + learnt_run() + " --max-tokens 5")));
  CHECK(piped.output == one);
  const auto other = output_of(fmt::format("generate {} --prompt mi --max-tokens 5", learnt_run()));
  CHECK(output_of(fmt::format("generate {} --prompt \"ba ke\" --prompt mi --max-tokens 5", learnt_run())) ==
        "--- prompt 1\n" + one + "\n--- prompt 2\n" + other);
  const auto answers =
      output_of(fmt::format("generate {} --prompt mi --max-tokens 12 --temperature 1 --n 3", learnt_run()));
  for (const char* head :
       {"--- prompt 1, answer 1\n", "--- prompt 1, answer 2\n", "--- prompt 1, answer 3\n"})
    CHECK(contains(answers, head));
  const auto speed = test::ratplus(fmt::format("generate {} --prompt mi --max-tokens 5", learnt_run()));
  CHECK(contains(speed.output, "5 generated tokens ("));
  CHECK(contains(speed.output, "caches of "));
}

TEST_CASE("generate: an interactive program answers lines; Ctrl-C ends an answer, Ctrl-D the program") {
  const auto expected = output_of(fmt::format("generate {} --prompt mi --max-tokens 5", learnt_run()));
  {
    AtTerminal program(fmt::format("generate {} --max-tokens 5", learnt_run()));
    REQUIRE(program.wait_for("> ", 1));
    program.type("mi\n");
    CHECK(program.wait_for("caches of", 1));
    CHECK(program.wait_for("> ", 2));
    CHECK(contains(program.seen, expected));
    program.type(
        "mi ra ba mi ra ba mi ra ba mi ra ba mi ra ba mi ra ba mi ra ba mi ra ba mi ra ba mi ra ba\n");
    CHECK(program.wait_for("a sequence has at most 32", 1));
    program.type("\n");
    CHECK(program.wait_for("> ", 4));
    program.type("\x04");
    CHECK(program.end() == 0);
  }
  AtTerminal program(fmt::format(
      "generate {} --length 60000 --longer --max-tokens 50000 --ignore-end-of-text", learnt_run()));
  REQUIRE(program.wait_for("> ", 1));
  program.type("mi\n");
  CHECK(program.wait_for("ba", 20));
  program.type("\x03");
  CHECK(program.wait_for("generated tokens", 1));
  CHECK(program.wait_for("> ", 2));
  program.type("\x03");
  CHECK(program.end() == 128 + SIGINT);
}

TEST_CASE("generate: an interactive program whose output cannot be written ends") {
  AtTerminal program(fmt::format("generate {} --max-tokens 5 >/dev/full", learnt_run()));
  REQUIRE(program.wait_for("> ", 1));
  program.type("mi\n");
  CHECK(program.end() == 1);
  CHECK(contains(program.seen, "cannot write to standard output: No space left on device"));
}

TEST_CASE(
    "generate: a signal but Ctrl-C in an answer ends an interactive program, and each one that answers "
    "prompts") {
  const auto arguments =
      "generate " + learnt_run() + " --length 60000 --longer --max-tokens 50000 --ignore-end-of-text";
  for (const int signal : {SIGTERM, SIGHUP}) {
    CAPTURE(signal);
    AtTerminal program(arguments);
    REQUIRE(program.wait_for("> ", 1));
    program.type("mi\n");
    CHECK(program.wait_for("ba", 20));
    program.send(signal);
    CHECK(program.end() == 128 + signal);
    CHECK(contains(program.seen, "generated tokens"));
  }
  AtTerminal program(arguments + " --prompt mi");
  CHECK(program.wait_for("ba", 20));
  program.send(SIGTERM);
  CHECK(program.end() == 128 + SIGTERM);
}

TEST_CASE("generate: weights without a tokenizer take token numbers, and text with --tokenizer") {
  const test::ScratchDirectory scratch;
  const auto weights = (scratch / "a.pth").string();
  REQUIRE(test::ratplus("convert " + learnt_run() + " " + weights).status == 0);
  const auto expected = output_of(fmt::format("generate {} --tokens \"5 6\" --max-tokens 6", learnt_run()));
  CHECK(output_of(fmt::format("generate {} --tokens \"5 6\" --max-tokens 6 --head-dim 16", weights)) ==
        expected);
  const auto tokenizer = (test::Playground::get().data / "tokenizer.model").string();
  const auto named = output_of(
      fmt::format("generate {} --prompt ba --max-tokens 6 --head-dim 16 --tokenizer {}", weights, tokenizer));
  CHECK(named == output_of(fmt::format("generate {} --prompt ba --max-tokens 6", learnt_run())));
}

TEST_CASE("generate: a rotary base or scale that is no number to compute with is refused") {
  for (const std::string option : {"--rope-base 0", "--rope-base 1", "--rope-base inf", "--rope-base nan",
                                   "--rope-scale 0", "--rope-scale inf", "--rope-scale nan"}) {
    CAPTURE(option);
    const auto result = test::ratplus("generate " + learnt_run() + " --prompt a " + option);
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(test::contains(result.output, option.substr(0, option.find(' ')) + " "));
    CHECK(test::contains(result.output, "is no finite number above "));
  }
}

TEST_CASE("docs/generation.md names every option of generate, and every field of a line") {
  const auto page = read_whole_file(fs::path(RATPLUS_SOURCE_DIR) / "docs/generation.md");
  int options = 0;
  for (const auto& name : test::option_names("generate")) {
    CAPTURE(name);
    CHECK(contains(page, "`" + name));
    ++options;
  }
  CHECK(options > 30);
  std::istringstream fields(generate::field_names());
  for (std::string field; fields >> field;) {
    if (field.ends_with(',')) field.pop_back();
    CAPTURE(field);
    CHECK(contains(page, "| `" + field + "`"));
  }
}
