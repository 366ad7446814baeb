// prepare: text to a tokenizer and a dataset of token shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"

namespace ratplus::data {

struct PrepareOptions {
  std::vector<std::filesystem::path> inputs;       ///< files, directories and patterns (list_text_files)
  std::filesystem::path output;                    ///< the dataset's directory
  std::optional<std::filesystem::path> tokenizer;  ///< a model to use ...
  std::int64_t train_vocab_size = 0;               ///< ... or the size of one to train on the input (0: none)
  std::string end_of_text;                         ///< the token that ends a text; empty: the tokenizer's own
  std::string text_key = "text";                   ///< JSON lines: where the text is; Parquet: its column
  double validation_fraction = 0.005;              ///< of the documents, chosen by a hash of their text
  bool deduplicate = false;                        ///< of documents with the same text, only the first stays
  std::int64_t shard_tokens = 100'000'000;         ///< a shard is closed at the document that reaches this
  int compression = 0;                             ///< gzip level of the shards, 0 = none
  bool force = false;                              ///< replace another dataset in `output`
  int threads = 0;                 ///< a process, 0 = all that OpenMP gives; the result does not depend on it
  std::int64_t portion_bytes = 0;  ///< of input that is done as a whole, 0 = by the input; nor on this
};

struct PrepareProgress {
  std::string phase;  ///< "read text for the tokenizer", "train the tokenizer", "tokenize", "write shards"
  std::int64_t documents = 0;  ///< in this call, of all processes as last reported
  std::int64_t tokens = 0;     ///< the same
  std::int64_t bytes_done = 0;
  std::int64_t bytes_before = 0;  ///< of them, done by earlier calls
  std::int64_t bytes_total = 0;   ///< 0: unknown how far the phase has come
  double seconds = 0;             ///< since the phase began
};

struct PrepareResult {
  Manifest manifest;
  bool already_there = false;           ///< the directory held this very dataset, and nothing was done
  std::int64_t repaired = 0;            ///< documents with text replaced by U+FFFD (Document)
  std::string first_repaired = {};      ///< the first of them: file and line
  std::int64_t left_out_empty = 0;      ///< documents without text
  std::int64_t duplicates = 0;          ///< documents left out because another has the same text
  std::vector<std::string> notes = {};  ///< on the inputs (list_text_files), a line each
};

/// The processes that share the work, on one file system.
struct Team {
  int rank = 0;
  int size = 1;
  /// Runs f on every process and waits for all; throws on all what it throws on one.
  std::function<void(const std::function<void()>&)> agree = [](const std::function<void()>& f) { f(); };
  /// What f returns on process 0, on every process; throws on all what it throws there.
  std::function<std::string(const std::function<std::string()>&)> from_root =
      [](const std::function<std::string()>& f) { return f(); };
};

/// Writes tokenizer.model (or .json), train-*.h5, validation-*.h5 and, last of all, the manifest. What fails or is
/// interrupted (by an exception out of `report`, which is called a few times a second) leaves no dataset, but the
/// finished portions in `output`/.prepare, where the next call with the same options continues; an older dataset stays until
/// then. A directory that holds the dataset of the same inputs and options is left as it is; one that holds another is
/// an Error unless options.force. Throws Error naming the input (file and line) or the output; what one process of a team
/// meets in the long steps, it throws alone, and the others are to be ended.
PrepareResult prepare(const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& report, const Team& team = {});

}  // namespace ratplus::data
