// prepare and the loader where disk, directory or files fail them: one clear message, and work that goes on later.
#include <doctest/doctest.h>
#include <fmt/core.h>
#include <sys/mount.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "data/dataset/token_stream.h"
#include "data/prepare/prepare.h"
#include "data/prepare/supervised.h"
#include "data/samples/loader.h"
#include "data/samples/supervised_samples.h"
#include "tests/data/support.h"
#include "tests/support/file_size_limit.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::prose;
using test::Scratch;
using test::write_text;
namespace fs = std::filesystem;

namespace {

const auto quiet = [](const PrepareProgress&) {};
const auto tokenizers = fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers";

/// A file system of a few bytes, where this process may mount one (as root, outside of most containers).
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
  void remount(const char* options, unsigned long flags = 0) {
    REQUIRE(::mount("none", at_.path().c_str(), "tmpfs", MS_REMOUNT | flags, options) == 0);
  }

 private:
  Scratch at_;
  bool mounted_;
};

/// 300 documents, 90 kB of tokens: units, plan and shards are larger than the limits below.
struct Input {
  Input() {
    std::string lines;
    for (unsigned i = 0; i < 300; ++i) lines += line(i);
    write_text(scratch / "in.jsonl", lines);
    options.inputs = {scratch / "in.jsonl"};
    options.output = scratch / "out";
    options.tokenizer = tokenizers / "gpt2.json";
    options.validation_fraction = 0.1;
    options.shard_tokens = 5000;
    options.portion_bytes = 20'000;
  }
  static std::string line(unsigned i) {
    std::string text = prose(i, 100);
    std::replace(text.begin(), text.end(), '\n', ' ');
    return "{\"text\": \"" + text + "\"}\n";
  }

  Scratch scratch;
  PrepareOptions options;
};

std::map<std::string, std::string> contents(const fs::path& dataset) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(dataset)) {
    if (entry.is_regular_file()) files[entry.path().filename().string()] = test::read_text(entry.path());
  }
  return files;
}

/// Gives a file the time of change of long ago, as one that was put there anew has another than before.
void touch(const fs::path& file) {
  fs::last_write_time(file, fs::last_write_time(file) - std::chrono::hours(1));
}

/// Peak of this process's memory since the last reset, in bytes; 0 where the kernel does not tell.
class PeakMemory {
 public:
  PeakMemory() { std::ofstream("/proc/self/clear_refs") << "5"; }
  static std::int64_t bytes(const char* line = "VmHWM:") {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
      std::int64_t kib = 0;
      if (word == line && status >> kib) return kib * 1024;
    }
    return 0;
  }
};

#if defined(__SANITIZE_ADDRESS__)
constexpr bool memory_counts = false;  // the sanitizer's own is larger than ours
#else
constexpr bool memory_counts = true;
#endif

}  // namespace

TEST_CASE(
    "prepare: wherever space ends, the file and the way out are named, and it goes on when there is some") {
  Input input;
  PrepareOptions reference = input.options;
  reference.output = input.scratch / "reference";
  prepare(reference, quiet);
  int failures = 0;
  // From too little for the first unit to too little for a shard alone.
  for (const rlim_t limit : {0, 300, 5000, 8000, 12'000, 15'000}) {
    CAPTURE(limit);
    PrepareOptions options = input.options;
    options.output = input.scratch / ("out" + std::to_string(limit));
    std::string message;
    {
      const ratplus::test::FileSizeLimit full(limit);
      message = message_of([&] { prepare(options, quiet); });
    }
    if (!message.empty()) {
      ++failures;
      CAPTURE(message);
      CHECK(contains(message, options.output.string() + "/"));
      CHECK(contains(message, "File too large; raise the file size limit (ulimit -f)"));
      CHECK_FALSE(fs::exists(options.output / "dataset.json"));
    }
    prepare(options, quiet);
    CHECK(contents(options.output) == contents(reference.output));
  }
  CHECK(failures >= 4);
}

TEST_CASE("prepare: a full disk, and room made on it") {
  SmallDisk disk("size=60k");
  if (!disk.there()) return;
  Input input;
  PrepareOptions options = input.options;
  prepare(options, quiet);
  const auto expected = contents(options.output);
  options.output = disk.path() / "out";
  for (const char* size : {"size=100k", "size=200k", "size=260k"}) {
    const std::string message = message_of([&] { prepare(options, quiet); });
    CAPTURE(message);
    CHECK(contains(message, options.output.string()));
    CHECK(contains(message, "No space left on device; free some space or write to another file system"));
    CHECK_FALSE(fs::exists(options.output / "dataset.json"));
    disk.remount(size);
  }
  disk.remount("size=2m");
  std::int64_t before = 0;
  prepare(options,
          [&](const PrepareProgress& progress) { before = std::max(before, progress.bytes_before); });
  CHECK(before > 0);  // of what was done while the disk was full
  CHECK(contents(options.output) == expected);
}

TEST_CASE("prepare: a directory that may not be written to") {
  Input input;
  SmallDisk disk("size=1m");
  if (disk.there()) {
    disk.remount("", MS_RDONLY);
    input.options.output = disk.path() / "out";
    CHECK(contains(message_of([&] { prepare(input.options, quiet); }),
                   input.options.output.string() + "/.prepare: cannot make this directory: Read-only file "
                                                   "system; write to a directory that you may write to"));
  }
  // Another user's; root is let in everywhere, so this is somebody else for a moment.
  const auto locked = input.scratch / "locked";
  fs::create_directory(locked);
  for (const fs::path& directory : {input.scratch.path(), locked}) {
    constexpr auto for_all = fs::perms(0555);
    fs::permissions(directory, for_all, fs::perm_options::replace);
  }
  input.options.output = locked / "out";
  const uid_t user = geteuid();
  const bool other = user != 0 || seteuid(65534) == 0;
  const std::string message = other ? message_of([&] { prepare(input.options, quiet); }) : std::string();
  if (user == 0 && other) REQUIRE(seteuid(0) == 0);
  fs::permissions(input.scratch.path(), fs::perms::owner_all, fs::perm_options::replace);
  CAPTURE(message);
  if (other)
    CHECK(contains(message,
                   "/locked/out/.prepare: cannot make this directory: Permission denied; write to a "
                   "directory that you may write to"));
}

TEST_CASE("prepare: an input that changes while it is read is named, and what was done before it is used") {
  for (const bool removed : {false, true}) {
    Input input;
    const auto late = input.scratch / "late.jsonl";
    write_text(late, Input::line(1000) + Input::line(1001));
    input.options.inputs.push_back(late);
    input.options.threads = 1;
    bool changed = false;
    const std::string message = message_of([&] {
      prepare(input.options, [&](const PrepareProgress&) {
        if (!std::exchange(changed, true)) removed ? static_cast<void>(fs::remove(late)) : touch(late);
      });
    });
    CAPTURE(message);
    CHECK(contains(message, late.string()));
    // Whether it was opened before it went is a race.
    const bool opened =
        contains(message, "was changed or removed while it was read; when it is complete, run");
    CHECK((opened || (removed && contains(message, "No such file"))));
    write_text(late, Input::line(1000) + Input::line(1001));
    std::int64_t before = 0;
    const auto result = prepare(input.options, [&](const PrepareProgress& progress) {
      before = std::max(before, progress.bytes_before);
    });
    CHECK(before > 20'000);
    CHECK(result.manifest.documents(Split::train) + result.manifest.documents(Split::validation) == 302);
  }
}

TEST_CASE("loader: a shard that is changed under the run is named, and read on when it is put back") {
  const Scratch scratch;
  const Manifest manifest = test::write_counting_dataset(scratch.path(), {{30, 40}, {60}, {70}});
  const auto shard = scratch / "train-1.h5";  // tokens 70 to 129
  const auto kept = scratch / "kept.h5";
  TokenStream stream(scratch.path(), manifest, Split::train);
  std::vector<std::int32_t> first(60);
  std::vector<std::int32_t> again(60);
  stream.read(70, first);
  const auto time = fs::last_write_time(shard);
  fs::copy_file(shard, kept);
  const auto message = [&] { return message_of([&] { stream.read(70, again); }); };
  const auto put_back = [&] {
    fs::remove(shard);
    fs::copy_file(kept, shard);
    fs::last_write_time(shard, time);
    stream.read(70, again);
    CHECK(again == first);
  };

  touch(shard);  // the same bytes, as far as anybody can tell from outside another file
  CHECK(contains(message(), shard.string() + ": was changed while it is in use"));
  CHECK(contains(message(), "put the file back as it was"));  // still
  put_back();

  {  // other tokens, as many
    ShardWriter writer(shard, {.vocab_size = 60000, .end_of_text = 2, .tokenizer = "test"}, {});
    writer.add_document(std::vector<std::int32_t>(59, 7));
    writer.finish();
  }
  CHECK(contains(message(), shard.string() + ": was changed while it is in use"));
  put_back();

  fs::resize_file(shard, fs::file_size(shard) / 2);
  CHECK(contains(message(), shard.string() + ": was changed while it is in use"));
  put_back();

  stream.read(0, again);  // the others are read all the while
}

TEST_CASE("loader: a shard that is cut short under a run ends it with the shard's name, after some tries") {
  const Scratch scratch;
  const Manifest manifest = test::write_counting_dataset(scratch.path(), {{70}, {60}, {70}});
  const std::vector<SampleSource> source{{scratch.path(), 1, manifest}};
  const BatchShape shape{.batch = 1, .micro_batch = 1, .sequence_length = 7};
  Loader loader(std::make_unique<StreamSamples>(source, StreamSamples::Settings{.split = Split::train,
                                                                                .sampling = Sampling::ordered,
                                                                                .sequence_length = 7}),
                shape, 0, 100, 1, {.times = 2, .first_wait = std::chrono::milliseconds(1)});
  for (int step = 0; step < 28; ++step) loader.next();  // once around
  fs::resize_file(scratch / "train-1.h5", 1000);
  const std::string message = message_of([&] {
    for (int step = 28; step < 56; ++step) loader.next();
  });
  CHECK(contains(message, "train-1.h5: was changed while it is in use"));
  CHECK(contains(message, "was tried 3 times"));
}

TEST_CASE("supervised samples: a shard that is changed under the run is named") {
  const Scratch scratch;
  std::string lines;
  for (int i = 0; i < 40; ++i)
    lines += "{\"prompt\": \"question " + std::to_string(i) + "\", \"completion\": \"yes\"}\n";
  write_text(scratch / "a.jsonl", lines);
  SupervisedOptions options;
  options.inputs = {scratch / "a.jsonl"};
  options.output = scratch / "out";
  options.tokenizer = tokenizers / "gpt2.json";
  options.length = 16;
  const Manifest manifest = prepare_supervised(options, [](std::int64_t) {}).manifest;
  SupervisedSamples samples(
      {{options.output, 1, manifest}},
      {.split = Split::train, .sampling = Sampling::ordered, .sequence_length = 16, .seed = 1});
  std::vector<std::int32_t> inputs(16);
  std::vector<std::int32_t> labels(16);
  CHECK(samples.read(0, inputs, labels) > 0);
  const auto shard = options.output / manifest.train.front().file;
  touch(shard);
  CHECK(contains(message_of([&] { samples.read(0, inputs, labels); }), shard.string() + ": was changed"));
}

TEST_CASE("prepare: empty files and documents, whatever the kind of file") {
  Input input;
  fs::remove(input.scratch / "in.jsonl");
  const auto message = [&] { return message_of([&] { prepare(input.options, quiet); }); };
  input.options.inputs = {input.scratch / "in"};
  write_text(input.scratch / "in/a.jsonl", "");
  write_text(input.scratch / "in/b.txt", "");
  CHECK(contains(message(), "the input holds no text"));
  write_text(input.scratch / "in/c.jsonl", "\n\n{\"text\": \"\"}\n");
  CHECK(contains(message(), "the input holds no text"));
  write_text(input.scratch / "in/d.jsonl", Input::line(1) + "{\"text\": \"\"}\n" + Input::line(2));
  input.options.validation_fraction = 0;
  const PrepareResult result = prepare(input.options, quiet);
  CHECK(result.left_out_empty == 3);
  CHECK(result.manifest.documents(Split::train) == 2);
}

TEST_CASE("prepare: a text that SentencePiece would take too much memory for is named") {
  Input input;
  input.options.tokenizer.reset();
  input.options.train_vocab_size = 350;
  prepare(input.options, quiet);
  PrepareOptions options = input.options;
  options.train_vocab_size = 0;
  options.tokenizer = input.options.output / "tokenizer.model";
  options.output = input.scratch / "other";
  write_text(input.scratch / "long.txt", std::string(std::size_t{130} << 20, 'x'));
  options.inputs = {input.scratch / "long.txt"};
  CHECK(contains(message_of([&] { prepare(options, quiet); }),
                 "long.txt: 130 MB of a text have no single blank between two words; cut it"));
}

// data/README.md states these bounds.
TEST_CASE("prepare: memory for one large document is bounded, with blanks and without") {
  struct Case {
    std::string name;
    std::string text;
    const char* tokenizer;
    double bytes_a_byte;  ///< beyond 100 MB
  };
  const std::size_t size = 12'000'000;
  std::string words;
  while (words.size() < size) words += prose(static_cast<unsigned>(words.size()), 10'000);
  std::replace(words.begin(), words.end(), '\n', ' ');
  std::string unbroken = words;
  std::erase_if(unbroken, [](char c) { return c < 'a' || c > 'z'; });
  for (const Case& one :
       {Case{"words", words, "gpt2.json", 4}, Case{"one word", unbroken, "gpt2.json", 22}}) {
    CAPTURE(one.name);
    Input input;
    write_text(input.scratch / "in.jsonl", "{\"text\": \"" + one.text + "\"}\n" + Input::line(1));
    input.options.tokenizer = tokenizers / one.tokenizer;
    input.options.validation_fraction = 0;
    input.options.threads = 2;
    const std::int64_t before = PeakMemory::bytes("VmRSS:");
    const PeakMemory peak;
    const PrepareResult result = prepare(input.options, quiet);
    CHECK(result.manifest.documents(Split::train) == 2);
    const auto bytes = static_cast<double>(PeakMemory::bytes() - before);
    const auto most = 100e6 + one.bytes_a_byte * static_cast<double>(one.text.size());
    MESSAGE(one.name << ": " << bytes << " bytes of memory for " << one.text.size() << " of text, " << most
                     << " at most");
    if (memory_counts) CHECK(bytes < most);
  }
}

namespace {

/// The files of a dataset, without what a command that failed keeps to go on from.
std::map<std::string, std::string> files_of_dataset(const fs::path& directory) {
  const Manifest manifest = read_manifest(directory);
  std::map<std::string, std::string> files;
  const auto take = [&](const std::string& name) { files[name] = test::read_text(directory / name); };
  for (const Split split : {Split::train, Split::validation}) {
    for (const auto& shard : manifest.shards(split)) take(shard.file);
  }
  take(manifest.tokenizer_file);
  take(manifest_name);
  return files;
}

/// Replaces the dataset until there is no more room for it to fail; each failure must leave the old one as it was.
template <typename Replace>
int failures_of(const fs::path& dataset, const std::vector<rlim_t>& limits, const Replace& replace) {
  const auto before = files_of_dataset(dataset);
  int failures = 0;
  for (const rlim_t limit : limits) {
    CAPTURE(limit);
    std::string message;
    {
      const ratplus::test::FileSizeLimit full(limit);
      message = message_of(replace);
    }
    if (message.empty()) continue;
    ++failures;
    CAPTURE(message);
    CHECK(contains(message, "File too large; raise the file size limit (ulimit -f)"));
    CHECK(files_of_dataset(dataset) == before);
  }
  replace();
  CHECK(files_of_dataset(dataset) != before);
  return failures;
}

SupervisedOptions supervised_input(const Scratch& scratch, int lines) {
  std::string all;
  for (int i = 0; i < lines; ++i)
    all += fmt::format("{{\"prompt\": \"What is {}?\", \"completion\": \" {}\"}}\n", i, i * 7919);
  write_text(scratch / "s.jsonl", all);
  SupervisedOptions options;
  options.inputs = {scratch / "s.jsonl"};
  options.output = scratch / "samples";
  options.tokenizer = tokenizers / "gpt2.json";
  options.length = 256;
  options.pack = false;
  options.validation_fraction = 0.2;
  return options;
}

}  // namespace

TEST_CASE("prepare --force and samples --force under a file size limit: the old dataset stays whole") {
  Input input;
  PrepareOptions options = input.options;
  options.shard_tokens = 20'000;
  prepare(options, quiet);
  options.shard_tokens = 10'000;
  options.validation_fraction = 0.3;
  options.force = true;
  CHECK(failures_of(options.output, {0, 300, 5000, 12'000, 20'000}, [&] { prepare(options, quiet); }) >= 3);

  SupervisedOptions samples = supervised_input(input.scratch, 60);
  prepare_supervised(samples, [](std::int64_t) {});
  supervised_input(input.scratch, 200);
  samples.force = true;
  CHECK(failures_of(samples.output, {0, 300, 3000, 6000},
                    [&] { prepare_supervised(samples, [](std::int64_t) {}); }) >= 2);
}

TEST_CASE("prepare --force and samples --force on a full disk: the old dataset stays whole") {
  SmallDisk disk("size=8m");
  if (!disk.there()) return;
  Input input;
  SupervisedOptions samples = supervised_input(input.scratch, 60);
  samples.output = disk.path() / "samples";
  prepare_supervised(samples, [](std::int64_t) {});
  PrepareOptions options = input.options;
  options.output = disk.path() / "out";
  prepare(options, quiet);
  const auto before = files_of_dataset(options.output), samples_before = files_of_dataset(samples.output);
  options.force = samples.force = true;
  options.validation_fraction = 0.3;
  samples.validation_fraction = 0.4;
  // From no room at all to almost enough.
  int failures = 0;
  for (const std::size_t room : {std::size_t{0}, std::size_t{8192}, std::size_t{40'960}}) {
    CAPTURE(room);
    const fs::path filler = disk.path() / "filler";
    fs::remove(filler);
    const auto free = fs::space(disk.path()).available;
    REQUIRE(free > room);
    write_text(filler, std::string(free - room, 'x'));
    for (const auto& message : {message_of([&] { prepare(options, quiet); }),
                                message_of([&] { prepare_supervised(samples, [](std::int64_t) {}); })}) {
      CAPTURE(message);
      if (message.empty()) continue;
      ++failures;
      CHECK(contains(message, "No space left on device; free some space"));
    }
    CHECK(files_of_dataset(options.output) == before);
    CHECK(files_of_dataset(samples.output) == samples_before);
  }
  CHECK(failures >= 4);
  fs::remove(disk.path() / "filler");
  prepare(options, quiet);
  prepare_supervised(samples, [](std::int64_t) {});
  CHECK(files_of_dataset(options.output) != before);
  CHECK(files_of_dataset(samples.output) != samples_before);
}
