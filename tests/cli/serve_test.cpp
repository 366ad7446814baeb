// ratplus serve as a user starts it: its address, the same text as `ratplus generate`, signals, and what it refuses.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/cli/program.h"
#include "tests/serve/client.h"

using namespace ratplus;
using test::contains;
namespace fs = std::filesystem;
using Json = nlohmann::json;
using namespace std::chrono_literals;

namespace {

/// A small model that has learnt a little.
struct Trained {
  Trained() {
    const auto& playground = test::Playground::get();
    const auto result =
        test::ratplus(fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=10 "
                                  "checkpoint.every=0 job.threads=1",
                                  playground.job.string(), run.string(), playground.data.string()));
    if (result.status != 0) fail("{}", result.output);
  }
  static std::string get() {
    static const Trained trained;
    return trained.run.string();
  }

  test::ScratchDirectory scratch;
  fs::path run = scratch / "run";
};

/// A server that runs beside the test.
class Process {
 public:
  /// errors_to: in the place of a file that errors() reads.
  explicit Process(const std::string& arguments, int ranks = 0, const std::string& errors_to = {}) {
    const auto command =
        fmt::format("exec {} >{} 2>{}", test::command("serve " + arguments + " --port 0 --threads 1", ranks),
                    out(), errors_to.empty() ? err() : errors_to);
    id_ = ::fork();
    if (id_ == 0) {
      ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
    wait([&] { return contains(text(out()), "at a time") || ended(); });
    const auto line = text(out());
    const std::string begin = "http://127.0.0.1:";
    if (!line.starts_with(begin)) fail("the server did not start: {}", text(err()));
    port = std::stoi(line.substr(begin.size()));
  }
  ~Process() {
    if (ended()) return;
    ::kill(id_, SIGKILL);
    ::waitpid(id_, nullptr, 0);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void signal(int number) const { ::kill(id_, number); }
  /// The exit status, waiting for it.
  int status() {
    wait([&] { return ended(); });
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
  }
  std::string errors() const { return text(err()); }
  std::string output() const { return text(out()); }
  template <typename Condition>
  static void wait(Condition condition) {
    for (int i = 0; i < 4000; ++i) {
      if (condition()) return;
      std::this_thread::sleep_for(5ms);
    }
    fail("waited for twenty seconds");
  }

  int port = 0;

 private:
  std::string out() const { return (scratch_ / "out").string(); }
  std::string err() const { return (scratch_ / "err").string(); }
  bool ended() {
    if (!ended_ && ::waitpid(id_, &status_, WNOHANG) == id_) ended_ = true;
    return ended_;
  }
  static std::string text(const std::string& file) {
    std::ifstream in(file);
    std::stringstream all;
    all << in.rdbuf();
    return all.str();
  }

  test::ScratchDirectory scratch_;
  pid_t id_ = 0;
  int status_ = 0;
  bool ended_ = false;
};

}  // namespace

TEST_CASE("serve gives the text of generate and the scores of eval, takes new weights, and ends in order") {
  const auto run = Trained::get();
  Process server(run + " --pattern 8,0,0 --pattern 1,0,0");
  CHECK(contains(server.output(), "serves ratplus, ratplus@8,0,0, ratplus@1,0,0"));
  for (const std::string pattern : {"8,0,0", "1,0,0"}) {
    const auto expected =
        test::shell(test::command(fmt::format("generate {} --prompt \"ba kelo\" --max-tokens 12 --pattern {}",
                                              run, pattern)) +
                    " 2>/dev/null");
    REQUIRE(expected.status == 0);
    const Json body{
        {"model", "ratplus@" + pattern}, {"prompt", "ba kelo"}, {"max_tokens", 12}, {"temperature", 0}};
    const auto answer = test::complete(server.port, body).json();
    CHECK(answer["choices"][0]["text"].get<std::string>() + "\n" == expected.output);
  }
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "c.jsonl",
                   R"({"context_tokens": [5, 6, 7, 8], "continuation_tokens": [9, 10, 11]})"
                   "\n");
  const auto scored = test::shell(test::command(fmt::format("eval {} --continuations {} --pattern 8,0,0", run,
                                                            (scratch / "c.jsonl").string())) +
                                  " 2>/dev/null");
  REQUIRE(scored.status == 0);
  const Json body{{"prompt", {5, 6, 7, 8, 9, 10, 11}},
                  {"max_tokens", 1},
                  {"temperature", 0},
                  {"echo", true},
                  {"logprobs", 1}};
  const auto before = test::complete(server.port, body).json()["choices"][0];
  double sum = 0;
  for (std::size_t t = 4; t < 7; ++t) sum += before["logprobs"]["token_logprobs"][t].get<double>();
  CHECK(sum == doctest::Approx(Json::parse(scored.output)["log_likelihood"].get<double>()).epsilon(1e-6));
  server.signal(SIGHUP);
  Process::wait([&] { return contains(server.errors(), "ratplus: weights of " + run); });
  CHECK(test::complete(server.port, body).json()["choices"][0] == before);
  CHECK(contains(server.errors(), "ratplus: request 1: length, 1 answer of 1 prompt"));
  CHECK_FALSE(contains(server.errors(), "kelo"));

  const auto second = test::ratplus(fmt::format("serve {} --port {}", run, server.port));
  CHECK(second.status == 1);
  CHECK(contains(second.output, fmt::format("127.0.0.1:{} is in use", server.port)));
  CHECK(contains(second.output, "--port 0"));
  server.signal(SIGTERM);
  CHECK(server.status() == 0);
}

TEST_CASE("serve takes connections when its address is read") {
  for (int i = 0; i < 3; ++i) {
    FILE* pipe = ::popen(
        ("echo $$; exec " + test::command("serve " + Trained::get() + " --port 0 --threads 1") + " 2>&1")
            .c_str(),
        "r");
    REQUIRE(pipe != nullptr);
    std::array<char, 1000> line{};
    REQUIRE(std::fgets(line.data(), line.size(), pipe) != nullptr);
    const auto process = std::atoi(line.data());
    REQUIRE(std::fgets(line.data(), line.size(), pipe) != nullptr);
    const std::string address(line.data());
    const std::string begin = "http://127.0.0.1:";
    REQUIRE(address.starts_with(begin));
    CHECK_NOTHROW(test::Client(std::stoi(address.substr(begin.size()))));
    ::kill(process, SIGTERM);
    while (std::fgets(line.data(), line.size(), pipe) != nullptr) {
    }
    CHECK(::pclose(pipe) == 0);
  }
}

TEST_CASE("serve keeps its weights where new ones are damaged, and goes on where nothing can be logged") {
  const test::ScratchDirectory scratch;
  const auto file = (scratch / "weights.pth").string();
  REQUIRE(test::ratplus(fmt::format("convert {} {}", Trained::get(), file)).status == 0);
  const auto good = read_whole_file(file);
  const Json body{{"prompt", {5, 6, 7}}, {"max_tokens", 4}, {"temperature", 0}, {"logprobs", 1}};
  const auto arguments = file + " --head-dim 16 --length 32 --longer";
  {
    Process server(arguments);
    const auto before = test::complete(server.port, body).json()["choices"];
    // One bit of the weights, which their checksum finds when they are read.
    auto damaged = good;
    damaged[damaged.size() / 2] ^= 1;
    write_whole_file(file, damaged);
    server.signal(SIGHUP);
    Process::wait([&] { return contains(server.errors(), "the weights before stay"); });
    CHECK(contains(server.errors(), "is damaged"));
    CHECK(test::complete(server.port, body).json()["choices"] == before);
    // A path that leads nowhere.
    fs::remove(file);
    fs::create_symlink(file, file);
    server.signal(SIGHUP);
    Process::wait([&] { return contains(server.errors(), file + "]; the weights before stay"); });
    CHECK(contains(server.errors(), "Too many levels of symbolic links"));
    CHECK(test::complete(server.port, body).json()["choices"] == before);
    fs::remove(file);
    write_whole_file(file, good);
    server.signal(SIGHUP);
    Process::wait([&] { return contains(server.errors(), "ratplus: weights of "); });
    CHECK(test::complete(server.port, body).json()["choices"] == before);
    server.signal(SIGTERM);
    CHECK(server.status() == 0);
  }
  {
    // Files without a checksum.
    const auto plain = (scratch / "weights.safetensors").string();
    REQUIRE(test::ratplus(fmt::format("convert {} {}", Trained::get(), plain)).status == 0);
    Process server(plain + " --length 32 --longer");
    const auto before = test::complete(server.port, body).json()["choices"];
    auto no_numbers = read_whole_file(plain);
    std::fill(no_numbers.end() - 4, no_numbers.end(), static_cast<char>(0xff));
    write_whole_file(plain, no_numbers);
    server.signal(SIGHUP);
    Process::wait([&] { return contains(server.errors(), "the weights before stay"); });
    CHECK(contains(server.errors(), ".weight holds an element that is no finite number"));
    CHECK(test::complete(server.port, body).json()["choices"] == before);
    server.signal(SIGTERM);
    CHECK(server.status() == 0);
    // Nothing begins with such weights.
    for (const auto& command : {"serve " + plain + " --port 0 --length 32 --longer",
                                "generate " + plain + " --tokens '5 6' --length 32 --longer"}) {
      CAPTURE(command);
      const auto refused = test::ratplus(command);
      CHECK(refused.status == 1);
      CHECK(contains(refused.output, "weights.safetensors: "));
      CHECK(contains(refused.output, ".weight holds an element that is no finite number"));
    }
  }
  {
    // Weights of more than bfloat16, into memory that holds bfloat16.
    const auto changed = (scratch / "changed.safetensors").string();
    const auto convert = [&](const std::string& type) {
      REQUIRE(test::ratplus(fmt::format("convert {} {} --force --dtype {}", Trained::get(), changed, type))
                  .status == 0);
    };
    convert("bfloat16");
    Process server(changed + " --length 32 --longer --device cpu");
    const auto before = test::complete(server.port, body).json()["choices"];
    convert("float32");
    server.signal(SIGHUP);
    Process::wait([&] { return contains(server.errors(), "the weights before stay"); });
    CHECK(contains(server.errors(), "not all of its weights are bfloat16"));
    CHECK(contains(server.errors(), "--precision f32"));
    CHECK(test::complete(server.port, body).json()["choices"] == before);
    convert("bfloat16");
    server.signal(SIGHUP);
    Process::wait([&] { return contains(server.errors(), "ratplus: weights of "); });
    CHECK(test::complete(server.port, body).json()["choices"] == before);
    server.signal(SIGTERM);
    CHECK(server.status() == 0);
    // On request both kinds, rounded or not.
    for (const std::string precision : {"f32", "bf16"}) {
      CAPTURE(precision);
      convert("bfloat16");
      Process other(changed + " --length 32 --longer --device cpu --precision " + precision);
      CHECK(test::complete(other.port, body).json()["choices"] == before);
      convert("float32");
      other.signal(SIGHUP);
      Process::wait([&] { return contains(other.errors(), "ratplus: weights of "); });
      CHECK((test::complete(other.port, body).json()["choices"] == before) == (precision == "bf16"));
      other.signal(SIGTERM);
      CHECK(other.status() == 0);
    }
  }
  // A disk that is full.
  Process server(arguments, 0, "/dev/full");
  CHECK(test::complete(server.port, body).status == 200);
  server.signal(SIGHUP);
  for (int i = 0; i < 20; ++i) {
    CHECK(test::complete(server.port, body).status == 200);
    std::this_thread::sleep_for(20ms);
  }
  server.signal(SIGTERM);
  CHECK(server.status() == 0);
}

TEST_CASE("serve by several ranks: one address, the answers of one rank, and an end in order") {
  const auto run = Trained::get();
  Process one(run + " --slots 2"), ranks(run + " --slots 2 --prefix-cache 1MiB", 2);
  CHECK(contains(ranks.output(), "2 ranks, each with as much"));
  for (int i = 0; i < 8; ++i) {
    const Json body{
        {"prompt", {5, 6 + i, 7, 8}}, {"max_tokens", 12}, {"seed", i}, {"n", 2}, {"ignore_eos", true}};
    CHECK(test::complete(ranks.port, body).json()["choices"] ==
          test::complete(one.port, body).json()["choices"]);
  }
  const auto output = ranks.output();
  const auto process = std::stoi(output.substr(output.find("process ") + 8));
  ::kill(process, SIGHUP);
  Process::wait([&] {
    const auto text = ranks.errors();
    const auto first = text.find("weights of " + run);
    return first != std::string::npos && text.find("weights of " + run, first + 1) != std::string::npos;
  });
  ::kill(process, SIGTERM);
  CHECK(ranks.status() == 0);
  one.signal(SIGTERM);
  CHECK(one.status() == 0);
}

TEST_CASE("serve: a chat template is used, and refused with its line") {
  const auto run = Trained::get();
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "chat.jinja", "{% for m in messages %}{{ m.content }} {% endfor %}ba");
  write_whole_file(scratch / "bad.jinja", "\n{% macro x() %}");
  Process server(run + " --chat-template " + (scratch / "chat.jinja").string());
  const Json chat{{"messages", Json::array({{{"role", "user"}, {"content", "kelo"}}})},
                  {"max_tokens", 6},
                  {"temperature", 0}};
  const auto answer = test::ask(server.port, "POST", "/v1/chat/completions", chat.dump()).json();
  const auto plain =
      test::complete(server.port, {{"prompt", "kelo ba"}, {"max_tokens", 6}, {"temperature", 0}}).json();
  CHECK(answer["choices"][0]["message"]["content"] == plain["choices"][0]["text"]);
  const auto bad =
      test::ratplus("serve " + run + " --port 0 --chat-template " + (scratch / "bad.jinja").string());
  CHECK(bad.status == 1);
  CHECK(contains(bad.output, "bad.jinja, line 2: {% macro %} is not supported"));
}

TEST_CASE("serve: a key in a file; a second signal ends the program at once") {
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "key", " s3cret \r\n");
  Process server(Trained::get() + " --grace 100 --api-key-file " + (scratch / "key").string());
  CHECK(test::ask(server.port, "GET", "/v1/models").status == 401);
  CHECK(test::ask(server.port, "GET", "/v1/models", "", "Authorization: Bearer s3cret\r\n").status == 200);
  // A request that never ends: nobody reads it.
  test::Client client(server.port);
  const Json body{{"prompt", Json(std::vector<std::string>(1000, "ba"))},
                  {"n", 4},
                  {"max_tokens", 30},
                  {"ignore_eos", true},
                  {"logprobs", 20},
                  {"stream", true}};
  client.send(
      test::request_bytes("POST", "/v1/completions", body.dump(), "Authorization: Bearer s3cret\r\n"));
  client.read_until("data: ");
  server.signal(SIGTERM);
  std::this_thread::sleep_for(1200ms);
  server.signal(SIGTERM);
  CHECK(server.status() == 128 + SIGTERM);
}

TEST_CASE("serve refuses what cannot be, with the way out") {
  const auto run = Trained::get();
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "empty", "\n");
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "a checkpoint is missing"},
      {run + " --port 70000", "--port 70000 is not a number from 0 to 65535"},
      {run + " --pattern 0,0,0", "--pattern"},
      {run + " --pattern 8,0,0 --pattern 8,0,0", "is given twice"},
      {run + " --name a@b", "--name"},
      {run + " --host \"\"", "--host is empty"},
      {run + " --queue 0", "--queue 0 is below 1"},
      {run + " --max-body 0", "--max-body"},
      {run + " --host 192.0.2.1", "--host"},
      {run + " --length 4096", "--longer"},
      {run + " --prefix-cache lots", "--prefix-cache lots is not a size"},
      {run + " --prefix-cache 64", "hold no prefix under the pattern"},
      {run + " --time-limit 0", "--time-limit 0 is below"},
      {run + " --chat-template " + (scratch / "none").string(), "there is no such file"},
      {run + " --api-key-file " + (scratch / "empty").string(), "holds no key"},
      {(scratch / "none").string() + " --port 0", "none"},
  };
  for (const auto& entry : bad) {
    const auto& arguments = entry.first;
    const auto& message = entry.second;
    CAPTURE(arguments);
    const auto result = test::ratplus("serve " + arguments);
    CAPTURE(result.output);
    CHECK((result.status == 1 || result.status == 2));
    CHECK(contains(result.output, message));
  }
}

TEST_CASE("docs/serving.md names every option of serve") {
  const auto page = read_whole_file(fs::path(RATPLUS_SOURCE_DIR) / "docs/serving.md");
  int options = 0;
  for (const auto& name : test::option_names("serve")) {
    CAPTURE(name);
    CHECK(contains(page, "`" + name));
    ++options;
  }
  CHECK(options > 20);
}
