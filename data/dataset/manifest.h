// Manifest: the shards of a prepared dataset, by split (dataset.json in the dataset's directory).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset/shard.h"

namespace ratplus::data {

enum class Split { train, validation };
const char* to_string(Split split);
/// Reads what to_string writes; Error with the names that there are for any other.
Split parse_split(std::string_view name);

/// "train-00012.h5".
std::string shard_name(Split split, std::int64_t number);

struct ManifestShard {
  std::string file;  ///< relative to the dataset's directory
  std::int64_t tokens = 0;
  std::int64_t documents = 0;
  std::optional<std::uint32_t> crc32 = std::nullopt;  ///< as ShardInfo and SampleShardInfo have it
};

struct Manifest {
  std::int64_t vocab_size = 0;
  std::int64_t end_of_text = 0;
  std::string tokenizer;       ///< identity, as in ShardInfo
  std::string tokenizer_file;  ///< the model beside the shards, relative; empty if unknown
  std::string source;          ///< fingerprint of the inputs and options it was prepared from
  /// T of samples with labels (`documents` counts samples); 0: streams of tokens.
  std::int64_t sample_length = 0;
  /// How prompts and completions were encoded: "together" or "apart"; empty where it does not apply or is not known.
  std::string encode = {};
  std::vector<ManifestShard> train = {};
  std::vector<ManifestShard> validation = {};

  const std::vector<ManifestShard>& shards(Split split) const {
    return split == Split::train ? train : validation;
  }
  std::int64_t tokens(Split split) const;
  std::int64_t documents(Split split) const;
  /// CRC-32 of a split as one stream, however it is cut into shards (ShardInfo::crc32); empty where one of its shards
  /// has none, as those of older versions of this program.
  std::optional<std::uint32_t> crc32(Split split) const;
};

inline constexpr const char* manifest_name = "dataset.json";
/// In a dataset's directory: the files of the dataset that is being replaced, until its successor's manifest is in place.
constexpr const char* replaced_dataset_name = ".replaced-dataset";

/// Throws Error naming the file and what is wrong with it (missing, not JSON, a key, a version).
Manifest read_manifest(const std::filesystem::path& dataset_directory);
/// Written beside and renamed.
void write_manifest(const std::filesystem::path& dataset_directory, const Manifest& manifest);

}  // namespace ratplus::data
