// Prefixes: the snapshots of an engine's caches, by the tokens of the prompts that begin so. The one that was not used for
// the longest time makes room for another.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "lib/infer/caches.h"

namespace ratplus::infer {

/// A prompt in blocks of prompt_cut tokens: of each full block a hash of all tokens up to its end.
struct PromptBlocks {
  PromptBlocks() = default;
  explicit PromptBlocks(std::span<const std::int32_t> tokens);

  std::vector<std::uint64_t> hashes = {};

  /// Tokens of the blocks in which both begin alike.
  std::int64_t common(const PromptBlocks& other) const;
};

class Prefixes {
 public:
  explicit Prefixes(Caches& caches) : caches_(caches) {}

  /// Whether there is room for any.
  bool on() const { return caches_.settings().snapshots > 0; }

  struct Found {
    int slot = -1;            ///< of the snapshot; -1: none
    std::int64_t tokens = 0;  ///< a multiple of prompt_cut, less than the prompt's
  };
  /// The longest snapshot with which the prompt begins, which counts as used.
  Found find(std::span<const std::int32_t> prompt, const PromptBlocks& blocks);
  /// Tokens of the longest prefix of the prompt with which a longer snapshot begins.
  std::int64_t known(const PromptBlocks& blocks) const;
  /// Keeps the sequence in this slot, whose tokens are the first of the prompt, if that has room when others go.
  void keep(int slot, std::span<const std::int32_t> prompt, const PromptBlocks& blocks);
  void clear();

 private:
  struct Entry {
    int slot = -1;
    std::vector<std::int32_t> tokens;
    PromptBlocks blocks;
  };
  void drop_oldest();

  Caches& caches_;
  std::list<Entry> entries_;  ///< the last used first
  std::unordered_map<std::uint64_t, std::list<Entry>::iterator> by_hash_;
  std::unordered_map<std::uint64_t, std::int64_t> blocks_;  ///< snapshots that have a block
};

}  // namespace ratplus::infer
