// ShardSeries: the shards of a split, filled one after another.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/dataset/manifest.h"
#include "data/dataset/sample_shard.h"
#include "data/dataset/shard.h"

namespace ratplus::data {

// Traits of a kind of shard: its elements, and its entry in the manifest.
inline std::int64_t filled(const ShardWriter& shard) {
  return shard.tokens();
}
inline std::int64_t filled(const SampleShardWriter& shard) {
  return shard.samples();
}
inline ManifestShard manifest_entry(std::string file, const ShardInfo& shard) {
  return {std::move(file), shard.tokens, shard.documents, shard.crc32};
}
inline ManifestShard manifest_entry(std::string file, const SampleShardInfo& shard) {
  return {std::move(file), shard.samples * shard.length, shard.samples, shard.crc32};
}

/// Writer is a ShardWriter or a SampleShardWriter.
template <typename Writer>
class ShardSeries {
 public:
  using Begin = std::function<Writer(const std::filesystem::path& file)>;

  /// A shard is full with what makes it `full` tokens or samples, or more.
  ShardSeries(std::filesystem::path directory, Split split, std::int64_t full, Begin begin)
      : directory_(std::move(directory)), split_(split), full_(full), begin_(std::move(begin)) {}

  /// Calls write(shard), which adds one thing, for the shard that is being filled, or a new one.
  template <typename Write>
  void add(const Write& write) {
    if (!shard_) {
      name_ = shard_name(split_, std::ssize(written_));
      shard_.emplace(begin_(directory_ / name_));
    }
    write(*shard_);
    if (filled(*shard_) >= full_) complete();
  }
  /// All shards; the last one may not be full.
  std::vector<ManifestShard> finish() {
    if (shard_) complete();
    return std::move(written_);
  }

 private:
  void complete() {
    written_.push_back(manifest_entry(name_, shard_->finish()));
    shard_.reset();
  }

  const std::filesystem::path directory_;
  const Split split_;
  const std::int64_t full_;
  const Begin begin_;
  std::string name_;
  std::optional<Writer> shard_;
  std::vector<ManifestShard> written_;
};

}  // namespace ratplus::data
