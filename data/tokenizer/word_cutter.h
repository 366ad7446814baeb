// The stages of a tokenizer.json before its model: normalizing text, and cutting it into words.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::data {

/// Changes a text as a whole.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(std::string& text) const = 0;
};

/// Cuts a text into words. A stage may change a word (put a blank before it).
class WordCutter {
 public:
  using Emit = std::function<void(std::string_view)>;
  virtual ~WordCutter() = default;
  /// `at_start`: the text is the document's beginning.
  virtual void cut(std::string_view text, bool at_start, const Emit& emit) const = 0;
  /// Whether the words' bytes are to be spelt in the byte-level alphabet.
  virtual bool byte_level() const { return false; }
};

/// From "normalizer" and "pre_tokenizer"; null where the file has none. Throw Error naming what is not implemented.
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& json, const std::string& file);
std::unique_ptr<WordCutter> make_word_cutter(const nlohmann::json& json, const std::string& file);

}  // namespace ratplus::data
