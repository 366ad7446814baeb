#include "lib/infer/prefixes.h"

#include <algorithm>

#include "kernels/digest_mix.h"
#include "lib/infer/pass.h"

namespace ratplus::infer {

PromptBlocks::PromptBlocks(std::span<const std::int32_t> tokens) {
  constexpr auto block = static_cast<std::size_t>(prompt_cut);
  std::uint64_t hash = 0;
  for (std::size_t i = 0; i < tokens.size() / block * block; ++i) {
    hash = digest_mix(hash >> 32, static_cast<std::uint32_t>(hash)) ^ static_cast<std::uint32_t>(tokens[i]);
    if ((i + 1) % block == 0) hashes.push_back(hash);
  }
}

std::int64_t PromptBlocks::common(const PromptBlocks& other) const {
  const auto differ = std::ranges::mismatch(hashes, other.hashes).in1;
  return (differ - hashes.begin()) * prompt_cut;
}

Prefixes::Found Prefixes::find(std::span<const std::int32_t> prompt, const PromptBlocks& blocks) {
  for (auto n = std::min(std::ssize(blocks.hashes), (std::ssize(prompt) - 1) / prompt_cut); n > 0; --n) {
    const auto found = by_hash_.find(blocks.hashes[static_cast<std::size_t>(n - 1)]);
    if (found == by_hash_.end()) continue;
    const auto& tokens = found->second->tokens;
    if (std::ssize(tokens) != n * prompt_cut || !std::equal(tokens.begin(), tokens.end(), prompt.begin()))
      continue;
    entries_.splice(entries_.begin(), entries_, found->second);
    return {found->second->slot, n * prompt_cut};
  }
  return {};
}

std::int64_t Prefixes::known(const PromptBlocks& blocks) const {
  std::int64_t n = 0;
  while (n < std::ssize(blocks.hashes) && blocks_.contains(blocks.hashes[static_cast<std::size_t>(n)])) ++n;
  return n * prompt_cut;
}

void Prefixes::keep(int slot, std::span<const std::int32_t> prompt, const PromptBlocks& blocks) {
  const auto length = caches_.length(slot);
  const auto n = static_cast<std::size_t>(length / prompt_cut);
  if (!caches_.could_keep(caches_.room(slot), length) || by_hash_.contains(blocks.hashes[n - 1])) return;
  while (!caches_.can_keep(slot)) {
    if (entries_.empty()) return;
    drop_oldest();
  }
  Entry entry{.slot = caches_.keep(slot), .tokens = {}, .blocks = {}};
  entry.tokens.assign(prompt.begin(), prompt.begin() + length);
  entry.blocks.hashes.assign(blocks.hashes.begin(), blocks.hashes.begin() + static_cast<std::ptrdiff_t>(n));
  for (const auto hash : entry.blocks.hashes) ++blocks_[hash];
  entries_.push_front(std::move(entry));
  by_hash_[blocks.hashes[n - 1]] = entries_.begin();
}

void Prefixes::drop_oldest() {
  const auto& oldest = entries_.back();
  caches_.drop(oldest.slot);
  by_hash_.erase(oldest.blocks.hashes.back());
  for (const auto hash : oldest.blocks.hashes) {
    const auto found = blocks_.find(hash);
    if (--found->second == 0) blocks_.erase(found);
  }
  entries_.pop_back();
}

void Prefixes::clear() {
  while (!entries_.empty()) drop_oldest();
}

}  // namespace ratplus::infer
