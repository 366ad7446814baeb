// Mistakes: one message that names file, key and the way out; status not 0; on all ranks; within seconds.
#include <doctest/doctest.h>

#include <fstream>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/cli/learnt_model.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// Trains with these settings on two ranks and expects one message with all of `parts`, soon.
void check_refused(const std::string& settings, const std::vector<std::string>& parts, int ranks = 2) {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  CAPTURE(settings);
  const auto result = test::ratplus(
      fmt::format("train {} --set job.directory={} data.directory={} {}", playground.job.string(),
                  (scratch / "run").string(), playground.data.string(), settings),
      ranks);
  CAPTURE(result.output);
  CHECK(result.status != 0);
  CHECK(result.status != 137);
  CHECK(result.seconds < 30);
  CHECK(count(result.output, "ratplus: ") == 1);
  for (const auto& part : parts) {
    CAPTURE(part);
    CHECK(test::contains(result.output, part));
  }
  CHECK(!fs::exists(scratch.path() / "run" / "checkpoints"));
}

/// A copy of the dataset to damage.
fs::path copy_of_data(const test::ScratchDirectory& scratch) {
  fs::copy(test::Playground::get().data, scratch / "data", fs::copy_options::recursive);
  return scratch / "data";
}

fs::path train_shard(const fs::path& data) {
  for (const auto& entry : fs::directory_iterator(data)) {
    if (entry.path().filename().string().starts_with("train-")) return entry.path();
  }
  return {};
}

}  // namespace

TEST_CASE("settings that cannot be") {
  check_refused("data.bacth=8", {"data.bacth", "data.batch"});
  check_refused("data.batch=many", {"data.batch", "integer"});
  check_refused("data.batch=7", {"data.batch", "7"});
  check_refused("model.width=40 model.head_dim=16", {"model.width", "40", "16"});
  check_refused("data.sequence_length=4000000", {"data.sequence_length", "4000001"});
  check_refused("model.vocab_size=500", {"vocab_size", "500", "400"});
  check_refused("parallel.ranks=3", {"parallel.ranks", "3", "2"});
  check_refused("job.pattern=16,x,4", {"job.pattern", "16,x,4"});
}

TEST_CASE("data that is not there, short, damaged or of another vocabulary") {
  check_refused("data.directory=/no/such/place", {"/no/such/place"});
  const test::ScratchDirectory scratch;
  const auto data = copy_of_data(scratch);
  const auto shard = train_shard(data);
  const auto bytes = read_whole_file(shard);
  const auto setting = "data.directory=" + data.string();

  fs::remove(shard);
  check_refused(setting, {shard.filename().string()});
  write_whole_file(shard, bytes.substr(0, bytes.size() / 2));
  check_refused(setting, {shard.filename().string()});
  auto flipped = bytes;
  for (std::size_t i = bytes.size() / 4; i < bytes.size() * 3 / 4; i += 64) {
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
  }
  write_whole_file(shard, flipped);
  check_refused(setting, {shard.filename().string()});
}

TEST_CASE("inspect names every shard that is missing or cut, whichever is first") {
  const test::ScratchDirectory scratch;
  const auto data = copy_of_data(scratch);
  const auto bytes = read_whole_file(data / "train-00000.h5");
  fs::remove(data / "validation-00000.h5");
  for (const bool cut : {true, false}) {
    if (cut) {
      write_whole_file(data / "train-00000.h5", bytes.substr(0, bytes.size() / 2));
    } else {
      fs::remove(data / "train-00000.h5");
    }
    const auto result = test::ratplus("inspect " + data.string());
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(test::contains(result.output, "train-00000.h5"));
    CHECK(test::contains(result.output, "validation-00000.h5"));
    CHECK(test::contains(result.output, data.string() + ": 2 files are not whole"));
    CHECK(!test::contains(result.output, "lengths"));
  }
  const auto whole = test::ratplus("inspect " + test::Playground::get().data.string());
  CHECK(count(whole.output, "lengths ") == 2);
}

TEST_CASE("a job file with a mistake is named with its line") {
  const test::ScratchDirectory scratch;
  const auto file = scratch / "mistake.toml";
  std::ofstream(file) << "[job]\ndirectory = \"x\"\n[data]\ndirectory = \"d\"\nwindw = 8\n";
  for (const int ranks : {0, 3}) {
    const auto result = test::ratplus("train " + file.string(), ranks);
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(count(result.output, "ratplus: ") == 1);
    CHECK(test::contains(result.output, "mistake.toml:5"));
    CHECK(test::contains(result.output, "data.sequence_length"));
  }
  const auto missing = test::ratplus("train " + (scratch / "none.toml").string());
  CHECK(missing.status == 1);
  CHECK(test::contains(missing.output, "none.toml"));
}

TEST_CASE("a run directory that cannot be written") {
  check_refused("job.directory=/proc/ratplus-run", {"/proc/ratplus-run"});
}

TEST_CASE("command lines that cannot be") {
  const auto unknown = test::ratplus("trian");
  CHECK(unknown.status == 2);
  CHECK(test::contains(unknown.output, "trian"));
  CHECK(test::ratplus("").status == 2);
  for (const char* arguments :
       {"train", "eval", "inspect", "train a b c", "train --no-such-option", "report", "prepare"}) {
    CAPTURE(arguments);
    const auto result = test::ratplus(arguments);
    CAPTURE(result.output);
    CHECK(result.status == 2);
    CHECK(test::contains(result.output, "--help"));
  }
  CHECK(count(test::ratplus("train --no-such-option", 3).output, "ratplus train: ") == 1);
}

TEST_CASE("sequences that are longer than the held-out text are refused before memory is taken for them") {
  const auto result = test::ratplus("eval " + test::learnt_run() + " --sequence-length 100000000 --data " +
                                    test::Playground::get().data.string());
  CAPTURE(result.output);
  CHECK(result.status == 1);
  CHECK(test::contains(result.output, "a sequence of 100000000 needs 100000001; shorten the sequence"));
}

TEST_CASE("a checkpoint that is none") {
  for (const char* command : {"eval /no/such/run", "inspect /no/such/run", "eval /usr"}) {
    CAPTURE(command);
    const auto result = test::ratplus(command);
    CAPTURE(result.output);
    CHECK(result.status == 1);
    CHECK(count(result.output, "ratplus: ") == 1);
  }
}
