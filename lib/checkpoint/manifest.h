// The manifest of a checkpoint: manifest.json, written last, with the description of the checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"
#include "lib/checkpoint/stored_type.h"
#include "lib/model/config.h"

namespace ratplus::checkpoint {

/// Version 1 had no checksums, and always float32 weights with the optimizer's state; it is still read. Version 3 adds
/// updates of an unfinished step, and is written only for those.
inline constexpr int format_version = 3;
inline constexpr const char* manifest_name = "manifest.json";

/// The sizes and checksums of a dataset, by which a resumed run recognizes it.
struct DataCounts {
  std::int64_t train_tokens = 0;
  std::int64_t train_documents = 0;
  std::int64_t validation_tokens = 0;
  std::int64_t validation_documents = 0;
  /// data::Manifest::crc32; empty in checkpoints of older versions, and of datasets of older versions.
  std::optional<std::uint32_t> train_crc32 = std::nullopt;
  std::optional<std::uint32_t> validation_crc32 = std::nullopt;

  friend bool operator==(const DataCounts&, const DataCounts&) = default;
};
DataCounts counts_of(const data::Manifest& dataset);

/// A part's file on the disk.
struct PartFile {
  std::int64_t bytes = 0;
  std::uint32_t crc32 = 0;  ///< of all bytes (base/files/crc32.h)

  friend bool operator==(const PartFile&, const PartFile&) = default;
};

/// Measurements of one update of a step, before it.
struct UpdateDone {
  double loss = 0;
  double gradient_norm = 0;
  bool updated = true;  ///< false: the update was left out

  friend bool operator==(const UpdateDone&, const UpdateDone&) = default;
};

/// The description of a checkpoint: its manifest.
struct Info {
  std::filesystem::path directory;
  model::ModelConfig model;
  std::int64_t step = 0;     ///< schedule steps done
  std::int64_t updates = 0;  ///< optimizer updates done (two a step in joint training)
  /// The updates made of step `step` + 1, for a checkpoint of its middle: a resumed run continues after them.
  std::vector<UpdateDone> begun = {};
  /// Updates left out in a row until here, by their number in a step (health.max_skips); empty where none was.
  std::vector<std::int64_t> left_out = {};
  std::int64_t tokens = 0;                        ///< tokens seen, both updates of a step counted once
  std::string job = {};                           ///< the effective job file, TOML; "" = not known
  std::string tokenizer = {};                     ///< identity of the dataset's tokenizer; "" = not known
  std::optional<DataCounts> data = std::nullopt;  ///< of the dataset; absent where it was not recorded
  int parts = 1;                                  ///< writing ranks: part r of every unit is in file_name(r)
  std::vector<PartFile> files = {};               ///< by part; empty in version 1
  StoredType weights_type = StoredType::float32;  ///< of the weights; moments are float32
  bool optimizer = true;  ///< with the optimizer's moments; without: to adapt or evaluate
};

/// The oldest version of the format that can say what there is of this checkpoint: its files are marked with it.
inline int version_of(const Info& info) {
  return info.begun.empty() ? 2 : format_version;
}

/// Reads and checks directory/manifest.json; Error names the file and what is wrong.
Info read_info(const std::filesystem::path& directory);
/// The same from the manifest's text.
Info parse_manifest(const std::string& text, const std::filesystem::path& directory);
/// Writes directory/manifest.json for info, with the units' layouts so that other readers find every parameter.
/// Messages name info.directory, which `directory` is to become.
void write_manifest(const std::filesystem::path& directory, const Info& info);

/// Throws Error unless `dataset` has the sizes, and as far as both are known the checksums, of the one that the checkpoint
/// was trained on: sequences are found by their number, so that on other data a resumed run would repeat or miss some.
/// False where the sizes alone could be compared.
bool check_same_data(const Info& info, const data::Manifest& dataset);

/// Throws Error, which names both, where the checkpoint was trained on tokens of another tokenizer than those of `dataset` in
/// `directory`. A checkpoint that does not name its tokenizer is taken to fit.
void check_same_tokenizer(const Info& info, const std::filesystem::path& directory,
                          const data::Manifest& dataset);

}  // namespace ratplus::checkpoint
