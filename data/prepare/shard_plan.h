// The plan of shards: the documents of each shard, by portion.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"
#include "data/prepare/portion_file.h"

namespace ratplus::data {

/// Documents [begin, end) of a portion's split.
struct PortionSpan {
  std::int64_t portion = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

struct PlannedShard {
  Split split = Split::train;
  ManifestShard entry;
  std::vector<PortionSpan> spans;
};

/// The shards of both splits in order, each closed at the document that reaches `shard_tokens`. Documents in
/// portion-NUMBER-SPLIT.duplicates are left out.
std::vector<PlannedShard> plan_shards(const std::filesystem::path& portions_directory, std::int64_t portions,
                                      std::int64_t shard_tokens, bool leave_out_duplicates);
/// Finds documents whose text an earlier one of the split has, and writes their numbers beside each portion. Returns how
/// many. Memory is bounded: hashes are compared some tens of millions at a time.
std::int64_t find_duplicates(const std::filesystem::path& portions_directory, std::int64_t portions,
                             std::int64_t hashes_at_once = std::int64_t{1} << 25);

void write_plan(const std::filesystem::path& file, const std::vector<PlannedShard>& plan);
std::vector<PlannedShard> read_plan(const std::filesystem::path& file);

/// Writes the shard into `directory`, unless it is there.
void write_shard(const std::filesystem::path& directory, const std::filesystem::path& portions_directory,
                 const PlannedShard& shard, const ShardInfo& shared, int compression,
                 bool leave_out_duplicates);

}  // namespace ratplus::data
