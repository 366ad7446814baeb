// NeedleMaker: samples of one task, each a function of seed, subset and its number.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/needles/needle_task.h"
#include "data/needles/prose.h"
#include "data/tokenizer/tokenizer.h"

namespace ratplus::data {

/// RULER's sentences, or fewer words: the question begins as the needle does ("The number of river is"), and the answer is what
/// follows there, with its blank.
enum class NeedleWording { ruler, brief };
const char* to_string(NeedleWording wording);
/// Throws Error with the names that there are for any other.
NeedleWording parse_needle_wording(std::string_view name);

struct NeedleSettings {
  std::int64_t length = 4096;        ///< tokens of prompt, answer prefix and answer at most
  std::int64_t answer_tokens = 128;  ///< kept free for the answer
  std::int64_t digits = 7;           ///< of numbers
  NeedleWording wording = NeedleWording::ruler;
  std::int64_t questions = 1;  ///< of a sample at most; those after the first for training alone
  bool same_prose = false;     ///< every essay begins with the prose's first word, as RULER's do
  std::uint64_t seed = 42;
  std::string subset = "validation";  ///< samples of two subsets differ, whatever their seeds
};

/// The words that keys and values consist of.
struct KeyWords {
  std::vector<std::string> first;  ///< "adjective" of "adjective-noun"; empty: the second word alone
  std::vector<std::string> second;
};

struct NeedleQuestion {
  std::string text;                  ///< with its line end before it
  std::vector<std::string> outputs;  ///< in the order of the question
  std::string completion;            ///< of the outputs: "a,b", or " a, b" with NeedleWording::brief
};

struct NeedleSample {
  std::string input;          ///< ends with the first question
  std::string answer_prefix;  ///< the beginning of an answer, RULER's alone
  std::vector<NeedleQuestion> questions;
  std::int64_t keys = 0;  ///< in the text
  std::int64_t length =
      0;  ///< tokens of input, answer prefix, further questions and answers, and answer_tokens
  std::size_t answer_at = 0;  ///< the byte of input where the first output is
};

class NeedleMaker {
 public:
  /// Finds the size of the haystack. Prose is needed for Haystack::essay, words for NeedleKind::words; all outlive it. Throws
  /// Error where the length has no room for a sample.
  NeedleMaker(const NeedleTask& task, const NeedleSettings& settings, const Tokenizer& tokenizer,
              const Prose& prose, const KeyWords& words);

  const NeedleTask& task() const { return task_; }
  /// Words, lines or needles of the text around, at most.
  std::int64_t haystack() const { return haystack_; }
  /// Sample `number` from 0. Thread-safe.
  NeedleSample make(std::int64_t number) const;
  std::int64_t tokens(std::string_view text) const;

 private:
  class Draws;

  NeedleSample draw(Draws& draws, std::int64_t haystack) const;
  std::string value(Draws& draws, NeedleKind kind) const;
  std::string needle(const std::string& key, const std::string& value) const;
  NeedleQuestion question(const std::vector<std::string>& keys, std::vector<std::string> outputs) const;
  void check() const;
  void find_haystack();
  std::int64_t least_haystack() const;
  std::int64_t step() const;

  NeedleTask task_;
  NeedleSettings settings_;
  const Tokenizer& tokenizer_;
  const Prose& prose_;
  const KeyWords& words_;
  std::int64_t haystack_ = 0;
};

}  // namespace ratplus::data
