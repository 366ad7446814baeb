// Runs in hostile surroundings: checkpoints whose file system is gone, directories of two owners, names that are no UTF-8,
// outputs that cannot be written.
#include <doctest/doctest.h>
#include <sys/mount.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/parse_json.h"
#include "base/random.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/in_use.h"
#include "lib/model/parameters.h"
#include "lib/run/run_end.h"
#include "tests/cli/program.h"

using namespace ratplus;
namespace fs = std::filesystem;

namespace {

std::string arguments(const fs::path& run, const std::string& more = "") {
  const auto& playground = test::Playground::get();
  return fmt::format(
      "train {} --set job.directory={} data.directory={} job.threads=1 schedule.steps=6 "
      "checkpoint.every=2 {}",
      playground.job.string(), run.string(), playground.data.string(), more);
}

/// The bytes of percent-encoded text.
std::string bytes_of(const nlohmann::json& text) {
  const auto& encoded = text.get_ref<const std::string&>();
  std::string bytes;
  for (std::size_t at = 0; at < encoded.size(); ++at) {
    if (encoded[at] != '%') {
      bytes += encoded[at];
      continue;
    }
    bytes += static_cast<char>(std::stoi(encoded.substr(at + 1, 2), nullptr, 16));
    at += 2;
  }
  return bytes;
}

/// A file system of its own for a run's directory, where this process may mount one.
class SmallDisk {
 public:
  explicit SmallDisk(const char* options)
      : mounted_(::mount("none", at_.path().c_str(), "tmpfs", 0, options) == 0) {
    if (!mounted_) MESSAGE("no file system can be mounted here: this case is left out");
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(at_.path().c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool there() const { return mounted_; }
  fs::path path() const { return at_.path(); }

 private:
  test::ScratchDirectory at_;
  bool mounted_;
};

/// The records of all TensorBoard files of a run: 8 bytes of length, 4 of its checksum, the record, 4 of its checksum.
std::vector<std::string> tensorboard_records(const fs::path& run) {
  std::vector<std::string> records;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    if (!test::contains(entry.path().filename().string(), "tfevents")) continue;
    const std::string bytes = read_whole_file(entry.path());
    std::size_t at = 0;
    while (at + 16 <= bytes.size()) {
      std::uint64_t length = 0;
      std::memcpy(&length, bytes.data() + at, sizeof length);
      REQUIRE(length <= bytes.size() - at - 16);
      records.push_back(bytes.substr(at + 12, length));
      at += 16 + length;
    }
    CHECK(at == bytes.size());
  }
  return records;
}

}  // namespace

TEST_CASE("--resume is refused where the run reports checkpoints that are missing") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  const auto elsewhere = scratch / "elsewhere";
  const auto settings = fmt::format("checkpoint.directory={}", elsewhere.string());
  REQUIRE(test::ratplus(arguments(run, settings) + " --stop-after 5").status == 0);
  const auto metrics = read_whole_file(run / "metrics.jsonl");

  fs::rename(elsewhere, scratch / "unmounted");
  const auto dead = test::ratplus(arguments(run, settings) + " --resume");
  CAPTURE(dead.output);
  CHECK(dead.status == 1);
  CHECK(test::contains(dead.output, "is a link to " + elsewhere.string() + ", which is not there"));
  fs::create_directory(elsewhere);  // a mount point
  const auto empty = test::ratplus(arguments(run, settings) + " --resume");
  CAPTURE(empty.output);
  CHECK(empty.status == 1);
  CHECK(test::contains(empty.output, "the run reports one of step 5; mount its file system"));
  CHECK(read_whole_file(run / "metrics.jsonl") == metrics);

  fs::remove(elsewhere);
  fs::rename(scratch / "unmounted", elsewhere);
  CHECK(test::ratplus(arguments(run, settings) + " --resume").status == 0);
}

TEST_CASE("checkpoint.directory belongs to one run, from before its first step on") {
  const test::ScratchDirectory scratch;
  const auto both = fmt::format("checkpoint.directory={}", (scratch / "both").string());
  const auto first = arguments(scratch / "first", both);
  const auto second = arguments(scratch / "second", both);
  // The second begins while the first, which takes its time, has saved nothing.
  const auto result = test::shell(fmt::format(
      "RATPLUS_TEST_FAULT=0:slow:0.3:1 {} & until [ -e {} ]; do sleep 0.05; done; {}; echo second: "
      "$?; wait $!; echo first: $?",
      test::command(first), (scratch / "first" / "metrics.jsonl").string(), test::command(second)));
  CAPTURE(result.output);
  CHECK(test::contains(result.output, "belongs to the run " + (scratch / "first").string()));
  CHECK(test::contains(result.output, "second: 1"));
  CHECK(test::contains(result.output, "first: 0"));
  CHECK_FALSE(fs::exists(scratch / "second"));
  // Nor once it has saved.
  const auto later = test::ratplus(second);
  CAPTURE(later.output);
  CHECK(later.status == 1);
  CHECK(test::contains(later.output, "belongs to the run " + (scratch / "first").string()));

  fs::copy(scratch / "first", scratch / "copy",
           fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  fs::remove_all(scratch / "copy" / "starts");  // so that it is not finished
  const auto copied = test::ratplus(arguments(scratch / "copy", both) + " --resume");
  CAPTURE(copied.output);
  CHECK(copied.status == 1);
  CHECK(test::contains(copied.output, "belongs to the run"));
  fs::rename(scratch / "first", scratch / "moved");
  fs::remove_all(scratch / "moved" / "starts");
  CHECK(test::ratplus(arguments(scratch / "moved", both) + " --resume").status == 0);
}

TEST_CASE("a checkpoint.directory that cannot be made leaves no run directory") {
  const test::ScratchDirectory scratch;
  const auto result =
      test::ratplus(arguments(scratch / "a" / "run", "checkpoint.directory=/proc/ratplus/here"));
  CAPTURE(result.output);
  CHECK(result.status == 1);
  CHECK(
      test::contains(result.output, "/proc/ratplus/here: cannot make this directory (checkpoint.directory)"));
  CHECK_FALSE(fs::exists(scratch / "a"));
}

TEST_CASE("a checkpoint that is read is not pruned, and one that was pruned is not called damaged") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(arguments(run, "checkpoint.keep=5")).status == 0);
  const auto old = checkpoint::step_directory(run, 2);
  {
    const checkpoint::InUse reading(old);
    checkpoint::prune(run, 1);
    CHECK(fs::exists(old));
    CHECK_FALSE(fs::exists(checkpoint::step_directory(run, 4)));
  }
  checkpoint::prune(run, 1);
  CHECK_FALSE(fs::exists(old));
  CHECK(fs::exists(checkpoint::step_directory(run, 6)));
  CHECK(test::contains(test::message_of([&] { checkpoint::InUse{old}; }), "was removed while it was read"));
}

TEST_CASE(
    "a checkpoint that is pruned while it is read, without locks, is called removed, and newer ones are "
    "named") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(arguments(run, "checkpoint.keep=5")).status == 0);
  const auto removed = [&](const fs::path& directory, const auto& read) {
    const auto info = checkpoint::read_info(directory);
    checkpoint::PartReader reader(info);
    fs::remove_all(directory);  // as a prune that sees no lock
    const auto message = test::message_of([&] { read(info, reader); });
    CAPTURE(message);
    CHECK(test::contains(message, directory.string() + ": was removed while it was read"));
    CHECK_FALSE(test::contains(message, "incomplete"));
    return message;
  };
  const auto present = [](const checkpoint::Info& info, checkpoint::PartReader&) {
    checkpoint::check_present(info, 0);
  };
  const auto values = [](const checkpoint::Info& info, checkpoint::PartReader& reader) {
    const auto units = model::unit_layouts(info.model);
    std::vector<float> out(16);
    reader.read(checkpoint::Kind::weights, units[0], {0, 16}, out.data());
  };
  CHECK(test::contains(removed(checkpoint::step_directory(run, 2), present),
                       "take a newer one: step-00000004, step-00000006"));
  CHECK(
      test::contains(removed(checkpoint::step_directory(run, 4), values), "take a newer one: step-00000006"));
  // One that lacks a file, and whose manifest is there, is incomplete.
  const auto last = checkpoint::step_directory(run, 6);
  const auto info = checkpoint::read_info(last);
  fs::remove(last / checkpoint::file_name(0));
  CHECK(test::contains(test::message_of([&] { checkpoint::check_present(info, 0); }),
                       "missing; the checkpoint is incomplete"));
  fs::remove_all(last);
  CHECK(test::contains(test::message_of([&] { checkpoint::check_present(info, 0); }),
                       "the run has no newer one"));
}

TEST_CASE("metrics and TensorBoard files without room end no run, and get their lines once there is room") {
  const test::ScratchDirectory scratch;
  const auto settings = [&](const std::string& name) {
    return fmt::format("log.tensorboard=true schedule.steps=30 checkpoint.every=0 checkpoint.dir={}",
                       (scratch / name).string());
  };
  const auto undisturbed = scratch / "undisturbed";
  REQUIRE(test::ratplus(arguments(undisturbed, settings("checkpoints"))).status == 0);
  for (const bool room_again : {true, false}) {
    CAPTURE(room_again);
    const SmallDisk disk("size=1m");
    if (!disk.there()) return;
    const auto run = disk.path() / "run";
    const auto filler = (disk.path() / "filler").string();
    const auto result =
        test::shell(fmt::format("RATPLUS_TEST_FAULT=0:slow:0.1:1 {} & until grep -q step {}/metrics.jsonl; "
                                "do sleep 0.05; done 2>/dev/null; "
                                "cat /dev/zero >{} 2>/dev/null; sleep 1.5; {} wait $!",
                                test::command(arguments(run, settings(room_again ? "a" : "b"))), run.string(),
                                filler, room_again ? fmt::format("rm {};", filler) : ""));
    CAPTURE(result.output);
    REQUIRE(checkpoint::newest(run));
    CHECK(test::state_of(run) == test::state_of(undisturbed));
    if (room_again) {
      CHECK(result.status == 0);
      CHECK(test::metrics(run, "step") == test::metrics(undisturbed, "step"));
      CHECK(test::metrics(run, "validation") == test::metrics(undisturbed, "validation"));
      CHECK(tensorboard_records(run).size() == tensorboard_records(undisturbed).size());
    } else {
      CHECK(test::contains(result.output, "metrics.jsonl"));
      CHECK(test::contains(result.output, "tfevents"));
      CHECK(test::contains(result.output, "No space left on device"));
    }
  }
}

TEST_CASE(
    "a checkpoint that finds no room gives its own back: to the run's last lines and the record of its end") {
  for (const bool background : {true, false}) {
    for (const int ranks : {0, 2}) {
      CAPTURE(background);
      CAPTURE(ranks);
      const SmallDisk disk("size=1m");  // for one checkpoint and a half
      if (!disk.there()) return;
      const auto run = disk.path() / "run";
      const auto result = test::ratplus(
          arguments(run, fmt::format("checkpoint.keep=9 checkpoint.background={}", background)), ranks);
      CAPTURE(result.output);
      CHECK(result.status == 1);
      CHECK(test::contains(result.output, "No space left on device"));
      CHECK_FALSE(test::contains(result.output, "the end of this start is not recorded"));
      CHECK(checkpoint::newest(run) == checkpoint::step_directory(run, 2));
      const auto end = run::read_run_end(run);
      REQUIRE(end);
      CHECK(end->how == run::RunEnd::How::failed);
      CHECK_FALSE(test::contains(end->message, "metrics.jsonl"));
      CHECK(test::metrics(run, "step").size() == end->step);
      CHECK(test::contains(read_whole_file(run / "log.txt"), "No space left on device"));
    }
  }
}

TEST_CASE("in a directory whose name is no UTF-8, runs are saved, resumed, reported and evaluated") {
  const test::ScratchDirectory scratch;
  const auto latin = scratch / "caf\xE9";
  fs::create_directory(latin);
  const auto in_it = [&](const std::string& command) {
    return test::shell(fmt::format("cd {} && {}", latin.string(), test::command(command)));
  };
  const auto stopped =
      in_it(arguments("run", "log.tensorboard=true checkpoint.export=bfloat16") + " --stop-after 3");
  CAPTURE(stopped.output);
  REQUIRE(stopped.status == 0);
  const auto resumed =
      in_it(arguments("run", "log.tensorboard=true checkpoint.export=bfloat16") + " --resume");
  CAPTURE(resumed.output);
  CHECK(resumed.status == 0);
  for (const std::string arguments :
       {"report {}/run", "watch --once {}/run", "inspect {}/run", "eval {}/run --micro-batch 4",
        "convert {}/run {}/w.safetensors", "inspect {}/w.safetensors",
        "convert {}/run {}/w.safetensors.index.json", "inspect {}/w.safetensors.index.json",
        "eval {}/run --micro-batch 4 --json {}/scores.json"}) {
    CAPTURE(arguments);
    std::string command = arguments;
    for (auto at = command.find("{}"); at != std::string::npos; at = command.find("{}"))
      command.replace(at, 2, latin.string());
    const auto result = test::ratplus(command);
    CAPTURE(result.output);
    CHECK(result.status == 0);
  }
  const auto refused = test::ratplus(arguments(latin / "other"));
  CHECK(refused.status != 0);
  CHECK(test::contains(refused.output, "is not UTF-8"));

  // Beside what JSON can show of it, the bytes of a path.
  const auto scores = parse_json(read_whole_file(latin / "scores.json"));
  CHECK(bytes_of(scores.at("checkpoint_percent_encoded")) == checkpoint::newest(latin / "run")->string());
  CHECK(scores.at("checkpoint").get<std::string>().find("caf\xEF\xBF\xBD/run") != std::string::npos);
  CHECK_FALSE(scores.contains("data_percent_encoded"));
  fs::copy(test::Playground::get().job, latin / "job.toml");
  const auto other = test::ratplus(fmt::format(
      "train {} --set job.directory={} data.directory={} job.threads=1 schedule.steps=2",
      (latin / "job.toml").string(), (scratch / "other").string(), test::Playground::get().data.string()));
  CAPTURE(other.output);
  REQUIRE(other.status == 0);
  const auto record = parse_json(read_whole_file(scratch / "other/starts/start-0001.json"));
  CHECK(bytes_of(record.at("command_percent_encoded").at(2)) == (latin / "job.toml").string());
  CHECK(record.at("command").size() == record.at("command_percent_encoded").size());

  // The names of an index's files are read back from it.
  const auto index = scratch / "caf\xE9.safetensors.index.json";
  const auto sharded = test::ratplus(fmt::format("convert {} {}", (latin / "run").string(), index.string()));
  CAPTURE(sharded.output);
  CHECK(sharded.status == 1);
  CHECK(
      test::contains(sharded.output, index.string() + ": is not UTF-8, in which the index names the files"));
  CHECK(fs::directory_iterator(scratch.path()) != fs::directory_iterator());
  for (const auto& entry : fs::directory_iterator(scratch.path()))
    CHECK_FALSE(test::contains(entry.path().filename().string(), "safetensors"));
}

TEST_CASE("prepare: the other ranks wait for the root as long as it works") {
  const test::ScratchDirectory scratch;
  std::ofstream lines(scratch / "in.jsonl");
  std::uint64_t draw = 0;
  for (int document = 0; document < 75; ++document) {  // pieces of such words take seconds to find
    std::string text;
    for (int letter = 0; letter < 5000; ++letter)
      text += letter % 10 == 9 ? ' ' : static_cast<char>('a' + random_below(26, 1, Purpose::test, 0, draw++));
    lines << "{\"text\": \"" << text << "\"}\n";
  }
  lines.close();
  const auto result =
      test::shell("RATPLUS_TEST_TIMEOUT=1 " +
                  test::command(fmt::format("prepare {} --output {} --train-tokenizer --vocab-size 2000 "
                                            "--validation-fraction 0.2",
                                            (scratch / "in.jsonl").string(), (scratch / "out").string()),
                                2));
  CAPTURE(result.output);
  CHECK(result.seconds > 1.5);  // else nobody waited for long
  CHECK(result.status == 0);
  CHECK(fs::exists(scratch / "out/dataset.json"));
}

TEST_CASE("a reader of the output who leaves ends no command whose results are files") {
  const auto& playground = test::Playground::get();
  const test::ScratchDirectory scratch;
  const auto path = [&](const std::string& name) { return (scratch / name).string(); };
  std::ofstream lines(scratch / "in.jsonl");
  for (int i = 0; i < 60; ++i)
    lines << "{\"prompt\": \"" << i << " and\", \"completion\": \" so on\", \"text\": \"number " << i
          << "\"}\n";
  lines.close();
  for (const char* name : {"in.bin", "v.bin"})
    write_whole_file(scratch / name, std::string("\5\0\6\0\0\0", 6));
  REQUIRE(test::ratplus(arguments(scratch / "run")).status == 0);
  const auto tokenizer = (playground.data / "tokenizer.model").string();
  /// The status of a command whose reader has gone before it begins.
  const auto status_of = [&](const std::string& command, const std::string& to, bool errors_too) {
    test::shell(fmt::format("{{ sleep 0.5; {} {}; echo $? >{}; }} {} | true", test::command(command), to,
                            path("status"), errors_too ? "2>&1" : ""));
    return read_whole_file(scratch / "status");
  };
  for (const auto& [name, given] : std::vector<std::pair<std::string, std::string>>{
           {"p",
            fmt::format("prepare {} --tokenizer {} --validation-fraction 0.2", path("in.jsonl"), tokenizer)},
           {"s", fmt::format("samples {} --tokenizer {} --sequence-length 16 --validation-fraction 0.2",
                             path("in.jsonl"), tokenizer)},
           {"i", fmt::format("import {} --validation {} --vocab-size 100 --end-of-text-id 0", path("in.bin"),
                             path("v.bin"))}}) {
    const auto& command = given;
    CAPTURE(command);
    CHECK(status_of(command + " --output " + path(name), ">/dev/null", true) == "0\n");
    // What is printed at the end is lost, and the dataset is whole.
    CHECK(status_of(command + " --output " + path(name + "2"), "", false) == "1\n");
    for (const auto& dataset : {scratch / name, scratch / (name + "2")}) {
      CHECK(test::ratplus("inspect " + dataset.string()).status == 0);
      for (const auto& file : fs::directory_iterator(dataset))
        CHECK(file.path().filename().string().front() != '.');
    }
  }
  CHECK(status_of(fmt::format("convert {} {}", path("run"), path("w.safetensors")), "", true) == "1\n");
  CHECK(test::ratplus("inspect " + path("w.safetensors")).status == 0);
  for (const auto& name : scratch.files()) CHECK(name.front() != '.');
}

TEST_CASE("an output that cannot be written is an error of every command that prints its result") {
  const test::ScratchDirectory scratch;
  const auto run = scratch / "run";
  REQUIRE(test::ratplus(arguments(run)).status == 0);
  const auto& playground = test::Playground::get();
  for (const std::string& command :
       {std::string("--help"), std::string("--version"), "inspect " + run.string(), "report " + run.string(),
        "watch --once " + run.string(), "eval " + run.string(),
        "plan " + playground.job.string() + " --gpus-per-node 4 --set job.directory=a data.directory=b",
        "train " + playground.job.string() + " --print-config --set job.directory=a data.directory=b",
        "inspect " + playground.data.string(), std::string("bench --help")}) {
    CAPTURE(command);
    CHECK(test::ratplus(command).status == 0);
    for (const std::string to : {">/dev/full", ">&-"}) {
      CAPTURE(to);
      const auto result = test::shell(fmt::format("{} 2>&1 {}", test::command(command), to));
      CAPTURE(result.output);
      CHECK(result.status == 1);
      CHECK(test::count(result.output, "ratplus: ") == 1);
    }
    // Nobody is left to tell: no abort, no signal.
    const auto silent = test::shell(test::command(command) + " >/dev/full 2>/dev/full").status;
    CHECK(silent == 1);
  }
  CHECK(test::shell(test::command("inspect /nowhere") + " 2>/dev/full").status == 1);
  CHECK(test::shell(test::command("inspect /nowhere") + " 2>&-").status == 1);
}
