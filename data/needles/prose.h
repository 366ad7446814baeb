// Prose: running text as words, for haystacks and keys.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::data {

/// The words of texts, in their order, parted by white space.
class Prose {
 public:
  /// The bytes of text that are kept at most; what comes later is not read.
  static constexpr std::int64_t most_bytes = std::int64_t{64} << 20;

  Prose() = default;
  explicit Prose(std::string_view text) { add(text); }
  /// Reads .txt, .jsonl (the text under `text_key`) and .parquet files and directories of them (list_text_files). `notes`
  /// gets a line on each input left out. Throws Error where they hold no word.
  static Prose read(const std::vector<std::filesystem::path>& inputs, const std::string& text_key,
                    std::vector<std::string>* notes);

  std::int64_t words() const { return static_cast<std::int64_t>(words_.size()); }
  std::string_view word(std::int64_t i) const;
  /// The `count` words from `first` on, parted by blanks, as sentences: each ends with a word that ends with a full stop, a
  /// question mark or an exclamation mark, quotes and brackets behind it left aside. After the last word comes the first.
  std::vector<std::string> sentences(std::int64_t first, std::int64_t count) const;
  /// Words of 3 to 8 small letters, the most frequent first, without the `skipped` most frequent; `most` at most.
  std::vector<std::string> frequent_words(std::int64_t skipped, std::int64_t most) const;

 private:
  void add(std::string_view text);

  std::string text_;
  struct Word {
    std::uint32_t begin, bytes;
  };
  std::vector<Word> words_;
};

}  // namespace ratplus::data
