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
  std::vector<std::filesystem::path> inputs;        ///< .txt and .jsonl files, or directories of them
  std::filesystem::path output;                     ///< the dataset's directory
  std::optional<std::filesystem::path> tokenizer;  ///< a model to use ...
  std::int64_t train_vocab_size = 0;                ///< ... or the size of one to train on the input (0: none)
  std::string text_key = "text";                    ///< JSON lines: where the text is
  double validation_fraction = 0.005;               ///< of the documents, chosen by a hash of their text
  std::int64_t shard_tokens = 100'000'000;          ///< a shard is closed at the document that reaches this
  int compression = 0;
};

struct PrepareProgress {
  std::string phase;  ///< "train tokenizer", "tokenize"
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
  double seconds = 0;
};

/// Writes tokenizer.model, train-*.h5, validation-*.h5 and, last of all, the manifest; what is interrupted has no
/// manifest. Throws Error naming the input (file and line) or the output.
Manifest prepare(const PrepareOptions& options, const std::function<void(const PrepareProgress&)>& report);

}  // namespace ratplus::data
