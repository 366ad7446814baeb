// Token streams that are there already, to a dataset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"

namespace ratplus::data {

struct ImportOptions {
  std::vector<std::filesystem::path> train;  ///< raw .bin files of unsigned integers, or HDF5 files, in order
  std::vector<std::filesystem::path> validation;  ///< the same; empty: held out of `train`
  std::filesystem::path output;
  std::filesystem::path tokenizer;   ///< what the tokens were made with; empty: not known
  std::string end_of_text;           ///< as in PrepareOptions
  std::int64_t vocab_size = 0;       ///< without a tokenizer
  std::int64_t end_of_text_id = -1;  ///< without a tokenizer
  int bin_bytes = 0;    ///< of a token in .bin files, little-endian: 2, 4 or 8; 0: not stated, so 2
  std::string dataset;  ///< in HDF5 files; empty: the only one
  double validation_fraction = 0.005;
  std::int64_t shard_tokens = 100'000'000;
  bool force = false;
};

struct ImportProgress {
  std::int64_t tokens = 0;
  std::int64_t tokens_total = 0;
};

struct ImportResult {
  Manifest manifest;
  std::vector<std::string> warnings;  ///< what is odd about the streams
};

/// The streams as they are, token for token, cut into documents after each end-of-text token; a last document without
/// one gets it. `report` may throw, which ends the work; what fails leaves nothing new, and the dataset that was to be
/// replaced as it was. Throws Error naming the file and the place of a token outside the vocabulary, or a file that is no
/// stream of tokens (open_tokens).
ImportResult import_tokens(const ImportOptions& options,
                           const std::function<void(const ImportProgress&)>& report);

}  // namespace ratplus::data
