// The manifest of a checkpoint: manifest.json, written last, with what the checkpoint says of itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "data/manifest.h"
#include "lib/model/config.h"

namespace ratplus::checkpoint {

inline constexpr int format_version = 1;
inline constexpr const char* manifest_name = "manifest.json";

/// The sizes of a dataset, by which a resumed run knows it again.
struct DataCounts {
  std::int64_t train_tokens = 0;
  std::int64_t train_documents = 0;
  std::int64_t validation_tokens = 0;
  std::int64_t validation_documents = 0;

  friend bool operator==(const DataCounts&, const DataCounts&) = default;
};
DataCounts counts_of(const data::Manifest& dataset);

/// What a checkpoint says of itself.
struct Info {
  std::filesystem::path directory;
  model::ModelConfig model;
  std::int64_t step = 0;                          ///< schedule steps done
  std::int64_t updates = 0;                       ///< optimizer updates done (two a step in joint training)
  std::int64_t tokens = 0;                        ///< tokens seen, both halves of a step counted once
  std::string job = {};                           ///< the effective job file, TOML
  std::string tokenizer = {};                     ///< identity of the dataset's tokenizer
  std::optional<DataCounts> data = std::nullopt;  ///< of the dataset; absent where it was not recorded
  int parts = 1;                                  ///< writing ranks: part r of every unit is in file_name(r)
};

/// Reads and checks directory/manifest.json; Error names the file and what is wrong.
Info read_info(const std::filesystem::path& directory);
/// Writes directory/manifest.json for info, with the units' layouts so that other readers find every parameter.
/// Messages name info.directory, which `directory` is to become.
void write_manifest(const std::filesystem::path& directory, const Info& info);

/// Throws Error unless `dataset` has the sizes of the one that the checkpoint was trained on: windows are found
/// by their number, so that on other data a resumed run would repeat or miss some.
void check_same_data(const Info& info, const data::Manifest& dataset);

}  // namespace ratplus::checkpoint
