// Byte-pair encoding: words of symbols merged by rank (Sennrich, Haddow and Birch, 2016).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace ratplus::data {

/// The merges of a vocabulary: of two neighbouring symbols, those of the lowest rank become one, the leftmost first,
/// until none are left that may.
class Merges {
 public:
  struct Merge {
    std::uint32_t rank = none;
    std::int32_t merged = 0;
    static constexpr std::uint32_t none = UINT32_MAX;
  };

  explicit Merges(std::size_t count);
  /// A pair that is there already gets this rank.
  void add(std::int32_t left, std::int32_t right, const Merge& merge);
  /// The merge of a pair; of rank `none` if it does not merge.
  Merge find(std::int32_t left, std::int32_t right) const;

  /// Merges `symbols` in place. Short words take quadratic, long ones n log n time.
  void apply(std::vector<std::int32_t>& symbols) const;

 private:
  struct Entry {
    std::uint64_t pair = empty;
    Merge merge;
    static constexpr std::uint64_t empty = UINT64_MAX;
  };
  std::size_t slot(std::uint64_t pair) const;
  void apply_short(std::vector<std::int32_t>& symbols) const;
  void apply_long(std::vector<std::int32_t>& symbols) const;

  std::vector<Entry> table_;  ///< open addressing, half empty at least
};

/// A cache of merged words, for one thread: text repeats its words. A word has one place, which holds the last word
/// hashed to it.
class WordCache {
 public:
  WordCache();
  /// Appends the word's ids; false if it is not here.
  bool find(std::string_view word, std::vector<std::int32_t>& out) const;
  void keep(std::string_view word, std::span<const std::int32_t> ids);

 private:
  static constexpr std::size_t slots = std::size_t{1} << 16;
  static constexpr std::size_t max_bytes = 26;
  static constexpr std::size_t max_ids = 9;
  struct Slot {  // a cache line
    std::uint8_t bytes = 0;
    std::uint8_t ids = 0;
    char word[max_bytes] = {};
    std::int32_t id[max_ids] = {};
  };
  static std::size_t slot_of(std::string_view word);

  std::vector<Slot> table_;
};

}  // namespace ratplus::data
