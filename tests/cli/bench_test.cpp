// What the benchmarks print where it means something, and what --help says of them.
#include <doctest/doctest.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "tests/cli/program.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

TEST_CASE("data-bench: how long steps waited is told where they were taken at a pace") {
  const auto data = test::Playground::get().data.string();
  const auto fast =
      test::ratplus(fmt::format("data-bench {} --sequence-length 32 --batch 4 --seconds 0.1", data));
  CAPTURE(fast.output);
  CHECK(fast.status == 0);
  CHECK(test::count(fast.output, "the first step waited") == 2);
  CHECK_FALSE(test::contains(fast.output, "others"));
  const auto paced = test::ratplus(
      fmt::format("data-bench {} --sequence-length 32 --batch 4 --seconds 0.1 --pace 10000", data));
  CHECK(test::count(paced.output, "the first step waited") == 2);
  CHECK(test::count(paced.output, ", the others ") == 2);
}

TEST_CASE("the overview tells all that bench measures") {
  const auto help = test::ratplus("--help").output;
  CAPTURE(help);
  for (const char* part : {"operations", "training steps", "communication", "generation"})
    CHECK(test::contains(help, part));
}

TEST_CASE("sizes that cannot be timed are refused by name") {
  const auto data = test::Playground::get().data.string();
  const auto refused = [](const std::string& arguments, const std::string& part) {
    const auto result = test::ratplus(arguments);
    CAPTURE(result.output);
    CHECK(result.status != 0);
    CHECK(test::contains(result.output, part));
  };
  refused("data-bench " + data + " --batch 99999999999", "--batch 99999999999 of --sequence-length 4096");
  refused("data-bench " + data + " --sequence-length 0", "--sequence-length 0");
  refused("bench ops --device cpu --sequence-length 0", "--sequence-length 0 is not positive");
  refused("bench step job.toml --peak -1", "--peak -1");
  refused("bench step job.toml --batch 4", "--batch goes with bench ops, ops of a job, and bench step");
  refused("bench ops --picture x.svg", "--picture goes with bench generate, and bench ops");
  refused("bench ops --set model.width=8", "--set goes with bench ops of a job, step, generate");
  refused("bench generate job.toml --any-order", "--any-order goes with bench ops");
}

TEST_CASE("bench ops: times and rates have three digits, however small the work") {
  const auto result = test::ratplus(
      "bench ops --device cpu --batch 1 --tokens 1 --width 2 --head-dim 2 --vocab 2 --threads 1");
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  std::istringstream lines(result.output);
  int rows = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!test::contains(line, "product [") && !line.starts_with("attention")) continue;
    ++rows;
    CAPTURE(line);
    CHECK_FALSE(test::contains(line, "e-"));
    CHECK(test::contains(line, "FLOP/s"));
    CHECK((test::contains(line, " ns") || test::contains(line, " us")));
    CHECK_FALSE(test::contains(line, " 0.00"));
  }
  CHECK(rows == 8);
}

TEST_CASE("bench step: bytes that a rank sends within hosts and between them") {
  const auto sent = [](const std::string& settings) {
    const test::ScratchDirectory scratch;
    const auto file = (scratch / "times.json").string();
    const auto result = test::shell(
        "RATPLUS_TEST_NODES=0,0,1,1 " +
        test::command(
            fmt::format("bench step {} --device cpu --micro-batches 1 --steps 1 --warmup 0 --json {} --set "
                        "job.directory=none data.directory=none {}",
                        test::Playground::get().job.string(), file, settings),
            4));
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    CHECK(test::contains(result.output, "sent by a rank: "));
    const auto bytes = parse_json(read_whole_file(file))["sent_bytes"];
    return std::pair<double, double>(bytes["within_hosts"], bytes["between_hosts"]);
  };
  const auto whole = sent("parallel.shard=optimizer");
  const auto rounded = sent("parallel.shard=optimizer parallel.reduce=bf16_between_hosts");
  CHECK(whole.first > 0);
  CHECK(rounded.first == whole.first);
  CHECK(rounded.second == doctest::Approx(whole.second / 2).epsilon(0.01));  // biases of gates stay f32
  // One sum over all ranks, and in two levels half the parameters of it over each pair of hosts.
  const auto flat = sent("parallel.shard=none");
  CHECK(flat.first == 0);
  const auto levels = sent("parallel.shard=none parallel.reduce=bf16_between_hosts");
  CHECK(levels.first > 0);
  CHECK(levels.second == doctest::Approx(rounded.second).epsilon(0.01));
  CHECK(flat.second == doctest::Approx(3 * whole.second).epsilon(0.01));
}

namespace {

/// `bench ops` of the playground's job with this mixer: its JSON, once the command has ended well.
nlohmann::json layers_of(const std::string& mixer, const std::string& more = {}) {
  const test::ScratchDirectory scratch;
  const auto file = (scratch / "times.json").string();
  const auto result = test::ratplus(
      fmt::format("bench ops {} --device cpu --threads 1 --batch 2 --sequence-length 48 --set model.width=32 "
                  "model.head_dim=8 job.directory=none data.directory=none {} {} --json {}",
                  test::Playground::get().job.string(),
                  mixer.empty() ? "" : "job.joint_pattern=dense model.mixer=\"" + mixer + "\"", more, file));
  CAPTURE(result.output);
  REQUIRE(result.status == 0);
  for (const char* part : {"ceilings", "scratch", "mixer in all", "layer in all", "for 262144 tokens"})
    CHECK(test::contains(result.output, part));
  return parse_json(read_whole_file(file));
}

std::vector<std::string> names_of(const nlohmann::json& operations) {
  std::vector<std::string> names;
  for (const auto& operation : operations) names.push_back(operation["name"]);
  return names;
}

}  // namespace

TEST_CASE("bench ops of a job: the operations of each mixer, their floors, and scratch") {
  using Names = std::vector<std::string>;
  constexpr double rows = 2 * 48, d = 32;
  const auto check = [&](const std::string& mixer, double wide, const Names& names) {
    CAPTURE(mixer);
    const auto layer = layers_of(mixer)["layers"].at(0);
    const auto& of_mixer = layer["of_mixer"];
    CHECK(names_of(of_mixer["operations"]) == names);
    CHECK(names_of(layer["of_feed_forward"]["operations"]) ==
          Names{"residual + RMSNorm", "fc1, 32 to 128", "GELU", "fc2, 128 to 32"});
    // Forward, and the gradients of inputs and weights.
    CHECK(of_mixer["operations"].at(1)["operations"] == 6 * rows * d * wide);
    CHECK(layer["memory"]["scratch"] > 0);
    for (const auto& operation : of_mixer["operations"]) {
      CHECK(operation["floor_seconds"] > 0);
      CHECK(operation["backward_seconds"] > 0);
    }
    CHECK(of_mixer["forward_seconds"] > 0);
    CHECK(of_mixer["floor_seconds"] > 0);
    return layer;
  };
  const auto rat =
      check("{ kind = \\\"rat\\\", chunk = 16, groups = 2 }", 3 * d + 2 * 2 * 8,
            {"residual + RMSNorm", "in_proj, 32 to 128", "gate, recurrence, RoPE", "attention 16,0,0",
             "output gate", "out_proj, 32 to 32", "sums of the gate's gradient"});
  CHECK(rat["pattern"] == "16,0,0");
  const auto rnn = check("rnn", 3 * d,
                         {"residual + RMSNorm", "in_proj, 32 to 96", "gate, recurrence", "output gate",
                          "out_proj, 32 to 32", "sums of the gate's gradient"});
  CHECK(rnn["pattern"] == "");
  check("local_attention", 3 * d,
        {"residual + RMSNorm", "in_proj, 32 to 96", "RoPE", "attention none,1024,0", "out_proj, 32 to 32"});
}

TEST_CASE("bench ops of a job: RAT+ under each update's pattern; shared keys make in_proj narrower") {
  const auto all = layers_of("", "model.kv_heads=2")["layers"];
  REQUIRE(all.size() == 2);
  CHECK(all[0]["pattern"] != all[1]["pattern"]);
  CHECK(all[1]["of_mixer"]["operations"].at(1)["name"] == "in_proj, 32 to 112");
}

TEST_CASE("bench ops of a job refuses what only the operations by themselves have") {
  const auto result = test::ratplus("bench ops " + test::Playground::get().job.string() + " --sequences 4");
  CAPTURE(result.output);
  CHECK(result.status != 0);
  CHECK(test::contains(result.output, "--sequences goes with bench ops"));
}

TEST_CASE("bench generate and plan --inference take the patterns that a model has, without --pattern") {
  const auto source = std::string(RATPLUS_SOURCE_DIR);
  const auto counts = [&](const std::string& command, int expected, const std::string& line) {
    const auto result = test::ratplus(command);
    CAPTURE(result.output);
    CHECK(result.status == 0);
    CHECK(test::count(result.output, line) == expected);
  };
  const auto timed = [&](const std::string& set, int expected) {
    counts(fmt::format("bench generate {}/configs/reproduce/tiny.toml --device cpu --threads 1 --lengths 32 "
                       "--batches 1 --steps 1 --set data.directory=none {}",
                       source, set),
           expected, "1 sequence ");
  };
  timed("", 4);
  for (const char* mixer :
       {R"({ kind = \"rat\", chunk = 16, groups = 2 })",
        R"({ global = \"attention\", local = { kind = \"local_attention\", window = 16 }, every = 2 })"})
    timed(fmt::format(R"(job.recipe=plain log.validation_patterns="[\"dense\"]" model.mixer="{}")", mixer),
          1);
  counts("plan " + source + "/configs/pretrain/rat-xl.toml --gpu h100 --inference --batches 1", 1,
         " prompt ");
  counts("plan " + source + "/configs/pretrain/1b.toml --gpu h100 --inference --batches 1", 4, " prompt ");
}
