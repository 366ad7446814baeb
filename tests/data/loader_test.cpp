#include "data/samples/loader.h"

#include <doctest/doctest.h>

#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::Scratch;

namespace {

constexpr std::int64_t sequence_length = 7;

/// A stream of 200 tokens in three shards, and loaders on it.
struct Dataset {
  Dataset() : manifest(test::write_counting_dataset(scratch.path(), {{30, 40}, {1, 9, 50}, {70}})) {}

  std::unique_ptr<Samples> samples(Sampling sampling) const {
    const std::vector<SampleSource> source{{scratch.path(), 1, manifest}};
    return std::make_unique<StreamSamples>(
        source,
        StreamSamples::Settings{
            .split = Split::train, .sampling = sampling, .sequence_length = sequence_length, .seed = 11});
  }

  Loader loader(Sampling sampling, BatchShape shape, std::int64_t first, std::int64_t last,
                int depth = 2) const {
    return {samples(sampling),
            shape,
            first,
            last,
            depth,
            {.times = 2, .first_wait = std::chrono::milliseconds(1)}};
  }

  Scratch scratch;
  Manifest manifest;
};

using Sequence = std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>>;  // inputs, labels

Sequence sequence(const StepBatch& batch, std::int64_t index) {
  const auto cut = [&](const std::vector<std::int32_t>& from) {
    return std::vector<std::int32_t>(from.begin() + index * sequence_length,
                                     from.begin() + (index + 1) * sequence_length);
  };
  return {cut(batch.inputs), cut(batch.labels)};
}

}  // namespace

TEST_CASE("loader: labels are the next tokens, but for those after an end of text") {
  const Dataset data;
  TokenStream stream(data.scratch.path(), data.manifest, Split::train);
  const BatchShape shape{.batch = 4, .micro_batch = 2, .sequence_length = sequence_length};
  Loader loader = data.loader(Sampling::ordered, shape, 0, 20);
  std::int64_t left_out = 0;
  for (std::int64_t step = 0; step < 20; ++step) {
    const StepBatch& batch = loader.next();
    CHECK(batch.step == step);
    REQUIRE(std::ssize(batch.inputs) == 4 * sequence_length);
    std::int64_t counted = 0;
    for (std::int64_t j = 0; j < 4; ++j) {
      std::vector<std::int32_t> tokens(sequence_length + 1);
      stream.read((step * 4 + j) % 28 * sequence_length, tokens);  // 199 / 7 = 28 sequences in a pass
      for (std::size_t t = 0; t < sequence_length; ++t) {
        const std::size_t at = static_cast<std::size_t>(j) * sequence_length + t;
        CHECK(batch.inputs[at] == tokens[t]);
        CHECK(batch.labels[at] == (tokens[t] == 2 ? -1 : tokens[t + 1]));
        counted += tokens[t] != 2;
      }
    }
    CHECK(batch.counted == counted);
    left_out += 4 * sequence_length - counted;
  }
  CHECK(left_out > 5);
  CHECK_THROWS_AS(loader.next(), std::logic_error);
}

TEST_CASE("loader: the ranks' shares together are the one rank's batch") {
  const Dataset data;
  for (const Sampling sampling : {Sampling::ordered, Sampling::random, Sampling::shuffled}) {
    Loader whole =
        data.loader(sampling, {.batch = 12, .micro_batch = 12, .sequence_length = sequence_length}, 0, 5);
    std::vector<std::map<std::int64_t, Sequence>> expected(5);
    std::vector<std::int64_t> counted(5);
    for (std::size_t step = 0; step < 5; ++step) {
      const StepBatch& batch = whole.next();
      counted[step] = batch.counted;
      for (std::int64_t i = 0; i < 12; ++i) expected[step][i] = sequence(batch, i);
    }
    for (const int ranks : {1, 2, 3}) {
      for (const std::int64_t micro_batch : {1, 2}) {
        std::vector<std::map<std::int64_t, Sequence>> got(5);
        std::vector<std::int64_t> got_counted(5, 0);
        for (int rank = 0; rank < ranks; ++rank) {
          const BatchShape shape{.batch = 12,
                                 .micro_batch = micro_batch,
                                 .sequence_length = sequence_length,
                                 .ranks = ranks,
                                 .rank = rank};
          Loader loader = data.loader(sampling, shape, 0, 5, 1);
          for (std::size_t step = 0; step < 5; ++step) {
            const StepBatch& batch = loader.next();
            got_counted[step] += batch.counted;
            for (std::int64_t m = 0; m < shape.micro_batches(); ++m) {
              for (std::int64_t j = 0; j < micro_batch; ++j) {
                got[step][(m * ranks + rank) * micro_batch + j] = sequence(batch, m * micro_batch + j);
              }
            }
          }
        }
        CHECK(got == expected);
        CHECK(got_counted == counted);
      }
    }
  }
}

TEST_CASE("loader: starting in the middle gives what an uninterrupted one gives") {
  const Dataset data;
  const BatchShape shape{
      .batch = 6, .micro_batch = 1, .sequence_length = sequence_length, .ranks = 2, .rank = 1};
  Loader whole = data.loader(Sampling::random, shape, 0, 12, 3);
  Loader resumed = data.loader(Sampling::random, shape, 7, 12, 1);
  for (int step = 0; step < 7; ++step) whole.next();
  for (int step = 7; step < 12; ++step) {
    const StepBatch& a = whole.next();
    const StepBatch& b = resumed.next();
    CHECK(a.step == step);
    CHECK(b.step == step);
    CHECK(a.inputs == b.inputs);
    CHECK(a.labels == b.labels);
  }
}

TEST_CASE("loader: a batch stays as it is until the next call, and buffers go round") {
  const Dataset data;
  Loader loader = data.loader(Sampling::ordered,
                              {.batch = 2, .micro_batch = 2, .sequence_length = sequence_length}, 0, 50, 2);
  std::map<const std::int32_t*, int> buffers;
  for (int step = 0; step < 50; ++step) {
    const StepBatch& batch = loader.next();
    const auto copy = batch.inputs;
    ++buffers[batch.inputs.data()];
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(batch.inputs == copy);
  }
  CHECK(buffers.size() <= 3);  // depth + the one being used
  CHECK(loader.wait_seconds() >= 0);
}

TEST_CASE("loader: what the thread meets is thrown by the step that needs it") {
  const Dataset data;
  std::filesystem::remove(data.scratch / "train-1.h5");  // tokens 70 to 129
  Loader loader = data.loader(Sampling::ordered,
                              {.batch = 1, .micro_batch = 1, .sequence_length = sequence_length}, 0, 20, 4);
  for (int step = 0; step < 9; ++step) CHECK(loader.next().step == step);  // up to token 63
  CHECK(contains(message_of([&] { loader.next(); }), "train-1.h5: no such file (sample 9 was tried 3 times"));
  CHECK(contains(message_of([&] { loader.next(); }), "train-1.h5: no such file"));
}

TEST_CASE("loader: a shard that comes back while it is tried again is read") {
  const Dataset data;
  const auto shard = data.scratch / "train-1.h5";
  const auto away = data.scratch / "away.h5";
  std::filesystem::rename(shard, away);
  const BatchShape shape{.batch = 1, .micro_batch = 1, .sequence_length = sequence_length};
  Loader loader(data.samples(Sampling::ordered), shape, 0, 20, 4,
                {.times = 8, .first_wait = std::chrono::milliseconds(5)});
  for (int step = 0; step < 9; ++step) loader.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::filesystem::rename(away, shard);
  for (int step = 9; step < 20; ++step) CHECK(loader.next().step == step);
}

TEST_CASE("loader: its end cuts the waiting for a shard short") {
  const Dataset data;
  std::filesystem::remove(data.scratch / "train-0.h5");
  const auto began = std::chrono::steady_clock::now();
  {
    Loader loader(data.samples(Sampling::ordered),
                  {.batch = 1, .micro_batch = 1, .sequence_length = sequence_length}, 0, 20, 4,
                  {.times = 3, .first_wait = std::chrono::seconds(30)});
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  CHECK(std::chrono::steady_clock::now() - began < std::chrono::seconds(10));
}

TEST_CASE("loader: several sources, each in its own order, and the same samples for any number of ranks") {
  const Dataset a;
  const Dataset b;
  const auto loader = [&](Sampling sampling, int ranks, int rank) {
    const std::vector<SampleSource> sources{{a.scratch.path(), 2, a.manifest},
                                            {b.scratch.path(), 1, b.manifest}};
    auto samples = std::make_unique<StreamSamples>(
        sources,
        StreamSamples::Settings{
            .split = Split::train, .sampling = sampling, .sequence_length = sequence_length, .seed = 4});
    return Loader(
        std::move(samples),
        {.batch = 12, .micro_batch = 2, .sequence_length = sequence_length, .ranks = ranks, .rank = rank}, 0,
        10, 2);
  };
  for (const Sampling sampling : {Sampling::ordered, Sampling::random, Sampling::shuffled}) {
    std::vector<std::multiset<std::vector<std::int32_t>>> seen;
    for (const int ranks : {1, 2, 3}) {
      std::multiset<std::vector<std::int32_t>> sequences;
      for (int rank = 0; rank < ranks; ++rank) {
        Loader one = loader(sampling, ranks, rank);
        for (int step = 0; step < 10; ++step) {
          const StepBatch& batch = one.next();
          for (std::int64_t i = 0; i < std::ssize(batch.inputs) / sequence_length; ++i)
            sequences.insert(sequence(batch, i).first);
        }
      }
      seen.push_back(std::move(sequences));
    }
    CHECK(seen[0].size() == 120);
    CHECK(seen[0] == seen[1]);
    CHECK(seen[0] == seen[2]);
  }
  Manifest other = b.manifest;
  other.tokenizer = "another";
  const std::vector<SampleSource> unlike{{"data/a", 1, a.manifest}, {"data/b", 1, other}};
  CHECK(contains(message_of([&] { StreamSamples(unlike, {.sequence_length = sequence_length}); }),
                 "data/a and data/b cannot be mixed: their tokenizers differ"));
}

TEST_CASE("samples: a spread of them lies over all shards, and a spread of more than there are is all") {
  const Dataset data;
  constexpr std::int64_t all = (200 - 1) / sequence_length;  // 28
  std::vector<std::int32_t> inputs(sequence_length), labels(sequence_length);
  std::vector<std::int32_t> expected(sequence_length), expected_labels(sequence_length);
  const auto ordered = data.samples(Sampling::ordered);
  for (const std::int64_t most : {1, 3, 10, 27, 28, 1000}) {
    CAPTURE(most);
    const auto samples = data.samples(Sampling::ordered);
    const std::int64_t count = samples->spread(most);
    CHECK(count == std::min(most, all));
    for (std::int64_t i = count - 1; i >= 0; --i) {  // in any order
      CHECK(samples->read(i, inputs, labels) == ordered->read(i * all / count, expected, expected_labels));
      CHECK(inputs == expected);
      CHECK(labels == expected_labels);
      CHECK(samples->origin(i).first == i * all / count * sequence_length);
    }
  }
}

TEST_CASE("loader: it can be destroyed at any moment") {
  const Dataset data;
  for (int round = 0; round < 60; ++round) {
    Loader loader =
        data.loader(Sampling::random, {.batch = 8, .micro_batch = 1, .sequence_length = sequence_length}, 0,
                    1'000'000, 1 + round % 3);
    for (int step = 0; step < round % 4; ++step) loader.next();
    if (round % 5 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // full queue, waiting thread
  }
  // No steps at all.
  Loader none = data.loader(Sampling::ordered,
                            {.batch = 1, .micro_batch = 1, .sequence_length = sequence_length}, 3, 3);
  CHECK_THROWS_AS(none.next(), std::logic_error);
}

TEST_CASE("loader: a batch that the ranks cannot share is refused") {
  const Dataset data;
  CHECK_THROWS_AS(data.loader(Sampling::ordered,
                              {.batch = 6, .micro_batch = 4, .sequence_length = sequence_length}, 0, 1),
                  std::logic_error);
}
