// Supervised samples: prompts and completions to a dataset of fixed-length samples with labels.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset/manifest.h"

namespace ratplus::data {

/// How a prompt and its completion become tokens: as one text, so that the tokens decode to it, or each by its own.
enum class Encode { together, apart };
const char* to_string(Encode encode);
/// Reads what to_string writes; Error with the names that there are for any other.
Encode parse_encode(std::string_view name);

/// What a line that is too long loses: its end, or its middle.
enum class Cut { end, middle };
const char* to_string(Cut cut);
/// Reads what to_string writes; Error with the names that there are for any other.
Cut parse_cut(std::string_view name);

struct SupervisedOptions {
  std::vector<std::filesystem::path> inputs;  ///< JSON lines (list_text_files)
  std::filesystem::path output;
  std::filesystem::path tokenizer;
  std::string end_of_text;  ///< as in PrepareOptions
  std::int64_t length = 0;  ///< T, inputs a sample
  Encode encode = Encode::together;
  Cut cut = Cut::end;
  bool pack = true;  ///< several lines a sample where they fit, in order; else one, padded
  double validation_fraction = 0.05;
  std::int64_t shard_samples = 100'000;
  bool force = false;
};

struct SupervisedResult {
  Manifest manifest;
  std::int64_t lines = 0;
  std::int64_t cut = 0;            ///< lines cut to T positions
  std::int64_t left_out = 0;       ///< lines without a label that counts within T
  std::int64_t repaired = 0;       ///< lines with text replaced by U+FFFD (Document)
  std::string first_repaired;      ///< the first of them: file and line
  std::vector<std::string> notes;  ///< on the inputs (list_text_files), a line each
};

/// A line is {"prompt": "...", "completion": "..."}: its tokens are those of prompt + completion and the end-of-text token.
/// Encode::together: those count that come after the tokens which the prompt alone begins with as well, so that a token
/// across the border counts. Encode::apart: those of the completion and the end-of-text token. Or {"tokens": [...], "labels": [...]}, of one length: labels[i] is
/// tokens[i] where it counts and -100 where it does not. Position t of a sample has token t as input and, if it counts,
/// token t + 1 as its label. Of n tokens before the last and n > T, Cut::end keeps the first T positions; of n >= T Cut::middle
/// keeps the first floor((T - 1) / 2) and the last ones, each with its label, and the last token as an input. `report` gets lines done; what it throws ends the work, and leaves what was there. Throws
/// Error naming file and line.
SupervisedResult prepare_supervised(const SupervisedOptions& options,
                                    const std::function<void(std::int64_t lines)>& report);

}  // namespace ratplus::data
