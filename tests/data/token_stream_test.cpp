#include "data/dataset/token_stream.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "base/json_dump.h"
#include "base/parse_json.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::Scratch;

namespace {

/// Token at place i of a counting dataset with these document lengths.
std::vector<std::int32_t> expected_stream(const std::vector<std::vector<int>>& lengths) {
  std::vector<std::int32_t> stream;
  for (const auto& shard : lengths) {
    for (const int length : shard) {
      for (int i = 0; i < length; ++i) {
        stream.push_back(i == length - 1 ? 2 : static_cast<std::int32_t>(stream.size()) + 3);
      }
    }
  }
  return stream;
}

}  // namespace

TEST_CASE("token stream: every range of several shards, chunk and shard borders included") {
  const Scratch scratch;
  const std::vector<std::vector<int>> lengths{{5, 1, 20}, {1}, {16, 16}, {}, {3}};
  const Manifest manifest = test::write_counting_dataset(scratch.path(), lengths);
  const auto expected = expected_stream(lengths);
  TokenStream stream(scratch.path(), read_manifest(scratch.path()), Split::train);
  stream.check_all();
  REQUIRE(stream.tokens() == std::ssize(expected));
  CHECK(manifest.documents(Split::train) == 7);
  for (std::size_t begin = 0; begin <= expected.size(); ++begin) {
    for (std::size_t end = begin; end <= expected.size(); ++end) {
      std::vector<std::int32_t> range(end - begin);
      stream.read(static_cast<std::int64_t>(begin), range);
      REQUIRE(std::equal(range.begin(), range.end(), expected.begin() + static_cast<std::ptrdiff_t>(begin)));
    }
  }
  std::vector<std::int32_t> one(1);
  CHECK_THROWS_AS(stream.read(stream.tokens(), one), std::logic_error);
  CHECK(TokenStream(scratch.path(), manifest, Split::validation).tokens() == 0);
}

TEST_CASE("token stream: more shards than are kept open") {
  const Scratch scratch;
  const std::vector<std::vector<int>> lengths(150, {2, 3});
  const auto expected = expected_stream(lengths);
  TokenStream stream(scratch.path(), test::write_counting_dataset(scratch.path(), lengths), Split::train);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::int32_t> all(expected.size());
    stream.read(0, all);
    CHECK(all == expected);
  }
}

TEST_CASE("token stream: shards of very different sizes") {
  const Scratch scratch;
  std::vector<std::vector<int>> lengths(40, {1});
  lengths[7] = {500};
  lengths[20] = {};
  lengths[39] = {300, 2};
  const auto expected = expected_stream(lengths);
  TokenStream stream(scratch.path(), test::write_counting_dataset(scratch.path(), lengths), Split::train);
  for (std::size_t at = 0; at < expected.size(); ++at) {
    std::vector<std::int32_t> one(1);
    stream.read(static_cast<std::int64_t>(at), one);
    REQUIRE(one[0] == expected[at]);
  }
}

TEST_CASE("token stream: a shard that is missing, replaced or of another tokenizer is named") {
  const Scratch scratch;
  const Manifest manifest = test::write_counting_dataset(scratch.path(), {{8}, {9}});
  const auto check_all = [&](const Manifest& with) {
    return message_of([&] { TokenStream(scratch.path(), with, Split::train).check_all(); });
  };
  CHECK(check_all(manifest).empty());

  Manifest other = manifest;
  other.tokenizer = "another";
  CHECK(contains(check_all(other), "train-0.h5: made with another tokenizer"));
  other = manifest;
  other.end_of_text = 1;
  CHECK(contains(check_all(other), "train-0.h5: made with another tokenizer"));
  other = manifest;
  other.vocab_size = 100;
  CHECK(contains(check_all(other), "train-0.h5: made with another tokenizer"));

  std::filesystem::copy_file(scratch / "train-0.h5", scratch / "train-1.h5",
                             std::filesystem::copy_options::overwrite_existing);
  CHECK(contains(check_all(manifest), "train-1.h5: 8 tokens in 1 documents"));

  std::filesystem::remove(scratch / "train-1.h5");
  CHECK(contains(check_all(manifest), "train-1.h5: no such file"));
  TokenStream stream(scratch.path(), manifest, Split::train);
  std::vector<std::int32_t> range(10);
  stream.read(0, std::span(range).first(8));  // the first shard alone is fine
  CHECK(contains(message_of([&] { stream.read(0, range); }), "train-1.h5: no such file"));
}

TEST_CASE("manifest: round trip, and what is wrong with one is said") {
  const Scratch scratch;
  const Manifest written{.vocab_size = 32000,
                         .end_of_text = 2,
                         .tokenizer = "sentencepiece:sha256:x",
                         .tokenizer_file = "tokenizer.model",
                         .source = "sha256:y",
                         .sample_length = 0,
                         .train = {{"train-00000.h5", 10, 2}, {"train-00001.h5", 5, 1}},
                         .validation = {{"validation-00000.h5", 3, 1}}};
  write_manifest(scratch.path(), written);
  CHECK(scratch.files() == std::vector<std::string>{"dataset.json"});
  const Manifest read = read_manifest(scratch.path());
  CHECK(read.vocab_size == 32000);
  CHECK(read.end_of_text == 2);
  CHECK(read.tokenizer == written.tokenizer);
  CHECK(read.tokenizer_file == "tokenizer.model");
  CHECK(read.source == "sha256:y");
  CHECK(read.tokens(Split::train) == 15);
  CHECK(read.documents(Split::train) == 3);
  CHECK(read.train[1].file == "train-00001.h5");
  CHECK(read.tokens(Split::validation) == 3);

  const auto file = scratch / "dataset.json";
  const auto good = parse_json(test::read_text(file));
  const auto message = [&](const std::string& text) {
    test::write_text(file, text);
    return message_of([&] { read_manifest(scratch.path()); });
  };
  const auto changed = [&](const char* pointer, const nlohmann::json& value) {
    auto json = good;
    json[nlohmann::json::json_pointer(pointer)] = value;
    return message(json_dump(json));
  };
  CHECK(message(json_dump(good)).empty());
  CHECK(contains(message(R"({"format": )"), file.string() + ": not JSON"));
  CHECK(contains(message("[]"), "key \"format\" is missing"));
  CHECK(contains(changed("/version", 9), "version 9, but this program reads version 1"));
  CHECK(contains(changed("/format", "x"), "format is \"x\""));
  CHECK(contains(changed("/vocab_size", "many"), "\"vocab_size\" is \"many\", not a count"));
  CHECK(contains(changed("/train/1/tokens", -1), "train[1]: \"tokens\" is -1"));
  CHECK(contains(changed("/train/0", 1), "train[0]: key \"file\" is missing"));
  CHECK(contains(changed("/validation", 1), "\"validation\" is not a list"));
  std::filesystem::remove(file);
  CHECK(contains(message_of([&] { read_manifest(scratch.path()); }), "holds no dataset.json"));
}

TEST_CASE("manifest: splits by name") {
  for (const Split split : {Split::train, Split::validation}) CHECK(parse_split(to_string(split)) == split);
  CHECK(message_of([] { parse_split("valid"); }) ==
        "split \"valid\" is not known; a dataset has the splits train and validation");
}
