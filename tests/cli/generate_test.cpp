// ratplus generate and eval --continuations: the same tokens as the logits of another path, the same file from any number of
// ranks and after any end, and what is said of bad lines.
#include <doctest/doctest.h>
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/files/hdf5.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "data/tokenizer/token_numbers.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/generate/settings.h"
#include "tests/cli/program.h"

using namespace ratplus;
using test::contains;
namespace fs = std::filesystem;
using Json = nlohmann::json;
using Tokens = std::vector<std::int32_t>;

namespace {

/// A small model that has learnt a little.
struct Trained {
  Trained() {
    const auto& playground = test::Playground::get();
    const auto result =
        test::ratplus(fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=60 "
                                  "checkpoint.every=0 job.threads=1",
                                  playground.job.string(), run.string(), playground.data.string()));
    if (result.status != 0) fail("{}", result.output);
  }
  static const Trained& get() {
    static const Trained trained;
    return trained;
  }

  test::ScratchDirectory scratch;
  fs::path run = scratch / "run";
};

std::string run() {
  return Trained::get().run.string();
}

/// Standard output alone.
std::string output_of(const std::string& arguments) {
  const test::ScratchDirectory scratch;
  const auto result = test::shell(test::command(arguments) + " 2>" + (scratch / "errors").string());
  CAPTURE(read_whole_file(scratch / "errors"));
  REQUIRE(result.status == 0);
  return result.output;
}

Tokens numbers_of(const std::string& text) {
  return data::parse_tokens(text, 400);
}

std::vector<Json> lines_of(const fs::path& file) {
  std::vector<Json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

void write_lines(const fs::path& file, const std::vector<Json>& lines) {
  std::string text;
  for (const auto& line : lines) text += json_dump(line) + "\n";
  write_whole_file(file, text);
}

/// log softmax of the logits of eval --dump-logits: [token][vocabulary], of one sequence.
std::vector<std::vector<double>> log_probabilities(const Tokens& tokens, const std::string& pattern) {
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "tokens", data::to_text(tokens) + "\n");
  const auto result =
      test::ratplus(fmt::format("eval {} --tokens {} --dump-logits {} --pattern {}", run(),
                                (scratch / "tokens").string(), (scratch / "l.h5").string(), pattern));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  const auto file = hdf5::File::open(scratch / "l.h5");
  const auto dataset = file.group("0").dataset("logits");
  std::vector<float> all(static_cast<std::size_t>(dataset.size()));
  dataset.read<float>(0, all);
  const auto vocabulary = all.size() / tokens.size();
  std::vector<std::vector<double>> rows;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    rows.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(t * vocabulary),
                      all.begin() + static_cast<std::ptrdiff_t>((t + 1) * vocabulary));
    double sum = 0;
    for (const double logit : rows.back()) sum += std::exp(logit);
    for (double& logit : rows.back()) logit -= std::log(sum);
  }
  return rows;
}

std::int32_t likeliest(const std::vector<double>& row) {
  return static_cast<std::int32_t>(std::ranges::max_element(row) - row.begin());
}

/// Requests of all kinds.
std::vector<Json> mixed_requests(int count) {
  constexpr std::array prompts = {"ba kelo", "mi ra", "so.", "zu ti va"};
  std::vector<Json> lines;
  for (int i = 0; i < count; ++i) {
    Json line{{"max_tokens", 5 + i % 11}, {"meta", {{"number", i}, {"text", "é"}}}};
    if (i % 7 == 0) {
      line["tokens"] = {5, 6, 7 + i};
    } else {
      line["prompt"] = prompts.at(static_cast<std::size_t>(i) % prompts.size());
    }
    if (i % 3 == 0) line["temperature"] = 0.9;
    if (i % 5 == 0) line["id"] = fmt::format("x{}", i);
    if (i % 9 == 0) line["log_probabilities"] = 1;
    if (i % 10 == 3) line["n"] = 2, line["temperature"] = 1;
    if (i % 4 == 1) line["stop"] = {"mi", ". "};
    lines.push_back(std::move(line));
  }
  return lines;
}

/// A command that runs while the test goes on.
class Background {
 public:
  explicit Background(const std::string& command) : process_(::fork()) {
    if (process_ != 0) return;
    ::execl("/bin/sh", "sh", "-c", ("exec " + command).c_str(), nullptr);
    ::_exit(127);
  }
  ~Background() {
    if (process_ > 0) end(SIGKILL);
  }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void limit_file_size(std::uintmax_t bytes) {
    const rlimit limit{.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    REQUIRE(::prlimit(process_, RLIMIT_FSIZE, &limit, nullptr) == 0);
  }
  /// Its status; 128 + n where signal n ended it.
  int end(int signal) {
    ::kill(process_, signal);
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t process_;
};

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

/// Waits until the file has so many lines; false after half a minute.
bool wait_for_lines(const fs::path& file, std::ptrdiff_t count) {
  for (int i = 0; i < 3000; ++i) {
    if (fs::exists(file)) {
      const auto text = read_whole_file(file);
      if (std::ranges::count(text, '\n') >= count) return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

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
          fmt::format("generate {} --pattern {} --tokens \"{}\" --max-tokens 14 --ignore-end-of-text", run(),
                      pattern, prompt)));
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
      fmt::format("generate {} --prompt \"ba kelo\" --max-tokens 20 --temperature 1 --seed 5", run());
  const auto whole = output_of(generate);
  REQUIRE(whole.size() > 12);
  CHECK(output_of(generate) == whole);
  CHECK(output_of(generate + " --echo") == "ba kelo" + whole);
  CHECK(output_of(fmt::format("generate {} --prompt \"ba kelo\" --max-tokens 20 --temperature 1 --seed 6",
                              run())) != whole);
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
      fmt::format("generate {} --prompt \"ba kelo\" --max-tokens 6 --logit-bias {}:1000", run(), end);
  CHECK(output_of(biased) == "\n");
  const auto ignored = output_of(fmt::format(
      "generate {} --tokens \"5 6\" --max-tokens 6 --logit-bias {}:1000 --ignore-end-of-text", run(), end));
  CHECK(numbers_of(ignored) == Tokens(6, end));
  CHECK(numbers_of(
            output_of(fmt::format("generate {} --tokens \"5 6\" --max-tokens 6 --ban 259 --ban 394", run())))
            .size() == 6);

  const auto shown = output_of(fmt::format(
      "generate {} --tokens \"5 6 7\" --max-tokens 4 --ignore-end-of-text --log-probabilities 2", run()));
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
  const auto one = output_of(fmt::format("generate {} --prompt \"ba ke\" --max-tokens 5", run()));
  const auto piped = test::shell(
      fmt::format("echo ba ke | {} 2>/dev/null", test::command("generate " + run() + " --max-tokens 5")));
  CHECK(piped.output == one);
  const auto other = output_of(fmt::format("generate {} --prompt mi --max-tokens 5", run()));
  CHECK(output_of(fmt::format("generate {} --prompt \"ba ke\" --prompt mi --max-tokens 5", run())) ==
        "--- prompt 1\n" + one + "\n--- prompt 2\n" + other);
  const auto answers =
      output_of(fmt::format("generate {} --prompt mi --max-tokens 12 --temperature 1 --n 3", run()));
  for (const char* head :
       {"--- prompt 1, answer 1\n", "--- prompt 1, answer 2\n", "--- prompt 1, answer 3\n"})
    CHECK(contains(answers, head));
  const auto speed = test::ratplus(fmt::format("generate {} --prompt mi --max-tokens 5", run()));
  CHECK(contains(speed.output, "5 generated tokens ("));
  CHECK(contains(speed.output, "caches of "));
}

TEST_CASE("generate: an interactive program answers lines; Ctrl-C ends an answer, Ctrl-D the program") {
  const auto expected = output_of(fmt::format("generate {} --prompt mi --max-tokens 5", run()));
  {
    AtTerminal program(fmt::format("generate {} --max-tokens 5", run()));
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
  AtTerminal program(
      fmt::format("generate {} --length 60000 --longer --max-tokens 50000 --ignore-end-of-text", run()));
  REQUIRE(program.wait_for("> ", 1));
  program.type("mi\n");
  CHECK(program.wait_for("ba", 20));
  program.type("\x03");
  CHECK(program.wait_for("generated tokens", 1));
  CHECK(program.wait_for("> ", 2));
  program.type("\x03");
  CHECK(program.end() == 128 + SIGINT);
}

TEST_CASE(
    "generate: a file gives the same answers from any number of ranks and slots, and those that prompts "
    "alone get") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const auto requests = mixed_requests(50);
  write_lines(path("in.jsonl"), requests);
  const auto generate = [&](const std::string& name, int ranks, const std::string& options = "") {
    const auto result = test::ratplus(
        fmt::format("generate {} --input {} --output {} {}", run(), path("in.jsonl"), path(name), options),
        ranks);
    CAPTURE(result.output);
    CHECK(result.status == 0);
    CHECK(!fs::exists(scratch / ("." + name + ".unfinished")));
    return read_whole_file(path(name));
  };
  const auto expected = generate("one.jsonl", 0);
  for (const int ranks : {1, 2, 3}) CHECK(generate(fmt::format("{}.jsonl", ranks), ranks) == expected);
  CHECK(generate("slot.jsonl", 0, "--slots 1") == expected);

  const auto answers = lines_of(path("one.jsonl"));
  REQUIRE(answers.size() == requests.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto& request = requests[i];
    const auto& answer = answers[i];
    CAPTURE(json_dump(answer));
    CHECK(answer["meta"] == request["meta"]);
    CHECK(answer["id"] == request.value("id", Json(i + 1)));
    if (request.contains("n")) {
      CHECK(answer["answers"].size() == 2);
      continue;
    }
    CHECK(answer["completion_tokens"] <= request["max_tokens"]);
    if (answer["finish_reason"] == "length") CHECK(answer["completion_tokens"] == request["max_tokens"]);
    CHECK(answer.contains("tokens") == request.contains("tokens"));
    if (request.contains("log_probabilities")) {
      CHECK(answer["log_probabilities"].size() == answer["completion_tokens"]);
      CHECK(answer["top_log_probabilities"].back().size() == 1);
    }
    for (const char* stop : {"mi", ". "}) {
      if (request.contains("stop")) CHECK(!contains(answer["text"].get<std::string>(), stop));
    }
    if (i % 6 != 2 || !request.contains("prompt") || request.contains("stop")) continue;
    const auto alone =
        output_of(fmt::format("generate {} --prompt \"{}\" --max-tokens {} --seed {} {}", run(),
                              request["prompt"].get<std::string>(), request["max_tokens"].get<int>(), i,
                              request.contains("temperature") ? "--temperature 0.9" : ""));
    CHECK(alone == answer["text"].get<std::string>() + "\n");
  }

  const auto again = test::ratplus(
      fmt::format("generate {} --input {} --output {}", run(), path("in.jsonl"), path("one.jsonl")));
  CHECK(again.status == 1);
  CHECK(contains(again.output, "is there already; give another name, or --force to replace it"));
  CHECK(generate("one.jsonl", 2, "--force") == expected);
}

TEST_CASE("generate: lines of another form fill a template, and give the fields that a scorer reads") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  std::vector<Json> lines;
  for (int i = 0; i < 6; ++i)
    lines.push_back({{"_id", fmt::format("q{}", i)},
                     {"context", std::string(40, 'b') + " ba kelo"},
                     {"input", "mi"},
                     {"answers", {"x", "y"}},
                     {"length", i},
                     {"dataset", "made up"}});
  write_lines(path("in.jsonl"), lines);
  write_whole_file(path("prompts.json"), R"({"qa": "ba {context}\nkelo {input} ba"})");
  const auto command = [&](const std::string& options) {
    return fmt::format("generate {} --input {} --output {} --prompt-template {}#qa {}", run(),
                       path("in.jsonl"), path("out.jsonl"), path("prompts.json"), options);
  };
  const auto result =
      test::ratplus(command("--text-field pred --keep answers,length --cut middle --trim lines --max-tokens "
                            "5 --prefix-cache 4MiB"));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  const auto answers = lines_of(path("out.jsonl"));
  REQUIRE(answers.size() == lines.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    CHECK(answers[i]["id"] == lines[i]["_id"]);
    CHECK(answers[i]["answers"] == lines[i]["answers"]);
    CHECK(answers[i]["length"] == lines[i]["length"]);
    CHECK_FALSE(answers[i].contains("dataset"));
    CHECK_FALSE(answers[i].contains("text"));
    CHECK_FALSE(answers[i]["pred"].get<std::string>().starts_with(' '));
    CHECK(answers[i]["pred"] == answers[0]["pred"]);
  }
  for (const auto& [options, message] : std::vector<std::pair<std::string, std::string>>{
           {"--force --keep classes", "line 1: has no field \"classes\", which --keep names"},
           {"--force --trim some", "--trim: \"some\" is none of none, blank, lines"},
           {"--force --prefix-cache 7x", "--prefix-cache 7x is not a size, such as 512MiB"},
           {"--force --prefix-cache 64", "hold no prefix under the pattern"}}) {
    CAPTURE(options);
    const auto bad = test::ratplus(command(options));
    CHECK(bad.status != 0);
    CHECK(contains(bad.output, message));
  }
}

TEST_CASE(
    "generate: killed, interrupted or without room on the disk, the same command ends with the same bytes") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  std::vector<Json> requests;
  for (int i = 0; i < 60; ++i)
    requests.push_back({{"prompt", i % 2 == 0 ? "ba" : "mi ra"},
                        {"temperature", 1},
                        {"max_tokens", 2000 + 10 * (i % 7)},
                        {"ignore_end_of_text", true}});
  write_lines(path("in.jsonl"), requests);
  const auto arguments = [&](const std::string& name) {
    return fmt::format("generate {} --input {} --output {} --length 2100 --longer --slots 1", run(),
                       path("in.jsonl"), path(name));
  };
  REQUIRE(test::ratplus(arguments("expected.jsonl")).status == 0);
  const auto expected = read_whole_file(path("expected.jsonl"));

  const auto journal = scratch / ".out.jsonl.unfinished";
  {
    Background killed(test::command(arguments("out.jsonl")) + " 2>" + path("log"));
    REQUIRE(wait_for_lines(journal, 3));
    const auto second = test::ratplus(arguments("out.jsonl"));
    CHECK(second.status == 1);
    CHECK(contains(second.output, "another `ratplus generate` is at work here"));
    CHECK(killed.end(SIGKILL) == 128 + SIGKILL);
  }
  CHECK(!fs::exists(path("out.jsonl")));
  const auto text = read_whole_file(journal);
  const auto done = std::ranges::count(text, '\n') - 1;
  REQUIRE(done < 60);
  std::ofstream(journal, std::ios::app) << "59 0123456789abcdef";  // a torn write
  {
    Background interrupted(test::command(arguments("out.jsonl")) + " 2>" + path("log"));
    REQUIRE(wait_for_lines(journal, done + 4));
    CHECK(interrupted.end(SIGINT) == 75);
    const auto log = read_whole_file(path("log"));
    CAPTURE(log);
    CHECK(contains(log, fmt::format("{} of 60 lines were done before", done)));
    CHECK(contains(log, "the same command goes on where it stopped"));
  }
  {
    const auto lines = std::ranges::count(read_whole_file(journal), '\n');
    Background full(test::command(arguments("out.jsonl")) + " 2>" + path("log"));
    REQUIRE(wait_for_lines(journal, lines + 1));
    full.limit_file_size(fs::file_size(journal) + 2000);
    CHECK(full.end(0) == 1);
    const auto log = read_whole_file(path("log"));
    CAPTURE(log);
    CHECK(contains(log, ".out.jsonl.unfinished: "));
    CHECK(contains(log, "cannot be written: File too large"));
    CHECK(contains(log, "the same command goes on where it stopped"));
  }
  const auto other = test::ratplus(arguments("out.jsonl") + " --top-k 3");
  CHECK(other.status == 1);
  CHECK(contains(other.output, "of a start that differs in options/top_k (0 there, 3 here)"));
  CHECK(test::ratplus(arguments("out.jsonl"), 2).status == 0);
  CHECK(read_whole_file(path("out.jsonl")) == expected);
  CHECK(!fs::exists(journal));
}

TEST_CASE("generate: every bad line is named before anything is generated") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"{\"prompt\": \"ba\"", "line 3: not JSON ("},
      {"[1]", "line 3: a JSON array, not an object"},
      {"{}", "line 3: has no prompt; give one of \"prompt\""},
      {R"({"prompt": "a", "tokens": [1]})", "line 3: has two prompts; give one of"},
      {R"({"prompt": 5})", "line 3: \"prompt\" is a JSON number, not a text"},
      {R"({"tokens": "5"})", "line 3: \"tokens\" is no list of token numbers"},
      {R"({"tokens": [5, 2.5]})", "line 3: \"tokens\" holds 2.5, which is no token's number"},
      {R"({"tokens": [400]})", "line 3: token 400 is outside the model's vocabulary of 400"},
      {R"({"tokens": [-1]})", "line 3: token -1 is outside the model's vocabulary of 400"},
      {R"({"tokens": [99999999999999999999]})", "which is no token's number"},
      {R"({"tokens": []})", "line 3: the prompt is empty"},
      {R"({"prompt": "a", "temprature": 1})",
       "line 3: there is no field \"temprature\"; a line has prompt or tokens, id, meta"},
      {R"({"prompt": "a", "temperature": "hot"})", "line 3: \"temperature\" is \"hot\"; give a number"},
      {R"({"prompt": "a", "temperature": -1})", "line 3: temperature = -1 is not a number from 0"},
      {R"({"prompt": "a", "top_p": 2})", "line 3: top_p = 2 is not a number from 0 to 1"},
      {R"({"prompt": "a", "top_k": 1.5})", "line 3: \"top_k\" is 1.5; give a whole number"},
      {R"({"prompt": "a", "max_tokens": 0})", "line 3: \"max_tokens\" is 0; give a whole number from 1"},
      {R"({"prompt": "a", "max_tokens": 9223372036854775807})", "give a whole number from 1"},
      {R"({"prompt": "a", "max_tokens": 18446744073709551615})", "give a whole number from 1"},
      {R"({"prompt": "a", "max_tokens": 100})", "and 100 more are asked for"},
      {R"({"prompt": "a", "stop": ""})", "line 3: a stop string is empty"},
      {R"({"prompt": "a", "stop": ["x", 5]})", "line 3: \"stop\" is 5; give a text or a list of texts"},
      {R"({"prompt": "a", "stop_tokens": [400]})", "line 3: stop token 400 is outside"},
      {R"({"prompt": "a", "seed": -1})", "line 3: \"seed\" is -1; give a whole number from 0"},
      {R"({"prompt": "a", "n": 2})", "line 3: n = 2 answers are the same at temperature 0"},
      {R"({"prompt": "a", "log_probabilities": 21})",
       "line 3: 21 log-probabilities a token are asked for; at most 20"},
      {R"({"prompt": "a", "logit_bias": {"x": 1}})",
       "line 3: \"logit_bias\" is {\"x\":1}; give an object of token numbers"},
      {R"({"prompt": "a", "logit_bias": {"400": 1}})", "line 3: logit_bias names the token 400"},
      {R"({"prompt": "a", "echo": 1})", "line 3: \"echo\" is 1; give true or false"},
      {R"({"prompt": "a", "cut": "right"})", "line 3: \"cut\": \"right\" is none of none, left, middle"},
      {"{\"prompt\": \"a\xff\"}", "line 3: not JSON ("},
  };
  for (const auto& [line, message] : bad) {
    CAPTURE(line);
    write_whole_file(path("in.jsonl"),
                     "{\"prompt\": \"ba\"}\n\n" + line + "\n{\"prompt\": \"also bad\", \"n\": 0}\n");
    const auto result = test::ratplus(
        fmt::format("generate {} --input {} --output {}", run(), path("in.jsonl"), path("out.jsonl")));
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(contains(result.output, path("in.jsonl") + ", "));
    CHECK(contains(result.output, message));
    CHECK(std::distance(fs::directory_iterator(scratch.path()), fs::directory_iterator()) == 1);
  }
  const auto ranks = test::ratplus(
      fmt::format("generate {} --input {} --output {}", run(), path("in.jsonl"), path("out.jsonl")), 3);
  CHECK(contains(ranks.output, "ratplus: " + path("in.jsonl") + ", line 3: not JSON"));

  for (const auto& [arguments, message] : std::vector<std::pair<std::string, std::string>>{
           {"--input nowhere.jsonl --output o", "nowhere.jsonl"},
           {"--input " + path("in.jsonl"), "--input and --output go together"},
           {"--input " + path("in.jsonl") + " --output /nowhere/o", "there is no directory /nowhere"},
           {"--input " + path("in.jsonl") + " --output " + scratch.path().string(), "is a directory"},
           {"--prompt a --tokens 5", "two kinds of prompts"},
           {"--prompt a --top-p 0.5", "--top-p has no effect at temperature 0"},
           {"--prompt a --logit-bias 5", "--logit-bias 5 is not TOKEN:NUMBER"},
           {"--prompt a --cut right", "is none of none, left, middle"},
           {"--prompt a --length 33", "give --longer"},
           {"--prompt a --length 0", "--length 0 is not a number from 1"},
           {"--prompt a --pattern x", "--pattern"},
           {"--prompt a --tokenizer " +
                (fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json").string(),
            "was trained with sentencepiece:"},
           {"", "there is no prompt; give --prompt TEXT"}}) {
    CAPTURE(arguments);
    const auto result = test::ratplus("generate " + run() + " " + arguments);
    CAPTURE(result.output);
    CHECK(result.status > 0);
    CHECK(contains(result.output, message));
  }
  CHECK(contains(test::ratplus("generate " + run() + " --prompt a", 2).output, "2 ranks were started"));
}

TEST_CASE("generate: weights without a tokenizer take token numbers, and text with --tokenizer") {
  const test::ScratchDirectory scratch;
  const auto weights = (scratch / "a.pth").string();
  REQUIRE(test::ratplus("convert " + run() + " " + weights).status == 0);
  const auto expected = output_of(fmt::format("generate {} --tokens \"5 6\" --max-tokens 6", run()));
  CHECK(output_of(fmt::format("generate {} --tokens \"5 6\" --max-tokens 6 --head-dim 16", weights)) ==
        expected);
  const auto tokenizer = (test::Playground::get().data / "tokenizer.model").string();
  const auto named = output_of(
      fmt::format("generate {} --prompt ba --max-tokens 6 --head-dim 16 --tokenizer {}", weights, tokenizer));
  CHECK(named == output_of(fmt::format("generate {} --prompt ba --max-tokens 6", run())));
}

TEST_CASE(
    "eval --continuations: sums and greedy flags of the logits of an evaluation, from any number of ranks") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const data::Tokenizer tokenizer(test::Playground::get().data / "tokenizer.model");
  std::vector<Json> lines;
  std::vector<std::pair<Tokens, std::size_t>> expected;  // tokens, and the first that is scored
  const auto encoded = [&](const std::string& text) {
    Tokens tokens;
    tokenizer.encode(text, tokens);
    return tokens;
  };
  for (const auto& [context, kept] : std::vector<std::pair<std::string, std::string>>{{"ba kelo", "ba kelo"},
                                                                                      {"ba kelo ", "ba kelo"},
                                                                                      {"mi. \n", "mi."},
                                                                                      {"", ""},
                                                                                      {"so\u00a0", "so"}}) {
    for (const std::string continuation : {"ba", " lo ra", ".\n"}) {
      lines.push_back({{"context", context}, {"continuation", continuation}, {"meta", lines.size()}});
      auto whole = encoded(context + continuation);
      auto first = kept.empty() ? 0 : encoded(kept).size();
      if (first == 0) whole.insert(whole.begin(), tokenizer.end_of_text()), first = 1;
      expected.emplace_back(whole, first);
    }
  }
  lines.push_back({{"context_tokens", {259}}, {"continuation_tokens", {394}}, {"id", "tokens"}});
  expected.emplace_back(Tokens{259, 394}, 1);
  lines.push_back({{"context_tokens", Json::array()}, {"continuation_tokens", {9, 8, 7}}});
  expected.emplace_back(Tokens{tokenizer.end_of_text(), 9, 8, 7}, 1);
  write_lines(path("in.jsonl"), lines);

  const auto eval = fmt::format("eval {} --continuations {} --pattern 8,0,2", run(), path("in.jsonl"));
  const auto printed = output_of(eval);
  std::istringstream in(printed);
  double sum = 0;
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    CAPTURE(json_dump(lines[i]));
    std::string line;
    REQUIRE(static_cast<bool>(std::getline(in, line)));
    const auto result = Json::parse(line);
    const auto& [sequence, first] = expected[i];
    const auto rows = log_probabilities(sequence, "8,0,2");
    double log_likelihood = 0;
    bool greedy = true;
    for (std::size_t t = first; t < sequence.size(); ++t) {
      log_likelihood += rows[t - 1][static_cast<std::size_t>(sequence[t])];
      greedy = greedy && likeliest(rows[t - 1]) == sequence[t];
    }
    CHECK(result["log_likelihood"].get<double>() == doctest::Approx(log_likelihood).epsilon(1e-5));
    CHECK(result["greedy"] == greedy);
    CHECK(result["tokens"] == sequence.size() - first);
    CHECK(result["id"] == lines[i].value("id", Json(i + 1)));
    CHECK(result.contains("characters") == lines[i].contains("context"));
    if (lines[i].contains("context"))
      CHECK(result["characters"] == lines[i]["continuation"].get<std::string>().size());
    sum += log_likelihood;
    tokens += sequence.size() - first;
  }
  for (const int ranks : {0, 1, 3}) {
    const auto result = test::ratplus(fmt::format("{} --output {} --force", eval, path("out.jsonl")), ranks);
    CAPTURE(result.output);
    CHECK(result.status == 0);
    CHECK(read_whole_file(path("out.jsonl")) == printed);
    const auto head = fmt::format("{} continuations, {} tokens: log-likelihood ", lines.size(), tokens);
    const auto at = result.output.find(head);
    REQUIRE(at != std::string::npos);
    CHECK(std::stod(result.output.substr(at + head.size())) == doctest::Approx(sum).epsilon(1e-5));
  }

  Tokens long_context(40, 5);
  const auto too_long = [&](const std::string& options) {
    write_lines(path("long.jsonl"), {{{"context_tokens", long_context}, {"continuation_tokens", {9, 8}}}});
    return test::ratplus(fmt::format("eval {} --continuations {} {}", run(), path("long.jsonl"), options));
  };
  const auto refused = too_long("");
  CHECK(refused.status == 1);
  CHECK(contains(
      refused.output,
      "line 1: a context of 40 tokens and a continuation of 2 are 42, and a sequence has at most 32"));
  for (std::size_t i = 0; i < long_context.size(); ++i) long_context[i] = static_cast<std::int32_t>(5 + i);
  for (const std::string cut : {"left", "middle"}) {
    Tokens kept(long_context.end() - 30, long_context.end());
    if (cut == "middle") std::copy_n(long_context.begin(), 15, kept.begin());
    kept.insert(kept.end(), {9, 8});
    const auto rows = log_probabilities(kept, "dense");
    const auto result = output_of(fmt::format("eval {} --continuations {} --cut {}", run(),
                                              (too_long("--cut " + cut), path("long.jsonl")), cut));
    CHECK(Json::parse(result)["log_likelihood"].get<double>() ==
          doctest::Approx(rows[29][9] + rows[30][8]).epsilon(1e-5));
  }

  for (const auto& [line, message] : std::vector<std::pair<std::string, std::string>>{
           {R"({"context": "a"})", "line 1: give \"context\" and \"continuation\", or"},
           {R"({"context": "a", "continuation": ""})", "line 1: the continuation has no token of its own"},
           {R"({"context": "a", "continuation": 5})",
            "line 1: \"continuation\" is a JSON number, not a text"},
           {R"({"context": "a", "continuation": "b", "choices": 5})",
            "line 1: there is no field \"choices\""},
           {R"({"context_tokens": [400], "continuation_tokens": [1]})", "line 1: token 400 is outside"}}) {
    write_whole_file(path("bad.jsonl"), line + "\n");
    const auto result = test::ratplus(fmt::format("eval {} --continuations {}", run(), path("bad.jsonl")));
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(contains(result.output, message));
  }
  CHECK(
      contains(test::ratplus("eval " + run() + " --output o").output, "--output goes with --continuations"));
  CHECK(contains(test::ratplus(eval + " --data d").output, "--data does not go with --continuations"));
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
