// Samples: what a loader reads, by number.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "data/dataset/sample_source.h"
#include "data/dataset/token_stream.h"
#include "data/samples/mixture.h"
#include "data/samples/sampler.h"
#include "data/samples/spread.h"

namespace ratplus::data {

/// Training samples, each of T inputs and their labels. Sample `index` depends on the index alone, whoever
/// reads it and whatever was read before. One reader thread.
class Samples {
 public:
  virtual ~Samples() = default;
  /// Inputs a sample, T.
  virtual std::int64_t length() const = 0;
  /// Sample `index` into inputs [T] and labels [T]; a negative label is left out. Returns the number that count. Throws
  /// Error naming the file that cannot be read; another call may succeed then.
  virtual std::int64_t read(std::int64_t index, std::span<std::int32_t> inputs,
                            std::span<std::int32_t> labels) = 0;
  /// The origin of sample `index`, for messages.
  struct Origin {
    std::filesystem::path source;  ///< a dataset's directory
    std::int64_t first = 0;        ///< token of its split; of samples with labels, its number there
  };
  virtual Origin origin(std::int64_t index) = 0;
  /// Spreads the samples from the first on evenly over all of each source (Spread): as many as there are, `most` at most, none
  /// of them twice. Returns their number; a later index is not to be read. For ordered and shuffled samplings.
  virtual std::int64_t spread(std::int64_t most) = 0;
};

/// Sequences of T + 1 tokens of one split of one or several sources, mixed by their weights.
class StreamSamples : public Samples {
 public:
  struct Settings {
    Split split = Split::train;
    Sampling sampling = Sampling::ordered;
    std::int64_t sequence_length = 1;  ///< T
    std::uint64_t seed = 1;
  };
  /// Throws Error naming a source whose split holds no sequence, or whose tokenizer is another one.
  StreamSamples(const std::vector<SampleSource>& sources, const Settings& settings);

  std::int64_t length() const override { return settings_.sequence_length; }
  std::int64_t read(std::int64_t index, std::span<std::int32_t> inputs,
                    std::span<std::int32_t> labels) override;
  Origin origin(std::int64_t index) override;
  std::int64_t spread(std::int64_t most) override;

 private:
  Settings settings_;
  std::int32_t end_of_text_;
  Mixture mixture_;
  Spread spread_;
  std::vector<std::filesystem::path> directories_;  ///< of the sources, as the streams and samplers are
  std::vector<TokenStream> streams_;
  std::vector<Sampler> samplers_;
  std::vector<std::int32_t> tokens_;  ///< [T + 1]
};

}  // namespace ratplus::data
