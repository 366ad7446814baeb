// SupervisedSamples: the samples with labels of one or several datasets, by number.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/files/file_watch.h"
#include "data/dataset/sample_shard.h"
#include "data/dataset/sample_source.h"
#include "data/samples/mixture.h"
#include "data/samples/permutation.h"
#include "data/samples/samples.h"
#include "data/samples/spread.h"

namespace ratplus::data {

/// ordered: in their order, around again. shuffled: each once a pass, another order in each pass. random: drawn uniformly.
class SupervisedSamples : public Samples {
 public:
  /// Throws Error naming a source without samples of this length.
  SupervisedSamples(const std::vector<SampleSource>& sources, const StreamSamples::Settings& settings);

  std::int64_t length() const override { return settings_.sequence_length; }
  std::int64_t read(std::int64_t index, std::span<std::int32_t> inputs,
                    std::span<std::int32_t> labels) override;
  Origin origin(std::int64_t index) override;
  std::int64_t spread(std::int64_t most) override;

  /// Opens every shard of both splits, so that a missing or another file is found before the first step.
  static void check_all(const SampleSource& source);

 private:
  struct Part {
    SampleSource source;
    std::vector<std::int64_t> starts;  ///< first sample of each shard, and the number of all
    Permutation order;
    std::map<std::size_t, SampleShardReader> open;
    std::vector<FileWatch> watches;  ///< of all shards
  };
  std::int64_t number_of(const Part& part, std::int64_t index, std::uint32_t number) const;
  SampleShardReader& shard(Part& part, std::size_t index) const;

  StreamSamples::Settings settings_;
  Mixture mixture_;
  Spread spread_;
  std::vector<Part> parts_;
};

}  // namespace ratplus::data
