#include "data/prepare/supervised.h"

#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json_dump.h"
#include "data/dataset/sample_shard.h"
#include "data/samples/supervised_samples.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::Scratch;
using test::write_text;

namespace {

const auto tokenizer_file =
    std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers/gpt2.json";
const auto quiet = [](std::int64_t) {};

struct Input {
  Input() {
    options.inputs = {scratch / "a.jsonl"};
    options.output = scratch / "out";
    options.tokenizer = tokenizer_file;
    options.length = 8;
    options.validation_fraction = 1e-9;
  }
  Scratch scratch;
  SupervisedOptions options;
};

/// Many lines of token lists, [i, i + 1, ..., i + n - 1] of which the last two count.
std::string token_lines(int count, int n) {
  std::string lines;
  for (int i = 1; i <= count; ++i) {
    nlohmann::json tokens = nlohmann::json::array();
    nlohmann::json labels = nlohmann::json::array();
    for (int t = 0; t < n; ++t) {
      tokens.push_back(i + t);
      labels.push_back(t >= n - 2 ? i + t : -100);
    }
    lines += json_dump(nlohmann::json{{"tokens", tokens}, {"labels", labels}}) + "\n";
  }
  return lines;
}

struct Sample {
  std::vector<std::int32_t> inputs;
  std::vector<std::int32_t> labels;
};

std::vector<Sample> read_samples(const std::filesystem::path& directory, const Manifest& manifest,
                                 Split split) {
  std::vector<Sample> samples;
  for (const ManifestShard& entry : manifest.shards(split)) {
    const SampleShardReader shard(directory / entry.file);
    for (std::int64_t i = 0; i < shard.info().samples; ++i) {
      Sample sample{std::vector<std::int32_t>(static_cast<std::size_t>(shard.info().length)), {}};
      sample.labels.resize(sample.inputs.size());
      shard.read(i, sample.inputs, sample.labels);
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

}  // namespace

TEST_CASE("supervised samples: padded, each line has its own, and labels are the next tokens that count") {
  Input input;
  input.options.pack = false;
  input.options.validation_fraction = 0.3;
  input.options.shard_samples = 7;
  write_text(input.scratch / "a.jsonl", token_lines(50, 5));
  const SupervisedResult result = prepare_supervised(input.options, quiet);
  CHECK(result.lines == 50);
  CHECK(result.manifest.train.size() > 3);
  std::set<std::int32_t> seen;
  for (const Split split : {Split::train, Split::validation}) {
    for (const Sample& sample : read_samples(input.options.output, result.manifest, split)) {
      const std::int32_t i = sample.inputs[0];
      CHECK(seen.insert(i).second);
      CHECK(sample.inputs == std::vector<std::int32_t>{i, i + 1, i + 2, i + 3, i + 4, 0, 0, 0});
      CHECK(sample.labels == std::vector<std::int32_t>{-100, -100, i + 3, i + 4, -100, -100, -100, -100});
    }
  }
  CHECK(seen.size() == 50);
  CHECK(read_manifest(input.options.output).sample_length == 8);
}

TEST_CASE("supervised samples: packed lines stay whole and apart, long ones are cut") {
  Input input;
  input.options.validation_fraction = 0.3;
  write_text(input.scratch / "a.jsonl", token_lines(60, 3) + token_lines(4, 20) + token_lines(5, 10));
  const SupervisedResult result = prepare_supervised(input.options, quiet);
  CHECK(result.lines == 69);
  CHECK(result.cut == 9);
  CHECK(result.left_out == 4);  // of 20 tokens, whose two labels lie behind the cut
  std::int64_t counted = 0;
  for (const Split split : {Split::train, Split::validation}) {
    for (const Sample& sample : read_samples(input.options.output, result.manifest, split)) {
      for (std::size_t t = 0; t < 8; ++t) {
        if (sample.labels[t] < 0) continue;
        CHECK(sample.labels[t] == sample.inputs[t] + 1);  // never the first token of the next line
        ++counted;
      }
    }
  }
  CHECK(counted == 60 * 2 + 5 * 1);
  CHECK(result.manifest.documents(Split::train) + result.manifest.documents(Split::validation) <=
        60 / 2 + 5 + 3);
}

TEST_CASE("supervised samples: a line that is too long loses its middle") {
  Input input;
  input.options.pack = false;
  input.options.cut = Cut::middle;
  input.options.validation_fraction = 0.3;
  const auto line = [](int n, int counted) {
    nlohmann::json tokens = nlohmann::json::array(), labels = nlohmann::json::array();
    for (int t = 0; t < n; ++t) {
      tokens.push_back(20 * n + t);
      labels.push_back(t >= n - counted ? 20 * n + t : -100);
    }
    return json_dump(nlohmann::json{{"tokens", tokens}, {"labels", labels}}) + "\n";
  };
  // T = 8 and n tokens before the last: 7 are whole; of 8 and 12 stay the first 3 and the last 4.
  write_text(input.scratch / "a.jsonl", line(8, 3) + line(9, 3) + line(13, 12) + token_lines(60, 3));
  const auto result = prepare_supervised(input.options, quiet);
  CHECK(result.cut == 2);
  std::map<std::int32_t, Sample> found;
  for (const Split split : {Split::train, Split::validation}) {
    for (auto& sample : read_samples(input.options.output, result.manifest, split))
      found[sample.inputs[0]] = std::move(sample);
  }
  const auto tokens = [](std::int32_t first, const std::vector<std::int32_t>& at) {
    std::vector<std::int32_t> values;
    for (const auto i : at) values.push_back(i < 0 ? -100 : first + i);
    return values;
  };
  CHECK(found.at(160).inputs == tokens(160, {0, 1, 2, 3, 4, 5, 6, 7}));
  CHECK(found.at(160).labels == tokens(160, {-1, -1, -1, -1, 5, 6, 7, -1}));
  CHECK(found.at(180).inputs == tokens(180, {0, 1, 2, 4, 5, 6, 7, 8}));
  CHECK(found.at(180).labels == tokens(180, {-1, -1, -1, -1, 6, 7, 8, -1}));
  CHECK(found.at(260).inputs == tokens(260, {0, 1, 2, 8, 9, 10, 11, 12}));
  CHECK(found.at(260).labels == tokens(260, {1, 2, 3, 9, 10, 11, 12, -1}));
}

TEST_CASE("supervised samples: prompts and completions") {
  Input input;
  input.options.length = 64;
  input.options.pack = false;
  input.options.validation_fraction = 0.5;
  std::string lines;
  for (int i = 0; i < 20; ++i)
    lines += "{\"prompt\": \"What is " + std::to_string(i) + "?\", \"completion\": \" An Größe.\"}\n";
  write_text(input.scratch / "a.jsonl", lines);
  const SupervisedResult result = prepare_supervised(input.options, quiet);
  const Tokenizer tokenizer(tokenizer_file);
  for (const Sample& sample : read_samples(input.options.output, result.manifest, Split::train)) {
    std::vector<std::int32_t> labels;
    for (const std::int32_t label : sample.labels) {
      if (label >= 0) labels.push_back(label);
    }
    REQUIRE(!labels.empty());
    CHECK(labels.back() == tokenizer.end_of_text());
    labels.pop_back();
    CHECK(tokenizer.decode(labels) == " An Größe.");
    CHECK(tokenizer.decode(sample.inputs).starts_with("What is "));
  }
}

TEST_CASE("supervised samples: read in any order, each once a pass") {
  Input input;
  input.options.pack = false;
  input.options.validation_fraction = 0.3;
  input.options.shard_samples = 7;
  write_text(input.scratch / "a.jsonl", token_lines(50, 5));
  const Manifest manifest = prepare_supervised(input.options, quiet).manifest;
  const std::vector<SampleSource> source{{input.options.output, 1, manifest}};
  const std::int64_t all = manifest.documents(Split::train);
  for (const Sampling sampling : {Sampling::ordered, Sampling::shuffled}) {
    SupervisedSamples samples(source,
                              {.split = Split::train, .sampling = sampling, .sequence_length = 8, .seed = 3});
    std::vector<std::int32_t> inputs(8);
    std::vector<std::int32_t> labels(8);
    std::vector<std::vector<std::int32_t>> passes(2);
    for (std::int64_t i = 0; i < 2 * all; ++i) {
      CHECK(samples.read(i, inputs, labels) == 2);
      passes[static_cast<std::size_t>(i / all)].push_back(inputs[0]);
    }
    CHECK((passes[0] == passes[1]) == (sampling == Sampling::ordered));
    for (const auto& each : passes)
      CHECK(std::ssize(std::set<std::int32_t>(each.begin(), each.end())) == all);
    const auto& pass = passes[0];
    for (const std::int64_t most : {std::int64_t{1}, std::int64_t{6}, all - 1, all, std::int64_t{1000}}) {
      const std::int64_t count = samples.spread(most);
      CHECK(count == std::min(most, all));
      for (std::int64_t i = 0; i < count; ++i) {
        samples.read(i, inputs, labels);
        CHECK(inputs[0] == pass[static_cast<std::size_t>(i * all / count)]);
      }
    }
  }
  SupervisedSamples::check_all(source.front());
  std::filesystem::remove(input.options.output / "train-00001.h5");
  CHECK(contains(message_of([&] { SupervisedSamples::check_all(source.front()); }),
                 "train-00001.h5: no such file"));
}

TEST_CASE("supervised samples: what is no character is U+FFFD, counted by lines, and the first is named") {
  Input input;
  input.options.length = 64;
  input.options.pack = false;
  input.options.validation_fraction = 0.5;
  std::string lines;
  for (int i = 0; i < 20; ++i) {
    lines += "{\"prompt\": \"What is " + std::to_string(i) + "?\", \"completion\": \" ";
    lines += i == 7 ? "\\ud83d\"}\n" : i == 9 ? "\xFF\xFF\"}\n" : "fine\"}\n";
  }
  write_text(input.scratch / "a.jsonl", lines);
  const SupervisedResult result = prepare_supervised(input.options, quiet);
  CHECK(result.lines == 20);
  CHECK(result.repaired == 2);
  CHECK(result.first_repaired == (input.scratch / "a.jsonl").string() + ", line 8");
}

TEST_CASE("supervised samples: what is wrong with a line is said, and nothing is left") {
  Input input;
  const auto message = [&](const std::string& line) {
    write_text(input.scratch / "a.jsonl", "{\"tokens\": [1, 2], \"labels\": [-100, 2]}\n" + line + "\n");
    return message_of([&] { prepare_supervised(input.options, quiet); });
  };
  CHECK(contains(message("{\"prompt\": \"a\"}"), "a.jsonl, line 2: has no text \"completion\""));
  CHECK(contains(message("{\"tokens\": [1], \"labels\": []}"), "line 2: 1 token and 0 labels"));
  CHECK(contains(message("{\"tokens\": [1, 700], \"labels\": [1, -100]}"),
                 "token 700 is outside the vocabulary of 700"));
  CHECK(contains(message("{\"tokens\": [1, 2], \"labels\": [1, 3]}"),
                 "label 1 is 3, which is neither its token 2 nor -100"));
  CHECK(contains(message("{\"tokens\": [1.5, 2], \"labels\": [1, 2]}"), "\"tokens\" holds 1.5"));
  CHECK(contains(message("{"), "line 2: not JSON"));
  CHECK(contains(message("[]"), "line 2: a JSON array"));
  CHECK(contains(message(""), "no sample fell in the validation split"));
  CHECK_FALSE(std::filesystem::exists(input.options.output));
  input.options.length = 0;
  CHECK(contains(message(""), "--sequence-length 0 is not positive"));
}
