// What a request leaves out comes from the weights' own job, and data that do not fit the model are refused.
#include "lib/evaluation/evaluation.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "data/dataset/sample_shard.h"
#include "data/dataset/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/session/session.h"
#include "tests/support/messages.h"
#include "tests/support/ranks.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using evaluation::Request;
using test::contains;
using test::message_of;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t vocab_size = 50;

/// A text dataset of 200 tokens a split.
void write_dataset(const fs::path& directory, const std::string& tokenizer = "test",
                   std::int64_t vocabulary = vocab_size) {
  fs::create_directories(directory);
  data::Manifest manifest;
  manifest.vocab_size = vocabulary;
  manifest.end_of_text = 2;
  manifest.tokenizer = tokenizer;
  for (const auto split : {data::Split::train, data::Split::validation}) {
    const std::string name = std::string(data::to_string(split)) + ".h5";
    data::ShardWriter writer(directory / name,
                             {.vocab_size = vocabulary, .end_of_text = 2, .tokenizer = tokenizer},
                             {.compression = 0, .chunk_tokens = 16});
    std::vector<std::int32_t> document;
    for (int i = 0; i < 199; ++i) document.push_back(3 + 7 * i % 40);
    writer.add_document(document);
    const auto info = writer.finish();
    (split == data::Split::train ? manifest.train : manifest.validation)
        .push_back({name, info.tokens, info.documents});
  }
  data::write_manifest(directory, manifest);
}

/// The same vocabulary, sorted by kind: 16 held-out sequences of 16 tokens in two shards, tokens 5 in the first half and 40 in
/// the other, but for the ends of text.
void write_sorted_dataset(const fs::path& directory) {
  fs::create_directories(directory);
  data::Manifest manifest;
  manifest.vocab_size = vocab_size;
  manifest.end_of_text = 2;
  manifest.tokenizer = "test";
  for (const std::int32_t kind : {5, 40}) {
    const std::string name = fmt::format("validation-{}.h5", kind);
    data::ShardWriter writer(directory / name,
                             {.vocab_size = vocab_size, .end_of_text = 2, .tokenizer = "test"},
                             {.compression = 0, .chunk_tokens = 16});
    writer.add_document(std::vector<std::int32_t>(kind == 5 ? 127 : 128, kind));
    const auto info = writer.finish();
    manifest.validation.push_back({name, info.tokens, info.documents});
  }
  data::write_manifest(directory, manifest);
}

/// A dataset, and a checkpoint whose job was trained on it; each rank has its own.
struct Fixture {
  explicit Fixture(const std::string& data = "", const std::string& parallel = "") {
    const auto text = fmt::format(
        "[job]\ndevice = \"cpu\"\nprecision = \"f32\"\nthreads = 1\npattern = \"4,0,1\"\ndirectory = "
        "\"{0}/run\"\n"
        "[model]\nlayers = 2\nwidth = 32\nhead_dim = 16\nvocab_size = {1}\n"
        "[data]\n{2}\nwindow = 16\nbatch = 12\nmicro_batch = 2\n[schedule]\nsteps = 3\n{3}",
        scratch.path().string(), vocab_size,
        data.empty() ? fmt::format("directory = \"{}/data\"", scratch.path().string()) : data, parallel);
    write_dataset(scratch / "data");
    save(config::to_toml(config::parse_job(text, "job.toml")), "test");
  }

  void save(const std::string& job, const std::string& tokenizer) const {
    const auto world = parallel::World::solo();
    const model::ModelConfig model{.layers = 2, .width = 32, .head_dim = 16, .vocab_size = vocab_size};
    session::Session session({.model = model, .shapes = {1, 16}, .optimizer = {}, .threads = 1}, world);
    session.set_initial_weights(1);
    checkpoint::save(world,
                     {.directory = weights(), .model = model, .step = 3, .job = job, .tokenizer = tokenizer},
                     session.store(), session.optimizer(), session.ops());
  }

  fs::path weights() const { return scratch / "step-00000003"; }
  evaluation::Evaluation resolve(const Request& request = {}) const {
    return evaluation::resolve(request, weights());
  }
  std::string refusal(const Request& request) const {
    return message_of([&] { evaluation::find_data(request, resolve(request)); });
  }

  test::ScratchDirectory scratch;
};

}  // namespace

TEST_CASE("an empty request takes all of the weights' own job") {
  const Fixture f;
  const auto e = f.resolve();
  REQUIRE(e.patterns.size() == 1);
  CHECK(e.patterns[0].describe() == "4,0,1");
  CHECK(e.micro_batch == 2);
  CHECK(e.device == DeviceChoice::cpu);
  CHECK(e.precision == DType::f32);
  CHECK(e.info().step == 3);
  const auto data = evaluation::find_data({}, e);
  CHECK(data.settings.dataset == f.scratch / "data");
  CHECK(data.settings.split == data::Split::validation);
  CHECK(data.settings.sequence_length == 16);
  CHECK(!data.has_samples());
  CHECK(data.validator(world())->sequences() == 199 / 16);
}

TEST_CASE("a request comes before the weights' job") {
  const Fixture f;
  write_dataset(f.scratch / "other");
  const Request request{.patterns = {"dense", "8,4,2"},
                        .micro_batch = 3,
                        .device = DeviceChoice::automatic,
                        .precision = DType::bf16,
                        .threads = 2,
                        .data = (f.scratch / "other").string(),
                        .split = "train",
                        .sequences = 5,
                        .sequence_length = 8};
  const auto e = f.resolve(request);
  REQUIRE(e.patterns.size() == 2);
  CHECK(e.patterns[0].describe() == "dense");
  CHECK(e.patterns[1].describe() == "8,4,2");
  CHECK(e.micro_batch == 3);
  CHECK(e.device == DeviceChoice::automatic);
  CHECK(e.precision == DType::bf16);
  CHECK(e.threads == 2);
  const auto data = evaluation::find_data(request, e);
  CHECK(data.settings.dataset == f.scratch / "other");
  CHECK(data.settings.split == data::Split::train);
  CHECK(data.settings.sequence_length == 8);
  CHECK(data.validator(world())->sequences() == 5);
}

TEST_CASE("patterns that do not fit the model, and splits of no dataset, are refused by name") {
  const Fixture f;
  CHECK(contains(message_of([&] { f.resolve({.patterns = {"0,0"}}); }), "--pattern"));
  CHECK(contains(message_of([&] { f.resolve({.patterns = {R"(["dense", "dense", "dense"])"}}); }),
                 "--pattern"));
  CHECK(contains(f.refusal({.split = "test"}), "test"));
}

TEST_CASE("data of another vocabulary or tokenizer are refused, and data that are not named") {
  const Fixture f;
  write_dataset(f.scratch / "larger", "test", vocab_size + 1);
  write_dataset(f.scratch / "foreign", "another");
  CHECK(contains(f.refusal({.data = (f.scratch / "larger").string()}),
                 "its vocabulary has 51 tokens, the model's 50"));
  const auto foreign = f.refusal({.data = (f.scratch / "foreign").string()});
  CHECK(contains(foreign, f.weights().string() + ": was trained on tokens of test, but "));
  CHECK(contains(foreign, "foreign has tokens of another; prepare the text with the model's tokenizer"));
  f.save("", "");  // as of weights from elsewhere: neither job nor tokenizer
  CHECK(contains(f.refusal({}),
                 "does not say which data it was trained on; give --data DIR, or --tokens FILE"));
  CHECK(f.refusal({.data = (f.scratch / "foreign").string(), .sequence_length = 16}).empty());

  const Fixture mixed("sources = [{directory = \"a\", weight = 1}, {directory = \"b\", weight = 2}]");
  CHECK(contains(mixed.refusal({}),
                 "was trained on 2 datasets; give the one to evaluate on with --data DIR (a, ...)"));
}

TEST_CASE("samples with labels set the sequence length") {
  const Fixture f;
  const auto directory = f.scratch / "samples";
  fs::create_directories(directory);
  data::Manifest manifest;
  manifest.vocab_size = vocab_size;
  manifest.end_of_text = 2;
  manifest.tokenizer = "test";
  manifest.sample_length = 6;
  data::write_manifest(directory, manifest);
  const Request request{.data = directory.string()};
  CHECK(evaluation::find_data(request, f.resolve()).has_samples());
  CHECK(evaluation::find_data(request, f.resolve()).settings.sequence_length == 6);
  CHECK(f.refusal({.data = directory.string(), .sequence_length = 6}).empty());
  CHECK(contains(f.refusal({.data = directory.string(), .sequence_length = 16}),
                 "--sequence-length 16: " + directory.string() +
                     " holds samples of 6 inputs; leave --sequence-length out"));
}

TEST_CASE("an evaluation is sharded as in training, or over all ranks where those groups do not fit them") {
  const Fixture f("", "[parallel]\nshard = \"full\"\nshard_group = 2\n");
  const auto settings = f.resolve().session_settings({2, 16}, world());
  CHECK(settings.use == parallel::Use::evaluation);
  CHECK(settings.parallel.shard == parallel::Sharding::full);
  CHECK(settings.parallel.shard_group == (world().size() % 2 == 0 ? 2 : parallel::all_ranks));
}

TEST_CASE("the loss of fresh weights is near that of a uniform guess, on any number of ranks") {
  const Fixture f;
  const auto e = f.resolve({.patterns = {"dense", "4,0,1"}});
  const auto data = evaluation::find_data({}, e);
  session::Session session(e.session_settings({e.micro_batch, data.settings.sequence_length}, world()),
                           world());
  weights::load(*e.source, session.store(), session.ops());
  session.store().publish_masters();
  const auto scores = data.validator(world())->run(session.model(), e.patterns);
  REQUIRE(scores.size() == 2);
  for (const auto& score : scores) CHECK(score.loss == doctest::Approx(std::log(50.0)).epsilon(0.2));
}

TEST_CASE("bits per byte: the loss in bits over the bytes of the labels' text, on any number of ranks") {
  const Fixture f;
  const auto e = f.resolve({.patterns = {"dense", "4,0,1"}});
  auto data = evaluation::find_data({}, e);
  CHECK(contains(data.bytes.missing, "data: has no tokenizer; import it with --tokenizer"));
  session::Session session(e.session_settings({e.micro_batch, data.settings.sequence_length}, world()),
                           world());
  weights::load(*e.source, session.store(), session.ops());
  session.store().publish_masters();
  const auto run = [&] { return data.validator(world())->run(session.model(), e.patterns); };
  CHECK(!run()[0].bits_per_byte);

  // Token i has i bytes; the 12 sequences predict tokens 1 to 192 of the text.
  data.bytes.of_token.resize(vocab_size);
  for (std::int32_t token = 0; token < vocab_size; ++token)
    data.bytes.of_token[static_cast<std::size_t>(token)] = token;
  double bytes = 0;
  for (int i = 1; i <= 192; ++i) bytes += 3 + 7 * i % 40;
  for (const auto& score : run()) {
    REQUIRE(score.bits_per_byte.has_value());
    CHECK(*score.bits_per_byte == doctest::Approx(score.loss * 192 / std::log(2.0) / bytes).epsilon(1e-9));
  }
  data.bytes.of_token[10] = evaluation::TextBytes::unknown;  // 3 + 7, the second token
  CHECK(!run()[0].bits_per_byte);
}

TEST_CASE(
    "some sequences of a text sorted by kind are of all kinds, and the same ones on any number of ranks") {
  const Fixture f;
  write_sorted_dataset(f.scratch / "sorted");
  const auto e = f.resolve({.patterns = {"dense"}});
  const auto solo = parallel::World::solo();
  for (const std::int64_t sequences : {1, 2, 4, 5, 16, 100}) {
    CAPTURE(sequences);
    auto data = evaluation::find_data({.data = (f.scratch / "sorted").string(), .sequences = sequences}, e);
    data.bytes.of_token.resize(vocab_size);  // token i has i bytes, so that the bytes tell the labels
    for (std::int32_t token = 0; token < vocab_size; ++token)
      data.bytes.of_token[static_cast<std::size_t>(token)] = token;
    const auto score = [&](const parallel::World& ranks) {
      session::Session session(e.session_settings({e.micro_batch, data.settings.sequence_length}, ranks),
                               ranks);
      weights::load(*e.source, session.store(), session.ops());
      session.store().publish_masters();
      const auto validator = data.validator(ranks);
      CHECK(validator->sequences() == std::min<std::int64_t>(sequences, 16));
      return validator->run(session.model(), e.patterns)[0];
    };
    const auto over_ranks = score(world());
    CHECK(over_ranks.loss == doctest::Approx(score(solo).loss).epsilon(1e-9));

    std::int64_t positions = 0, bytes = 0;
    const auto count = std::min<std::int64_t>(sequences, 16);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto sequence = i * 16 / count;
      for (std::int64_t t = sequence * 16; t < sequence * 16 + 16; ++t) {
        if (t == 127) continue;  // an end of text predicts nothing
        ++positions;
        bytes += t + 1 == 127 || t + 1 == 256 ? 2 : t + 1 < 127 ? 5 : 40;
      }
    }
    REQUIRE(over_ranks.bits_per_byte.has_value());
    CHECK(over_ranks.loss * static_cast<double>(positions) / std::log(2.0) / *over_ranks.bits_per_byte ==
          doctest::Approx(static_cast<double>(bytes)).epsilon(1e-9));
    if (sequences == 4) CHECK(bytes == 2 * 16 * 5 + 2 * 16 * 40);
  }
}

TEST_CASE("the bytes of tokens are those of the text that they stand for") {
  const std::string text = "The answer, é日本語 😀 of\nit.";
  int kinds = 0;
  for (const char* kind : {"gpt2", "llama2", "llama3", "mistral", "neox", "qwen"}) {
    CAPTURE(std::string(kind));
    const data::Tokenizer tokenizer(fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers" /
                                    (std::string(kind) + ".json"));
    const auto vocabulary = tokenizer.vocab_size() + 2;
    const evaluation::TextBytes bytes(tokenizer, vocabulary);
    std::vector<std::int32_t> tokens;
    tokenizer.encode(text, tokens);
    std::size_t sum = 0;
    for (const auto token : tokens)
      sum += static_cast<std::size_t>(bytes.of_token[static_cast<std::size_t>(token)]);
    const bool blank = tokenizer.bytes_of(tokens.front()).starts_with(' ');  // put before the text
    CHECK(sum == text.size() + (blank ? 1 : 0));
    CHECK(bytes.of_token.back() == evaluation::TextBytes::unknown);
    ++kinds;
  }
  CHECK(kinds == 6);
}

TEST_CASE(
    "losses by position: each part's mean, whose sum by counts is the whole loss, on any number of ranks") {
  const Fixture f;
  const auto e = f.resolve({.patterns = {"dense", "4,0,1"}});
  const auto run = [&](std::int64_t parts) {
    const auto data = evaluation::find_data({.parts = parts}, e);
    session::Session session(e.session_settings({e.micro_batch, data.settings.sequence_length}, world()),
                             world());
    weights::load(*e.source, session.store(), session.ops());
    session.store().publish_masters();
    return data.validator(world())->run(session.model(), e.patterns);
  };
  CHECK(run(0)[0].by_position.empty());
  const auto scores = run(3);
  const auto each = run(16);
  for (std::size_t p = 0; p < 2; ++p) {
    REQUIRE(scores[p].by_position.size() == 3);
    REQUIRE(each[p].by_position.size() == 16);
    // Parts of 6, 5 and 5 of 16 positions; no position is left out in this text.
    const auto& parts = scores[p].by_position;
    CHECK((6 * parts[0] + 5 * parts[1] + 5 * parts[2]) / 16 == doctest::Approx(scores[p].loss).epsilon(1e-9));
    double first = 0;
    for (std::size_t t = 0; t < 6; ++t) first += each[p].by_position[t] / 6;
    CHECK(parts[0] == doctest::Approx(first).epsilon(1e-9));
    CHECK(each[p].by_position[0] != doctest::Approx(each[p].by_position[9]).epsilon(1e-6));
  }
  CHECK(f.refusal({.parts = 17}).find("--by-position 17: a sequence has 16 tokens") != std::string::npos);
}
