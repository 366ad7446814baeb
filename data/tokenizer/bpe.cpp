#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

namespace ratplus::data {
namespace {

constexpr std::size_t short_word = 48;  ///< symbols; up to here scanning is faster than a queue

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 32)) * 0x9E3779B97F4A7C15;
  return x ^ (x >> 29);
}

}  // namespace

Merges::Merges(std::size_t count) : table_(std::bit_ceil(2 * count + 2)) {}

std::size_t Merges::slot(std::uint64_t pair) const {
  const std::size_t mask = table_.size() - 1;
  std::size_t at = mix(pair) & mask;
  while (table_[at].pair != pair && table_[at].pair != Entry::empty) at = (at + 1) & mask;
  return at;
}

namespace {

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

void Merges::add(std::int32_t left, std::int32_t right, const Merge& merge) {
  const std::uint64_t pair = pair_of(left, right);
  table_[slot(pair)] = {pair, merge};
}

Merges::Merge Merges::find(std::int32_t left, std::int32_t right) const {
  return table_[slot(pair_of(left, right))].merge;
}

void Merges::apply(std::vector<std::int32_t>& symbols) const {
  if (symbols.size() < 2) return;
  symbols.size() <= short_word ? apply_short(symbols) : apply_long(symbols);
}

void Merges::apply_short(std::vector<std::int32_t>& symbols) const {
  Merge merges[short_word];  // of symbols i and i + 1
  std::size_t count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == Merge::none) break;
    symbols[best] = merges[best].merged;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      merges[i] = merges[i + 1];
    }
    --count;
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

// A word may be as long as a document: what is kept of a symbol is small (20 bytes, its id and one candidate included).
void Merges::apply_long(std::vector<std::int32_t>& symbols) const {
  constexpr std::int32_t none = -1;
  constexpr std::int32_t gone = -1;  // the id of a symbol that was merged into the one before it
  struct Links {
    std::int32_t previous;
    std::int32_t next;
  };
  struct
      Candidate {  // the merge of the symbol at `left` with the next; stale if that one's rank is another by now
    std::uint32_t rank;
    std::int32_t left;
    bool operator<(const Candidate& other) const {  // the queue's top is its greatest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto count = static_cast<std::int32_t>(symbols.size());
  std::vector<Links> chain(symbols.size());
  const auto links = [&](std::int32_t place) -> Links& { return chain[static_cast<std::size_t>(place)]; };
  const auto id = [&](std::int32_t place) -> std::int32_t& {
    return symbols[static_cast<std::size_t>(place)];
  };
  for (std::int32_t i = 0; i < count; ++i) links(i) = {i - 1, i + 1 < count ? i + 1 : none};
  const auto merge_at = [&](std::int32_t left) {
    if (left == none || id(left) == gone || links(left).next == none) return Merge{};
    return find(id(left), id(links(left).next));
  };

  std::vector<Candidate> first;
  first.reserve(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    if (const Merge merge = merge_at(i); merge.rank != Merge::none) first.push_back({merge.rank, i});
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(first));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const Merge merge = merge_at(top.left);
    if (merge.rank != top.rank) continue;
    const std::int32_t right = links(top.left).next;
    id(top.left) = merge.merged;
    id(right) = gone;
    links(top.left).next = links(right).next;
    if (links(right).next != none) links(links(right).next).previous = top.left;
    for (const std::int32_t changed : {links(top.left).previous, top.left}) {
      if (const Merge next = merge_at(changed); next.rank != Merge::none) queue.push({next.rank, changed});
    }
  }
  std::erase(symbols, gone);
}

WordCache::WordCache() : table_(slots) {}

std::size_t WordCache::slot_of(std::string_view word) {
  std::uint64_t parts[4] = {0, 0, 0, word.size()};
  std::memcpy(parts, word.data(), word.size());
  return mix(mix(mix(parts[0]) ^ parts[1]) ^ mix(parts[2] + 0x9E37) ^ parts[3]) & (slots - 1);
}

bool WordCache::find(std::string_view word, std::vector<std::int32_t>& out) const {
  if (word.size() > max_bytes || word.empty()) return false;
  const Slot& slot = table_[slot_of(word)];
  if (slot.bytes != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) return false;
  out.insert(out.end(), slot.id, slot.id + slot.ids);
  return true;
}

void WordCache::keep(std::string_view word, std::span<const std::int32_t> ids) {
  if (word.size() > max_bytes || word.empty() || ids.size() > max_ids) return;
  Slot& slot = table_[slot_of(word)];
  slot.bytes = static_cast<std::uint8_t>(word.size());
  slot.ids = static_cast<std::uint8_t>(ids.size());
  std::memcpy(slot.word, word.data(), word.size());
  std::copy(ids.begin(), ids.end(), slot.id);
}

}  // namespace ratplus::data
