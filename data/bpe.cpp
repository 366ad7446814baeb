#include "data/bpe.h"

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

void Merges::apply_long(std::vector<std::int32_t>& symbols) const {
  struct Symbol {
    std::int32_t id;
    std::int32_t previous;  ///< -1: none
    std::int32_t next;      ///< -1: none
  };
  struct Candidate {
    std::uint32_t rank;
    std::int32_t left;    ///< place of the left symbol
    std::int32_t merged;  ///< by which a candidate that has become stale is known
    std::int32_t left_id;
    std::int32_t right_id;
    bool operator<(const Candidate& other) const {  // the queue's top is its greatest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto count = static_cast<std::int32_t>(symbols.size());
  std::vector<Symbol> chain(symbols.size());
  for (std::int32_t i = 0; i < count; ++i) {
    chain[static_cast<std::size_t>(i)] = {symbols[static_cast<std::size_t>(i)], i - 1,
                                          i + 1 < count ? i + 1 : -1};
  }
  const auto at = [&](std::int32_t place) -> Symbol& { return chain[static_cast<std::size_t>(place)]; };
  std::vector<Candidate> first;
  const auto candidate = [&](std::int32_t left, auto&& add) {
    if (left < 0 || at(left).next < 0) return;
    const std::int32_t left_id = at(left).id;
    const std::int32_t right_id = at(at(left).next).id;
    const Merge merge = find(left_id, right_id);
    if (merge.rank != Merge::none) add(Candidate{merge.rank, left, merge.merged, left_id, right_id});
  };
  for (std::int32_t i = 0; i + 1 < count; ++i) candidate(i, [&](const Candidate& c) { first.push_back(c); });
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(first));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = at(top.left);
    if (left.id != top.left_id || left.next < 0 || at(left.next).id != top.right_id) continue;
    Symbol& right = at(left.next);
    left.id = top.merged;
    right.id = -1;  // gone
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = top.left;
    const auto push = [&](const Candidate& c) { queue.push(c); };
    candidate(left.previous, push);
    candidate(top.left, push);
  }
  std::size_t kept = 0;
  for (std::int32_t place = 0; place >= 0; place = at(place).next) symbols[kept++] = at(place).id;
  symbols.resize(kept);
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
