// Needles as files: in RULER's format, as requests for `ratplus generate`, and as lines for `ratplus samples`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/needles/needle_maker.h"

namespace ratplus::data {

/// ruler: OUTPUT/TASK/SUBSET.jsonl, as RULER's client reads. requests: lines of `ratplus generate`, task after task. samples:
/// lines of `ratplus samples`, a task after the other.
enum class NeedleFormat { ruler, requests, samples };
const char* to_string(NeedleFormat format);
/// Throws Error with the names that there are for any other.
NeedleFormat parse_needle_format(std::string_view name);

struct NeedleOptions {
  std::vector<std::filesystem::path> prose;  ///< list_text_files
  std::string text_key = "text";
  std::filesystem::path output;  ///< a directory for NeedleFormat::ruler, else a file
  std::filesystem::path tokenizer;
  std::string end_of_text;  ///< as in PrepareOptions
  std::vector<NeedleTask> tasks;
  NeedleFormat format = NeedleFormat::requests;
  std::int64_t samples = 500;               ///< of each task
  std::int64_t key_words = 2;               ///< words of a key
  std::filesystem::path adjectives, nouns;  ///< a word a line; empty: frequent words of the prose
  bool answer_prefix = false;               ///< whether RULER's beginning of an answer is given
  bool force = false;
  NeedleSettings settings;
};

struct NeedleResult {
  struct Task {
    std::string name;
    std::int64_t samples = 0;
    std::int64_t haystack = 0;               ///< NeedleMaker::haystack
    std::int64_t shortest = 0, longest = 0;  ///< tokens of a sample, answer_tokens included
  };
  std::vector<Task> tasks;
  std::vector<std::filesystem::path> files;
  std::vector<std::string> notes;  ///< on the inputs (list_text_files), a line each
};

/// Writes `samples` samples of each task, on all threads of OpenMP; the files appear whole. Their bytes are a function of
/// the options and the prose. docs/ruler.md describes the lines. `report` gets samples done; what it throws ends the work.
/// Throws Error where an option is wrong, an output is there (unless `force`), or cannot be written.
NeedleResult write_needles(const NeedleOptions& options,
                           const std::function<void(std::int64_t samples)>& report);

}  // namespace ratplus::data
