// Weights of other formats, as a user meets them: converted, evaluated, adapted, inspected.
#include <doctest/doctest.h>

#include <cmath>

#include "base/files/hdf5.h"
#include "base/files/pending_file.h"
#include "lib/checkpoint/checkpoint.h"
#include "tests/cli/program.h"

using namespace ratplus;
using test::contains;
namespace fs = std::filesystem;

namespace {

/// A run of two steps, and its weights in every format.
struct Trained {
  Trained() {
    const auto& playground = test::Playground::get();
    ok(fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=2",
                   playground.job.string(), run().string(), playground.data.string()));
    ok("convert " + run().string() + " " + (scratch / "a.pth").string());
    ok("convert " + (scratch / "a.pth").string() + " " + (scratch / "a.safetensors").string());
    ok("convert " + (scratch / "a.safetensors").string() + " " + (scratch / "native").string() +
       " --parts 3");
    write_whole_file(scratch / "tokens", "1 5 7 9 11, 13\n\n2 4 6 8 10 12\n");
  }
  void ok(const std::string& arguments) const {
    const auto result = test::ratplus(arguments);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
  }
  fs::path run() const { return scratch / "run"; }

  test::ScratchDirectory scratch;
};

std::vector<float> logits(const fs::path& file, const std::string& pattern) {
  const auto opened = hdf5::File::open(file);
  const auto dataset = opened.group(pattern).dataset("logits");
  std::vector<float> all(static_cast<std::size_t>(dataset.size()));
  dataset.read<float>(0, all);
  return all;
}

}  // namespace

TEST_CASE("every format gives the same logits and losses; under ranks and shardings too") {
  const Trained trained;
  const auto& scratch = trained.scratch;
  const auto dump = [&](const fs::path& weights, const std::string& name, int ranks = 0) {
    const auto result =
        test::ratplus(fmt::format("eval {} --tokens {} --dump-logits {} --pattern dense 2,0,1",
                                  weights.string(), (scratch / "tokens").string(), (scratch / name).string()),
                      ranks);
    CAPTURE(result.output);
    REQUIRE(result.status == 0);
    CHECK(contains(result.output, "2 sequences of 6 tokens"));
    return read_whole_file(scratch / name);
  };
  const auto expected = dump(trained.run(), "run.h5");
  for (const char* format : {"a.pth", "a.safetensors", "native"}) {
    CAPTURE(std::string(format));
    CHECK(dump(scratch / format, "same.h5") == expected);
  }
  CHECK(dump(trained.run(), "ranks.h5", 2) == expected);

  const auto dense = logits(scratch / "run.h5", "0");
  const auto vocabulary = dense.size() / 12;
  CHECK(dense != logits(scratch / "run.h5", "1"));
  // The stored losses are those of the stored logits.
  const auto file = hdf5::File::open(scratch / "run.h5");
  std::vector<double> losses(10);
  file.group("0").dataset("losses").read<double>(0, losses);
  const std::size_t row = 5 * vocabulary + vocabulary;  // the second sequence's first token
  double sum = 0;
  for (std::size_t v = 0; v < vocabulary; ++v) sum += std::exp(double{dense[row + v]});
  CHECK(losses[5] == doctest::Approx(std::log(sum) - dense[row + 4]).epsilon(1e-9));
}

TEST_CASE(
    "an evaluation and an adaptation do not depend on the format; a resumption needs a whole checkpoint") {
  const Trained trained;
  const auto& playground = test::Playground::get();
  const auto& scratch = trained.scratch;
  const auto adapt = [&](const fs::path& from, const std::string& name) {
    trained.ok(fmt::format(
        "train {} --set job.kind=adapt job.recipe=plain job.from={} job.directory={} "
        "data.directory={} schedule.steps=2 job.pattern=16,0,4 log.validation_patterns=[\\\"dense\\\"]",
        playground.job.string(), from.string(), (scratch / name).string(), playground.data.string()));
    return test::losses(scratch / name);
  };
  const auto expected = adapt(trained.run(), "expected");
  REQUIRE(!expected.empty());
  CHECK(adapt(scratch / "a.pth", "from-pth") == expected);
  CHECK(adapt(scratch / "a.safetensors", "from-safetensors") == expected);
  CHECK(adapt(scratch / "native", "from-native") == expected);

  const auto json = [&](const fs::path& weights) {
    trained.ok(fmt::format("eval {} --json {}", weights.string(), (scratch / "e.json").string()));
    const auto text = read_whole_file(scratch / "e.json");
    return text.substr(text.find("\"step\""));
  };
  CHECK(json(scratch / "a.pth") == json(trained.run()));

  // A checkpoint without the optimizer's state in the place of the run's own, before the last step.
  const auto last = checkpoint::step_directory(trained.run(), 2);
  const auto native = checkpoint::read_info(scratch / "native");
  auto info = native;
  info.step = 1;
  info.directory = checkpoint::step_directory(trained.run(), 1);
  fs::remove_all(last);
  test::write_again(native, info);
  const auto resumed =
      test::ratplus(fmt::format("train {} --set job.directory={} data.directory={} schedule.steps=2 --resume",
                                playground.job.string(), trained.run().string(), playground.data.string()));
  CHECK(resumed.status == 1);
  CHECK(contains(resumed.output, "weights alone"));
}

TEST_CASE("checkpoint.export: a finished run writes its weights, again if they are gone") {
  const Trained trained;
  const auto& playground = test::Playground::get();
  const auto train = fmt::format(
      "train {} --resume --set job.directory={} data.directory={} schedule.steps=2 "
      "checkpoint.export=bfloat16",
      playground.job.string(), trained.run().string(), playground.data.string());
  trained.ok(train);
  const auto exported = (trained.run() / "weights.safetensors").string();
  const auto listed = test::ratplus("inspect " + exported);
  CHECK(listed.status == 0);
  CHECK(contains(listed.output, "bfloat16 weights"));
  CHECK(contains(listed.output, "step       2"));
}

TEST_CASE("what ratplus convert, inspect and eval say of mistakes") {
  const Trained trained;
  const auto pth = (trained.scratch / "a.pth").string();
  const auto said = [](const std::string& arguments) {
    const auto result = test::ratplus(arguments);
    CHECK(result.status != 0);
    return result.output;
  };
  CHECK(contains(said("convert"), "SRC and DST are missing"));
  CHECK(contains(said("convert " + pth), "DST is missing"));
  CHECK(contains(said("convert nowhere.pth x"), "nowhere.pth: no such"));
  CHECK(contains(said("convert " + pth + " x --dtype int8"), "none of float32"));
  CHECK(contains(said("convert " + pth + " x.pth --parts 2"), "--parts is for a checkpoint"));
  CHECK(contains(said("convert " + pth + " x.pth --shard-size 1"), "--shard-size is for"));
  CHECK(contains(said("convert " + pth + " " + (trained.scratch / "a.pth" / "x.pth").string()),
                 "cannot make this directory"));
  CHECK(contains(said("convert " + pth + " x --head-dim 3"), "--head-dim 3"));
  CHECK(contains(said("convert " + pth + " x --kv-heads 1"), "--kv-heads 1"));
  CHECK(contains(said("eval " + pth + " --tokens t"), "go together"));
  CHECK(contains(said("eval " + pth + " --tokens t --dump-logits l --sequence-length 3"),
                 "--sequence-length is for a dataset"));
  const auto tokens = (trained.scratch / "tokens").string();
  for (const auto& [text, message] : {std::pair{"1 2\n3 x\n", ":2: \"x\" is no token"},
                                      {"1 2\n3 999999\n", ":2: \"999999\" is no token"},
                                      {"1 2\n3 4 5\n", ":2: 3 tokens where the lines before have 2"},
                                      {"\n", "at least 2 token numbers"}}) {
    write_whole_file(tokens, text);
    CHECK(contains(said("eval " + pth + " --tokens " + tokens + " --dump-logits l.h5"), message));
  }
  CHECK(!fs::exists("l.h5"));

  const auto listed = test::ratplus("inspect " + pth);
  CHECK(listed.status == 0);
  CHECK(contains(listed.output, "agrees with the archive's checksums"));
  auto bytes = read_whole_file(pth);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_whole_file(pth, bytes);
  CHECK(contains(said("inspect " + pth), "a.pth: record"));
}
