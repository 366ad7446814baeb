// ratplus generate --input: the same file from any number of ranks and after any end, and what is said of bad lines.
#include <doctest/doctest.h>
#include <fmt/core.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/generate/cut.h"
#include "lib/generate/model_identity.h"
#include "lib/infer/inference.h"
#include "lib/weights/source.h"
#include "tests/cli/learnt_model.h"
#include "tests/cli/program.h"

using namespace ratplus;
using test::contains;
using test::learnt_run;
using test::lines_of;
using test::output_of;
using test::write_lines;
namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

/// Of an answer that is to be interrupted.
#ifdef __SANITIZE_ADDRESS__
constexpr int long_answer = 250;  // each token takes eight times as long
#else
constexpr int long_answer = 2000;
#endif

/// Requests of all kinds.
std::vector<Json> mixed_requests(int count) {
  constexpr std::array prompts = {"ba kelo", "mi ra", "so.", "zu ti va"};
  std::vector<Json> lines;
  for (int i = 0; i < count; ++i) {
    Json line{{"max_tokens", 5 + i % 11},
              {"meta", {{"number", i}, {"large", 1e30}, {"text", "é 12345678901234567890123"}}}};
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
    "generate: a file gives the same answers from any number of ranks and slots, and those that prompts "
    "alone get") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const auto requests = mixed_requests(50);
  write_lines(path("in.jsonl"), requests);
  const auto generate = [&](const std::string& name, int ranks, const std::string& options = "") {
    const auto result = test::ratplus(fmt::format("generate {} --input {} --output {} {}", learnt_run(),
                                                  path("in.jsonl"), path(name), options),
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
        output_of(fmt::format("generate {} --prompt \"{}\" --max-tokens {} --seed {} {}", learnt_run(),
                              request["prompt"].get<std::string>(), request["max_tokens"].get<int>(), i,
                              request.contains("temperature") ? "--temperature 0.9" : ""));
    CHECK(alone == answer["text"].get<std::string>() + "\n");
  }

  const auto again = test::ratplus(
      fmt::format("generate {} --input {} --output {}", learnt_run(), path("in.jsonl"), path("one.jsonl")));
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
    return fmt::format("generate {} --input {} --output {} --prompt-template {}#qa {}", learnt_run(),
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
  for (const auto& entry : std::vector<std::pair<std::string, std::string>>{
           {"--force --keep classes", "line 1: has no field \"classes\", which --keep names"},
           {"--force --keep text", "--keep text: the answer's text has that name in the result"},
           {"--force --keep length,finish_reason", "--keep finish_reason: the result has another field"},
           {"--force --text-field id", "--text-field id: the result has another field of that name"},
           {"--force --n 2 --temperature 1 --keep answers",
            "line 1: --keep answers would take the place of the 2 answers"},
           {"--force --trim some", "--trim: \"some\" is none of none, blank, lines"},
           {"--force --prefix-cache 7x", "--prefix-cache 7x is not a size, such as 512MiB"},
           {"--force --prefix-cache 64", "hold no prefix under the pattern"}}) {
    const auto& options = entry.first;
    const auto& message = entry.second;
    CAPTURE(options);
    const auto bad = test::ratplus(command(options));
    CHECK(bad.status != 0);
    CHECK(contains(bad.output, message));
  }
}

TEST_CASE(
    "generate: a setting that --keep names is a setting yet, and fields of other names are kept beside it") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const auto answer = [&](Json line, const std::string& options) {
    write_lines(path("in.jsonl"), {std::move(line)});
    output_of(fmt::format("generate {} --input {} --output {} --force {}", learnt_run(), path("in.jsonl"),
                          path("out.jsonl"), options));
    return lines_of(path("out.jsonl")).front();
  };
  Json line{{"prompt", "ba kelo"}, {"max_tokens", 7}, {"temperature", 2.5}, {"seed", 9}, {"id", "x"}};
  const auto plain = answer(line, "");
  CHECK(plain["text"] != answer({{"prompt", "ba kelo"}, {"max_tokens", 7}}, "")["text"]);
  line["source"] = "made up";
  auto kept = answer(line, "--keep temperature,seed,max_tokens,source,id");
  CHECK(kept["temperature"] == 2.5);
  CHECK(kept["seed"] == 9);
  CHECK(kept["max_tokens"] == 7);
  CHECK(kept["source"] == "made up");
  for (const char* name : {"temperature", "seed", "max_tokens", "source"}) kept.erase(name);
  CHECK(kept == plain);
}

TEST_CASE("generate: tokens are echoed as text, without those that have none, and as they are after a cut") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const data::Tokenizer tokenizer(test::Playground::get().data / "tokenizer.model");
  std::vector<std::int32_t> words;
  tokenizer.encode("ba kelo mi ra so", words);
  auto marked = words;
  marked.push_back(tokenizer.end_of_text());
  std::vector<std::int32_t> long_one(20, words.front());
  long_one.insert(long_one.end(), words.begin(), words.end());
  const auto line_of = [](const std::vector<std::int32_t>& tokens, bool echo) {
    return Json{{"tokens", tokens}, {"echo", echo}, {"max_tokens", 32 - 5}, {"cut", "left"}};
  };
  write_lines(path("in.jsonl"), {line_of(marked, false), line_of(marked, true), line_of(long_one, false),
                                 line_of(long_one, true)});
  output_of(
      fmt::format("generate {} --input {} --output {}", learnt_run(), path("in.jsonl"), path("out.jsonl")));
  const auto answers = lines_of(path("out.jsonl"));
  REQUIRE(answers.size() == 4);
  for (std::size_t i = 0; i < answers.size(); i += 2) {
    const auto cut = generate::cut_tokens(i == 0 ? marked : long_one, 5, generate::Cut::left);
    CHECK(answers[i + 1]["prompt_tokens"] == cut.size());
    auto tokens = cut;
    for (const Json& token : answers[i]["tokens"]) tokens.push_back(token.get<std::int32_t>());
    CHECK(answers[i + 1]["tokens"] == tokens);
    const auto text = answers[i + 1]["text"].get<std::string>(),
               of_answer = answers[i]["text"].get<std::string>();
    CHECK(text.ends_with(of_answer));
    auto with_text = cut;
    std::erase(with_text, tokenizer.end_of_text());
    CHECK(text.substr(0, text.size() - of_answer.size()) == tokenizer.decode(with_text));
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
                        {"max_tokens", long_answer + 10 * (i % 7)},
                        {"ignore_end_of_text", true}});
  write_lines(path("in.jsonl"), requests);
  const auto arguments = [&](const std::string& name) {
    return fmt::format("generate {} --input {} --output {} --length {} --longer --slots 1", learnt_run(),
                       path("in.jsonl"), path(name), long_answer + 100);
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

TEST_CASE("results are continued by the weights that began them, and by no others at their path") {
  const test::ScratchDirectory scratch;
  const auto identity_of = [](const fs::path& path) {
    const auto model = infer::resolve({.head_dim = 32}, weights::resolve(path.string()));
    return generate::model_identity("generate", model, {}, "f32")["weights"].get<std::string>();
  };
  const auto convert = [&](const fs::path& to, const std::string& type) {
    const auto made =
        test::ratplus(fmt::format("convert {} {} --force --dtype {}", learnt_run(), to.string(), type));
    CAPTURE(made.output);
    REQUIRE(made.status == 0);
  };
  for (const char* name : {"checkpoint", "weights.safetensors", "weights.pth"}) {
    CAPTURE(name);
    const auto path = scratch / name;
    convert(path, "float32");
    const auto before = identity_of(path);
    CHECK(identity_of(path) == before);
    convert(path, "bfloat16");
    CHECK(identity_of(path) != before);
  }
  const auto file = scratch / "weights.pth";
  const auto before = identity_of(file);
  fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
  CHECK(identity_of(file) == before);
  fs::rename(file, scratch / "elsewhere.pth");
  fs::create_directory(scratch / "copied");
  fs::copy_file(scratch / "elsewhere.pth", scratch / "copied/weights.pth");
  CHECK(identity_of(scratch / "copied/weights.pth") == before);
}

TEST_CASE(
    "weights in bfloat16: the same answers from half the memory on a CPU; others are rounded on request "
    "alone") {
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  const auto run = [&](const std::string& arguments, int status = 0) {
    const auto made = test::ratplus(arguments);
    CAPTURE(arguments);
    CAPTURE(made.output);
    REQUIRE(made.status == status);
    return made.output;
  };
  run(fmt::format("convert {} {} --dtype bfloat16", learnt_run(), path("w16.safetensors")));
  write_whole_file(path("in.jsonl"), R"({"tokens": [5, 6, 7, 8], "max_tokens": 12, "log_probabilities": 3})"
                                     "\n");
  const auto answers = [&](const std::string& weights, const std::string& options) {
    run(fmt::format("generate {} --head-dim 32 --device cpu --input {} --output {} --force {}", weights,
                    path("in.jsonl"), path("out.jsonl"), options));
    return read_whole_file(path("out.jsonl"));
  };
  const auto rounded = answers(path("w16.safetensors"), "");
  CHECK(answers(path("w16.safetensors"), "--precision f32") == rounded);
  CHECK(answers(path("w16.safetensors"), "--precision bf16") == rounded);
  CHECK(answers(learnt_run(), "") != rounded);
  CHECK(answers(learnt_run(), "--precision f32") != rounded);
  CHECK(answers(learnt_run(), "--precision bf16") == rounded);
  const auto times = [&](const std::string& options) {
    run(fmt::format("bench generate {} --device cpu --lengths 64 --steps 2 --batches 1 --json {} {}",
                    path("w16.safetensors"), path("times.json"), options));
    return Json::parse(read_whole_file(path("times.json")));
  };
  const auto half = times(""), whole = times("--precision f32");
  CHECK(half["weight_type"] == "bf16");
  CHECK(whole["weight_type"] == "f32");
  CHECK(half["weight_bytes"].get<double>() < 0.6 * whole["weight_bytes"].get<double>());
  // Interrupted work is continued with the same bits alone.
  std::vector<Json> requests(
      60, {{"tokens", {5, 6, 7}}, {"max_tokens", long_answer}, {"ignore_end_of_text", true}});
  write_lines(path("long.jsonl"), requests);
  const auto journal = scratch / ".long.out.unfinished";
  const auto interrupted = [&](const std::string& weights, const std::string& options) {
    return fmt::format(
        "generate {} --head-dim 32 --device cpu --input {} --output {} --length {} --longer --slots 1 {}",
        weights, path("long.jsonl"), path("long.out"), long_answer + 100, options);
  };
  const auto begin = [&](const std::string& arguments) {
    fs::remove(journal);
    Background begun(test::command(arguments) + " 2>" + path("log"));
    REQUIRE(wait_for_lines(journal, 2));
    CHECK(begun.end(SIGINT) == 75);
  };
  begin(interrupted(path("w16.safetensors"), ""));
  {
    Background same(test::command(interrupted(path("w16.safetensors"), "--precision f32")) + " 2>" +
                    path("log"));
    REQUIRE(wait_for_lines(journal, 4));
    CHECK(same.end(SIGINT) == 75);
    CHECK(contains(read_whole_file(path("log")), "lines were done before"));
  }
  begin(interrupted(learnt_run(), ""));
  const auto other = run(interrupted(learnt_run(), "--precision bf16"), 1);
  CHECK(contains(other, "of a start that differs in type (\"f32\" there, \"f32, rounded weights\" here)"));
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
      {R"({"prompt": "a", "max_tokens": 100})",
       "and 100 more are asked for, and a sequence has at most 32; ask for fewer"},
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
      {R"({"tokens": [5, 99999999], "echo": true})",
       "line 3: token 99999999 is outside the model's vocabulary of 400"},
      {R"({"tokens": [-5], "echo": true})", "line 3: token -5 is outside the model's vocabulary of 400"},
      {R"({"prompt": "a", "echo": 1})", "line 3: \"echo\" is 1; give true or false"},
      {R"({"prompt": "a", "cut": "right"})", "line 3: \"cut\": \"right\" is none of none, left, middle"},
      {R"({"prompt": "a", "meta": )" + std::string(100000, '[') + std::string(100000, ']') + "}",
       "line 3: not JSON ([json.exception.parse_error.101] parse error: 100001 levels of lists and objects"},
      {R"({"prompt": "a", "id": 123456789012345678901})",
       "line 3: \"id\" holds a whole number of more than 64 bits"},
      {R"({"prompt": "a", "meta": {"x": [-123456789012345678901]}})",
       "line 3: \"meta\" holds a whole number of"},
      {R"({"prompt": "a", ")" + std::string(1000, 'x') + R"(": 1})",
       "line 3: there is no field \"" + std::string(60, 'x') + "...\"; a line has"},
      {"{\"prompt\": \"a\xff\"}", "line 3: not JSON ("},
  };
  for (const auto& entry : bad) {
    const auto& line = entry.first;
    const auto& message = entry.second;
    CAPTURE(line);
    write_whole_file(path("in.jsonl"),
                     "{\"prompt\": \"ba\"}\n\n" + line + "\n{\"prompt\": \"also bad\", \"n\": 0}\n");
    const auto result = test::ratplus(
        fmt::format("generate {} --input {} --output {}", learnt_run(), path("in.jsonl"), path("out.jsonl")));
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(contains(result.output, path("in.jsonl") + ", "));
    CHECK(contains(result.output, message));
    CHECK(std::distance(fs::directory_iterator(scratch.path()), fs::directory_iterator()) == 1);
  }
  const auto ranks = test::ratplus(
      fmt::format("generate {} --input {} --output {}", learnt_run(), path("in.jsonl"), path("out.jsonl")),
      3);
  CHECK(contains(ranks.output, "ratplus: " + path("in.jsonl") + ", line 3: not JSON"));

  REQUIRE(::mkfifo(path("pipe").c_str(), 0600) == 0);
  for (const auto& entry : std::vector<std::pair<std::string, std::string>>{
           {"--input nowhere.jsonl --output o", "nowhere.jsonl"},
           {"--input " + path("in.jsonl") + " --force --output " + path("pipe"), "is a device or a pipe"},
           {"--input " + path("in.jsonl"), "--input and --output go together"},
           {"--input " + path("in.jsonl") + " --output /nowhere/o", "there is no directory /nowhere"},
           {"--input " + path("in.jsonl") + " --output " + scratch.path().string(), "is a directory"},
           {"--prompt a --tokens 5", "two kinds of prompts"},
           {"--prompt a --top-p 0.5", "--top-p has no effect at temperature 0"},
           {"--prompt a --logit-bias 5", "--logit-bias 5 is not TOKEN:NUMBER"},
           {"--prompt a --cut right", "is none of none, left, middle"},
           {"--prompt a --length 33", "give --longer"},
           {"--prompt a --temperature 1 --seed -1", "--seed -1 is not a whole number from 0 to 2^64 - 1"},
           {"--prompt a --slots 1000000000", "--slots 1000000000 is not a number from 1 to 65536"},
           {"--prompt a --prefix-cache 100TiB", "--prefix-cache: 102400.0 GiB are asked for, and there are"},
           {"--prompt a --length 0", "--length 0 is not a number from 1"},
           {"--prompt a --pattern x", "--pattern"},
           {"--prompt a --tokenizer " +
                (fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json").string(),
            "was trained with sentencepiece:"},
           {"", "there is no prompt; give --prompt TEXT"}}) {
    const auto& arguments = entry.first;
    const auto& message = entry.second;
    CAPTURE(arguments);
    const auto result = test::ratplus("generate " + learnt_run() + " " + arguments);
    CAPTURE(result.output);
    CHECK(result.status > 0);
    CHECK(contains(result.output, message));
  }
  CHECK(
      contains(test::ratplus("generate " + learnt_run() + " --prompt a", 2).output, "2 ranks were started"));
}
