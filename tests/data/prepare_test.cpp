#include "data/prepare.h"

#include <doctest/doctest.h>

#include "data/held_out.h"
#include "data/token_stream.h"
#include "data/tokenizer.h"
#include "tests/data/support.h"

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

TEST_CASE("prepare: an interruption or an error leaves nothing") {
  Input input;
  input.options.shard_tokens = 300;
  const auto interrupt = [](const PrepareProgress& progress) {
    if (progress.phase == "tokenize") throw std::runtime_error("interrupted");
  };
  input.options.output = input.scratch / "new/out";
  CHECK_THROWS_AS(prepare(input.options, interrupt), std::runtime_error);
  CHECK_FALSE(std::filesystem::exists(input.scratch / "new"));
  input.options.output = input.scratch / "out";

  const auto torn = input.scratch / "in/c.jsonl";
  write_text(torn, "{\"text\": \"fine\"}\n{\"text\": \"torn\n");
  CHECK(contains(message_of([&] { prepare(input.options, quiet); }), torn.string() + ", line 2: not JSON"));
  CHECK(input.output_files().empty());

  std::filesystem::remove(torn);
  const Manifest trained = prepare(input.options, quiet).manifest;
  write_text(torn, "{\"text\": \"fine\"}\n{\"text\": \"torn\n");
  PrepareOptions options = input.options;  // the error comes while tokenizing, after some shards
  options.train_vocab_size = 0;
  std::filesystem::copy_file(input.options.output / "tokenizer.model", input.scratch / "m.model");
  options.tokenizer = input.scratch / "m.model";
  options.force = true;
  CHECK(contains(message_of([&] { prepare(options, quiet); }), torn.string() + ", line 2: not JSON"));
  CHECK(input.output_files().empty());
}

TEST_CASE("prepare: the held-out part is never silently empty") {
  Input input;
  input.options.validation_fraction = 1e-6;
  const std::string message = message_of([&] { prepare(input.options, quiet); });
  CHECK(
      contains(message, "no document fell in the held-out part (20 documents); raise --validation-fraction"));
  CHECK(input.output_files().empty());
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

TEST_CASE("prepare: empty documents and ill-formed text are counted") {
  Input input;
  write_text(input.scratch / "in/c.txt", "");
  write_text(input.scratch / "in/d.txt", "bad \xFF byte");
  const PrepareResult result = prepare(input.options, quiet);
  CHECK(result.left_out_empty == 1);
  CHECK(result.repaired == 1);
  CHECK(result.manifest.documents(Split::train) + result.manifest.documents(Split::validation) == 21);
}

TEST_CASE("prepare: progress reaches the end, and options that cannot be are refused") {
  Input input;
  PrepareProgress last;
  prepare(input.options, [&](const PrepareProgress& progress) { last = progress; });
  CHECK(last.phase == "tokenize");
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
