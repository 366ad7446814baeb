#include "data/prepare/prepare.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <barrier>
#include <mutex>
#include <thread>

#include "data/dataset/held_out.h"
#include "data/dataset/token_stream.h"
#include "data/prepare/portion_file.h"
#include "data/prepare/shard_plan.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::prose;
using test::Scratch;
using test::write_text;

namespace {

const auto quiet = [](const PrepareProgress&) {};

/// Twenty documents in two files and a directory to write to.
struct Input {
  Input() {
    std::string lines;
    for (unsigned i = 0; i < 19; ++i) lines += "{\"text\": \"" + line(i) + "\"}\n";
    write_text(scratch / "in/a.jsonl", lines);
    write_text(scratch / "in/b.txt", prose(100, 2000));
    options.inputs = {scratch / "in"};
    options.output = scratch / "out";
    options.train_vocab_size = 350;
    options.validation_fraction = 0.3;
  }

  static std::string line(unsigned i) {
    std::string text = prose(i, 40 + static_cast<int>(i) * 10);
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
  }
  static std::vector<std::string> texts() {
    std::vector<std::string> all;
    for (unsigned i = 0; i < 19; ++i) all.push_back(line(i));
    all.push_back(prose(100, 2000));
    return all;
  }
  std::vector<std::string> output_files() const {
    std::vector<std::string> names;
    if (!std::filesystem::exists(options.output)) return names;
    for (const auto& entry : std::filesystem::directory_iterator(options.output)) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  Scratch scratch;
  PrepareOptions options;
};

std::vector<std::string> decoded(const std::filesystem::path& directory, const Manifest& manifest,
                                 Split split) {
  const Tokenizer tokenizer(directory / manifest.tokenizer_file);
  std::vector<std::string> texts;
  for (const ManifestShard& entry : manifest.shards(split)) {
    const ShardReader shard(directory / entry.file);
    const auto offsets = shard.document_offsets();
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
      shard.read(offsets[i], tokens);
      CHECK(tokens.back() == manifest.end_of_text);
      tokens.pop_back();
      texts.push_back(tokenizer.decode(tokens));
    }
  }
  return texts;
}

}  // namespace

TEST_CASE("prepare: every document comes out once, in order, in the split of its hash") {
  Input input;
  input.options.shard_tokens = 500;
  const PrepareResult result = prepare(input.options, quiet);
  const Manifest manifest = read_manifest(input.options.output);
  CHECK(manifest.train.size() > 1);
  CHECK(manifest.tokens(Split::train) == result.manifest.tokens(Split::train));
  CHECK(manifest.vocab_size == 350);
  std::vector<std::string> train;
  std::vector<std::string> validation;
  for (const std::string& text : Input::texts()) {
    (held_out_position(text) < 0.3 ? validation : train).push_back(text);
  }
  REQUIRE(!validation.empty());
  CHECK(decoded(input.options.output, manifest, Split::train) == train);
  CHECK(decoded(input.options.output, manifest, Split::validation) == validation);
  for (std::size_t i = 0; i + 1 < manifest.train.size(); ++i) CHECK(manifest.train[i].tokens >= 500);
  TokenStream(input.options.output, manifest, Split::train).check_all();
  TokenStream(input.options.output, manifest, Split::validation).check_all();
  for (const std::string& name : input.output_files()) CHECK(name.front() != '.');
}

TEST_CASE("prepare: the number of threads changes no byte of the tokens or the model") {
  Input one;
  one.options.threads = 1;
  one.options.shard_tokens = 700;
  const Manifest first = prepare(one.options, quiet).manifest;
  PrepareOptions options = one.options;
  options.threads = 4;
  options.output = one.scratch / "out4";
  const Manifest second = prepare(options, quiet).manifest;
  REQUIRE(first.train.size() == second.train.size());
  CHECK(test::read_text(one.options.output / "tokenizer.model") ==
        test::read_text(options.output / "tokenizer.model"));
  for (const Split split : {Split::train, Split::validation}) {
    for (std::size_t i = 0; i < first.shards(split).size(); ++i) {
      CHECK(first.shards(split)[i].tokens == second.shards(split)[i].tokens);
    }
    CHECK(decoded(one.options.output, first, split) == decoded(options.output, second, split));
  }
}

TEST_CASE("prepare: again is nothing to do, other options need force, damage is mended") {
  Input input;
  CHECK_FALSE(prepare(input.options, quiet).already_there);
  const auto shard = input.options.output / "train-00000.h5";
  const auto written = std::filesystem::last_write_time(shard);
  CHECK(prepare(input.options, quiet).already_there);
  CHECK(std::filesystem::last_write_time(shard) == written);

  std::filesystem::remove(shard);
  CHECK_FALSE(prepare(input.options, quiet).already_there);
  CHECK(std::filesystem::exists(shard));

  PrepareOptions other = input.options;
  other.shard_tokens = 100;
  CHECK(contains(message_of([&] { prepare(other, quiet); }),
                 "already holds a dataset of other inputs or options"));
  CHECK(prepare(input.options, quiet).already_there);  // untouched
  other.force = true;
  CHECK(prepare(other, quiet).manifest.train.size() > 1);
  PrepareOptions back = input.options;
  back.force = true;
  prepare(back, quiet);
  CHECK(input.output_files() ==
        std::vector<std::string>{"dataset.json", "tokenizer.model", "train-00000.h5", "validation-00000.h5"});
}

TEST_CASE("prepare: a given tokenizer is copied beside the shards, or stays if it lies there") {
  Input input;
  const Manifest trained = prepare(input.options, quiet).manifest;
  PrepareOptions options = input.options;
  options.train_vocab_size = 0;
  options.tokenizer = input.options.output / "tokenizer.model";
  options.output = input.scratch / "copy";
  const Manifest copied = prepare(options, quiet).manifest;
  CHECK(copied.tokenizer == trained.tokenizer);
  CHECK(test::read_text(options.output / "tokenizer.model") == test::read_text(*options.tokenizer));
  options.tokenizer = options.output / "tokenizer.model";
  options.force = true;
  CHECK(prepare(options, quiet).manifest.tokenizer == trained.tokenizer);
  const auto interrupt = [](const PrepareProgress&) { throw std::runtime_error("interrupted"); };
  CHECK_THROWS_AS(prepare(options, interrupt), std::runtime_error);
  CHECK(std::filesystem::exists(*options.tokenizer));
  CHECK(prepare(options, quiet).manifest.tokenizer == trained.tokenizer);
}

TEST_CASE("prepare: a tokenizer that is a pipe, or that changes meanwhile, is named") {
  Input input;
  prepare(input.options, quiet);
  const std::string model = test::read_text(input.options.output / "tokenizer.model");
  PrepareOptions options = input.options;
  options.train_vocab_size = 0;
  options.output = input.scratch / "other";
  options.tokenizer = input.scratch / "pipe";
  REQUIRE(::mkfifo(options.tokenizer->c_str(), 0600) == 0);
  CHECK(contains(message_of([&] { prepare(options, quiet); }),
                 options.tokenizer->string() + ": is a pipe or a device"));
  CHECK_FALSE(std::filesystem::exists(options.output));

  options.tokenizer = input.scratch / "m.model";
  write_text(*options.tokenizer, model);
  const auto change = [&](const PrepareProgress&) { write_text(*options.tokenizer, "another"); };
  CHECK(contains(message_of([&] { prepare(options, change); }),
                 options.tokenizer->string() + ": was changed meanwhile"));
  CHECK_FALSE(std::filesystem::exists(options.output / "dataset.json"));
  write_text(*options.tokenizer, model);
  prepare(options, quiet);
  CHECK(test::read_text(options.output / "tokenizer.model") == model);
}

TEST_CASE("prepare: a trained tokenizer takes the place of none that is not ours, unless it is to") {
  Input input;
  const auto there = input.options.output / "tokenizer.model";
  write_text(there, "mine");
  CHECK(contains(message_of([&] { prepare(input.options, quiet); }),
                 there.string() + " would be replaced by the tokenizer that is trained"));
  CHECK(input.output_files() == std::vector<std::string>{"tokenizer.model"});
  CHECK(test::read_text(there) == "mine");
  std::filesystem::remove(there);

  // Its own, which a process put there that was killed before the manifest came.
  CHECK_THROWS_AS(prepare(input.options,
                          [](const PrepareProgress& progress) {
                            if (progress.phase == "write shards") throw std::runtime_error("interrupted");
                          }),
                  std::runtime_error);
  for (const auto& file : std::filesystem::directory_iterator(input.options.output / ".prepare")) {
    if (file.path().extension() == ".model") std::filesystem::copy_file(file.path(), there);
  }
  REQUIRE(std::filesystem::exists(there));
  prepare(input.options, quiet);
  const std::string model = test::read_text(there);

  std::filesystem::remove_all(input.options.output);
  write_text(there, "mine");
  input.options.force = true;
  prepare(input.options, quiet);
  CHECK(test::read_text(there) == model);
}

TEST_CASE("prepare: a file that is no tokenizer is named before anything is written") {
  Input input;
  input.options.train_vocab_size = 0;
  input.options.tokenizer = input.scratch / "in/b.txt";
  const std::string message = message_of([&] { prepare(input.options, quiet); });
  CHECK(
      message ==
      input.options.tokenizer->string() +
          " is neither a SentencePiece model nor a tokenizer.json; give a tokenizer.model, or train one with "
          "--train-tokenizer");
  CHECK_FALSE(std::filesystem::exists(input.options.output));
}

TEST_CASE("prepare: interrupted anywhere and called again, it goes on and gives the same dataset") {
  Input input;
  input.options.shard_tokens = 300;
  input.options.portion_bytes = 2000;
  input.options.threads = 1;
  const Manifest whole = prepare(input.options, quiet).manifest;
  for (int stop_at = 0; stop_at < 36; stop_at += 5) {
    CAPTURE(stop_at);
    PrepareOptions options = input.options;
    options.output = input.scratch / ("new/out" + std::to_string(stop_at));
    int reports = 0;
    std::int64_t documents = 0;
    bool interrupted = false;
    try {
      prepare(options, [&](const PrepareProgress& progress) {
        if (++reports > stop_at) throw std::runtime_error("interrupted");
        documents = progress.documents;
      });
    } catch (const std::runtime_error&) {
      interrupted = true;
      CHECK_FALSE(std::filesystem::exists(options.output / "dataset.json"));
    }
    std::int64_t bytes_before = 0;
    const PrepareResult result = prepare(options, [&](const PrepareProgress& progress) {
      if (progress.phase == "tokenize") bytes_before = progress.bytes_before;
    });
    CHECK(result.already_there == !interrupted);
    if (documents > 10 && interrupted) CHECK(bytes_before > 0);  // finished units are not done again
    REQUIRE(result.manifest.train.size() == whole.train.size());
    for (const Split split : {Split::train, Split::validation}) {
      CHECK(decoded(options.output, result.manifest, split) == decoded(input.options.output, whole, split));
    }
    CHECK_FALSE(std::filesystem::exists(options.output / ".prepare"));
  }
}

TEST_CASE(
    "prepare: an error leaves no dataset, and an older one as it was; what was done is used when it is "
    "mended") {
  Input input;
  const auto torn = input.scratch / "in/c.jsonl";
  write_text(torn, "{\"text\": \"fine\"}\n{\"text\": \"torn\n");
  CHECK(contains(message_of([&] { prepare(input.options, quiet); }), torn.string() + ", line 2: not JSON"));
  CHECK_FALSE(std::filesystem::exists(input.options.output));

  std::filesystem::remove(torn);
  const Manifest trained = prepare(input.options, quiet).manifest;
  CHECK(input.output_files() ==
        std::vector<std::string>{"dataset.json", "tokenizer.model", "train-00000.h5", "validation-00000.h5"});
  write_text(torn, "{\"text\": \"fine\"}\n{\"text\": \"torn\n");
  PrepareOptions options = input.options;  // the error comes while tokenizing
  options.train_vocab_size = 0;
  std::filesystem::copy_file(input.options.output / "tokenizer.model", input.scratch / "m.model");
  options.tokenizer = input.scratch / "m.model";
  options.force = true;
  options.portion_bytes = 500;
  CHECK(contains(message_of([&] { prepare(options, quiet); }), torn.string() + ", line 2: not JSON"));
  CHECK(read_manifest(options.output).source == trained.source);
  TokenStream(options.output, trained, Split::train).check_all();

  write_text(torn, "{\"text\": \"fine\"}\n{\"text\": \"mended\"}\n");
  std::int64_t bytes_before = 0;
  const Manifest mended = prepare(options, [&](const PrepareProgress& progress) {
                            if (progress.phase == "tokenize") bytes_before = progress.bytes_before;
                          }).manifest;
  CHECK(bytes_before > 2000);  // of 15 kB: the units before the torn line
  CHECK(mended.documents(Split::train) + mended.documents(Split::validation) == 22);
}

namespace {

/// Processes of a team, played by threads.
class ThreadTeam {
 public:
  explicit ThreadTeam(int size) : size_(size), barrier_(size) {}

  Team member(int rank) {
    return {.rank = rank,
            .size = size_,
            .agree =
                [this](const std::function<void()>& f) {
                  try {
                    f();
                  } catch (const std::exception& error) {
                    const std::lock_guard lock(mutex_);
                    failure_ = error.what();
                  }
                  barrier_.arrive_and_wait();
                  if (!failure_.empty()) throw ratplus::Error(failure_);
                },
            .from_root =
                [this, rank](const std::function<std::string()>& f) {
                  if (rank == 0) text_ = f();
                  barrier_.arrive_and_wait();
                  std::string text = text_;
                  barrier_.arrive_and_wait();  // before the next one
                  return text;
                }};
  }

 private:
  int size_;
  std::barrier<> barrier_;
  std::mutex mutex_;
  std::string failure_;
  std::string text_;
};

}  // namespace

TEST_CASE("prepare: any number of processes and any size of units give the same shards") {
  Input input;
  input.options.shard_tokens = 700;
  const Manifest whole = prepare(input.options, quiet).manifest;
  for (const int ranks : {1, 2, 3}) {
    PrepareOptions options = input.options;
    options.output = input.scratch / ("out" + std::to_string(ranks));
    options.portion_bytes = 1000 * ranks;
    options.threads = ranks;
    ThreadTeam team(ranks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] { prepare(options, quiet, team.member(rank)); });
    }
    for (auto& thread : threads) thread.join();
    const Manifest manifest = read_manifest(options.output);
    for (const Split split : {Split::train, Split::validation}) {
      REQUIRE(manifest.shards(split).size() == whole.shards(split).size());
      for (std::size_t i = 0; i < whole.shards(split).size(); ++i) {
        CHECK(manifest.shards(split)[i].tokens == whole.shards(split)[i].tokens);
        CHECK(test::read_text(options.output / manifest.shards(split)[i].file) ==
              test::read_text(input.options.output / whole.shards(split)[i].file));
      }
    }
    CHECK(test::read_text(options.output / "tokenizer.model") ==
          test::read_text(input.options.output / "tokenizer.model"));
  }
}

TEST_CASE("prepare: called again, what is left is shared out over all") {
  Input input;
  input.options.portion_bytes = 1000;
  input.options.shard_tokens = 1'000'000;
  // One of two, whose other never does its share.
  const auto alone = [&] {
    return message_of([&] { prepare(input.options, quiet, {.rank = 0, .size = 2}); });
  };
  std::string message = alone();
  CHECK(contains(message, "is not finished"));
  for (int calls = 0; calls < 10 && contains(message, "is not finished"); ++calls) message = alone();
  CHECK_FALSE(contains(message, "is not finished"));
  std::int64_t before = 0;
  std::int64_t total = 0;
  prepare(input.options, [&](const PrepareProgress& progress) {
    if (progress.phase != "tokenize") return;
    before = progress.bytes_before;
    total = progress.bytes_total;
  });
  CHECK(total > 0);
  CHECK(before == total);
}

TEST_CASE("prepare: documents with the same text are left out but for the first, if asked for") {
  Input input;
  write_text(input.scratch / "in/c.jsonl", "{\"text\": \"" + Input::line(3) +
                                               "\"}\n{\"text\": \"new\"}\n{\"text\": \"" + Input::line(7) +
                                               "\"}\n{\"text\": \"new\"}\n");
  input.options.portion_bytes = 3000;
  CHECK(prepare(input.options, quiet).duplicates == 0);
  PrepareOptions options = input.options;
  options.deduplicate = true;
  options.output = input.scratch / "unique";
  const PrepareResult result = prepare(options, quiet);
  CHECK(result.duplicates == 3);
  std::vector<std::string> train;
  std::vector<std::string> validation;
  auto texts = Input::texts();
  texts.push_back("new");
  for (const std::string& text : texts) (held_out_position(text) < 0.3 ? validation : train).push_back(text);
  CHECK(decoded(options.output, result.manifest, Split::train) == train);
  CHECK(decoded(options.output, result.manifest, Split::validation) == validation);
}

TEST_CASE("duplicates: a bound on the memory changes nothing") {
  const Scratch scratch;
  for (std::int64_t unit = 0; unit < 5; ++unit) {
    PortionWriter writer(scratch.path(), unit, 100);
    for (std::uint64_t i = 0; i < 20; ++i) {
      writer.add(Split::train,
                 {.tokens = {1, 2}, .text_hash = {i % 7 * 1'000'003, static_cast<std::uint64_t>(unit) / 3}},
                 0);
    }
    writer.finish({.source = "s"});
  }
  for (const std::int64_t at_once : {1000, 30, 1}) {
    CHECK(find_duplicates(scratch.path(), 5, at_once) == 100 - 14);
    const auto plan = plan_shards(scratch.path(), 5, 10, true);
    REQUIRE(plan.size() == 4);  // 14 documents of 3 tokens, 4 a shard
    CHECK(plan[0].entry.documents == 4);
    CHECK(plan[1].spans.front().begin == 4);
    CHECK(plan[1].spans.back().portion == 3);
  }
}

TEST_CASE("prepare: while one is at work, another is refused") {
  Input input;
  std::string message;
  prepare(input.options, [&](const PrepareProgress& progress) {
    if (progress.phase == "tokenize" && message.empty())
      message = message_of([&] { prepare(input.options, quiet); });
  });
  CHECK(contains(message, "another `ratplus prepare`, `samples` or `import` is at work here"));
}

TEST_CASE("prepare: a tokenizer that cannot be had leaves no directory") {
  Input input;
  input.options.tokenizer = input.scratch / "none.model";
  input.options.output = input.scratch / "new" / "output";
  CHECK(!message_of([&] { prepare(input.options, quiet); }).empty());
  CHECK_FALSE(std::filesystem::exists(input.scratch / "new"));
}

TEST_CASE("prepare: the held-out part is never silently empty") {
  Input input;
  input.options.validation_fraction = 1e-6;
  const std::string message = message_of([&] { prepare(input.options, quiet); });
  CHECK(
      contains(message, "no document fell in the held-out part (20 documents); raise --validation-fraction"));
  CHECK(input.output_files() == std::vector<std::string>{".prepare"});
  // The fraction that the message names is enough.
  const std::size_t to = message.find(" to ");
  REQUIRE(to != std::string::npos);
  input.options.validation_fraction = std::stod(message.substr(to + 4));
  CHECK(prepare(input.options, quiet).manifest.documents(Split::validation) >= 1);

  input.options.force = true;
  input.options.validation_fraction = 0;
  CHECK(prepare(input.options, quiet).manifest.validation.empty());

  input.options.inputs = {input.scratch / "in/b.txt"};
  input.options.validation_fraction = 1e-6;
  CHECK(
      contains(message_of([&] { prepare(input.options, quiet); }), "one document, so none can be held out"));
}

TEST_CASE("prepare: empty documents and ill-formed text are counted, and the first of the latter is named") {
  Input input;
  CHECK(prepare(input.options, quiet).first_repaired.empty());
  write_text(input.scratch / "in/c.txt", "");
  write_text(input.scratch / "in/d.txt", "bad \xFF byte, \xFF twice");
  input.options.force = true;
  PrepareResult result = prepare(input.options, quiet);
  CHECK(result.left_out_empty == 1);
  CHECK(result.repaired == 1);
  CHECK(result.first_repaired == (input.scratch / "in/d.txt").string());
  CHECK(result.manifest.documents(Split::train) + result.manifest.documents(Split::validation) == 21);

  // In the middle of a file that is cut into units, whose lines are counted from their beginnings.
  std::string lines;
  for (int i = 0; i < 40; ++i) {
    const bool broken = i == 25 || i == 37;
    lines += "\n{\"text\": \"" + Input::line(100 + i) + (broken ? "\\ud800 half\"}" : "\"}");
  }
  write_text(input.scratch / "in/c.jsonl", lines);
  for (const int threads : {1, 3}) {
    input.options.threads = threads;
    input.options.portion_bytes = 500 * threads;
    result = prepare(input.options, quiet);
    CHECK(result.repaired == 3);
    CHECK(result.first_repaired == (input.scratch / "in/c.jsonl").string() + ", line 27");
  }
}

TEST_CASE("prepare: progress reaches the end, and options that cannot be are refused") {
  Input input;
  PrepareProgress last;
  PrepareProgress writing;
  prepare(input.options, [&](const PrepareProgress& progress) {
    (progress.phase == "write shards" ? writing : last) = progress;
  });
  CHECK(last.phase == "tokenize");
  CHECK(writing.bytes_done == writing.bytes_total);
  CHECK(last.documents == 20);
  CHECK(last.bytes_done == last.bytes_total);
  CHECK(last.bytes_total > 0);
  const auto message = [&](const std::function<void(PrepareOptions&)>& change) {
    PrepareOptions options = input.options;
    change(options);
    return message_of([&] { prepare(options, quiet); });
  };
  CHECK(contains(message([](auto& o) { o.train_vocab_size = 0; }), "no tokenizer"));
  CHECK(contains(message([](auto& o) { o.tokenizer = "m"; }), "both a tokenizer"));
  CHECK(contains(message([](auto& o) { o.validation_fraction = 1; }), "--validation-fraction"));
  CHECK(contains(message([](auto& o) { o.shard_tokens = 0; }), "--shard-tokens"));
  CHECK(contains(message([](auto& o) { o.compression = 10; }), "--compression"));
  CHECK(contains(message([](auto& o) { o.output.clear(); }), "--output"));
  CHECK(contains(message([](auto& o) { o.inputs = {"/nowhere.txt"}; }), "/nowhere.txt does not exist"));
}

TEST_CASE("prepare: a document stays in its split when data is added, whatever the order") {
  Input input;
  input.options.train_vocab_size = 0;
  input.options.tokenizer =
      std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json";
  const Manifest before = prepare(input.options, quiet).manifest;
  std::string lines;  // to stand before the others, some of which they repeat
  for (unsigned i = 0; i < 60; ++i) lines += "{\"text\": \"" + Input::line(10 + i) + "\"}\n";
  write_text(input.scratch / "in/0.jsonl", lines);
  PrepareOptions more = input.options;
  more.output = input.scratch / "more";
  more.deduplicate = true;
  const Manifest after = prepare(more, quiet).manifest;
  for (const auto& [split, other] :
       {std::pair{Split::train, Split::validation}, std::pair{Split::validation, Split::train}}) {
    const auto old = decoded(input.options.output, before, split);
    const auto all = decoded(more.output, after, split);
    const auto others = decoded(more.output, after, other);
    CHECK(all.size() > old.size());
    for (const std::string& text : old) {
      CHECK(std::count(all.begin(), all.end(), text) == 1);
      CHECK(std::count(others.begin(), others.end(), text) == 0);
    }
  }
}

TEST_CASE("held-out part: uniform over texts, and the same for the same text") {
  std::vector<int> counts(20, 0);
  for (int i = 0; i < 20'000; ++i) {
    const double position = held_out_position("document " + std::to_string(i));
    REQUIRE(position >= 0);
    REQUIRE(position < 1);
    ++counts[static_cast<std::size_t>(position * 20)];
  }
  double chi_square = 0;
  for (const int count : counts) chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  CHECK(chi_square < 50);  // 19 degrees of freedom: mean 19, standard deviation 6.2
  CHECK(held_out_position("a") == held_out_position("a"));
}
