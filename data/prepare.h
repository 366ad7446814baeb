// prepare: text to a tokenizer and a dataset of token shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/manifest.h"

namespace ratplus::data {

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;       ///< .txt and .jsonl files, or directories of them
  std::filesystem::path output;                    ///< the dataset's directory
  std::optional<std::filesystem::path> tokenizer;  ///< a model to use ...
  std::int64_t train_vocab_size = 0;               ///< ... or the size of one to train on the input (0: none)
  std::string text_key = "text";                   ///< JSON lines: where the text is
  double validation_fraction = 0.005;              ///< of the documents, chosen by a hash of their text
  std::int64_t shard_tokens = 100'000'000;         ///< a shard is closed at the document that reaches this
  int compression = 0;                             ///< gzip level of the shards, 0 = none
  bool force = false;                              ///< replace another dataset in `output`
  int threads = 0;  ///< 0 = all that OpenMP gives; the result does not depend on it
};

struct PrepareProgress {
  std::string phase;  ///< "read text for the tokenizer", "train the tokenizer", "tokenize"
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;  ///< 0: unknown how far the phase has come
  double seconds = 0;            ///< since the phase began
};

struct PrepareResult {
  Manifest manifest;
  bool already_there = false;       ///< the directory held this very dataset, and nothing was done
  std::int64_t repaired = 0;        ///< ill-formed UTF-8 sequences, each replaced by U+FFFD
  std::int64_t left_out_empty = 0;  ///< documents without text
};

/// Writes tokenizer.model, train-*.h5, validation-*.h5 and, last of all, the manifest; what fails or is
/// interrupted (by an exception out of `report`, which is called a few times a second) leaves nothing. A
/// directory that holds the dataset of the same inputs and options is left as it is; one that holds another
/// is an Error unless options.force. Throws Error naming the input (file and line) or the output.
PrepareResult prepare(const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& report);

}  // namespace ratplus::data
