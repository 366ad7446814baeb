#include "lib/infer/caches.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "lib/model/mixers.h"

namespace ratplus::infer {
namespace {

/// Entries of a page: few where a sequence has few, since its last page is not full.
std::int64_t entries_of(std::int64_t places) {
  return places < 256 ? 8 : 16;
}

/// The heads of a layer by pattern.
std::vector<HeadGroup> groups_of(HeadPatterns patterns, std::int64_t heads, std::int64_t key_heads) {
  std::vector<HeadGroup> groups;
  for (std::int64_t h = 0; h < heads; ++h) {
    const Pattern& pattern = patterns.size() == 1 ? patterns.front() : patterns[static_cast<std::size_t>(h)];
    auto found = std::ranges::find_if(
        groups, [&](const HeadGroup& g) { return CacheLayout(g.pattern) == CacheLayout(pattern); });
    if (found == groups.end()) {
      groups.push_back({.pattern = pattern, .keys = {}, .heads = {}, .first = {}, .last = {}});
      found = groups.end() - 1;
    }
    const auto key = static_cast<std::int32_t>(h / (heads / key_heads));
    if (found->keys.empty() || found->keys.back() != key) {
      found->keys.push_back(key);
      found->first.push_back(static_cast<std::int32_t>(found->heads.size()));
    }
    found->heads.push_back(static_cast<std::int32_t>(h));
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    groups[g].first.push_back(static_cast<std::int32_t>(groups[g].heads.size()));
    for (const auto key : groups[g].keys) {
      const bool later = std::any_of(groups.begin() + static_cast<std::ptrdiff_t>(g) + 1, groups.end(),
                                     [&](const HeadGroup& x) { return std::ranges::count(x.keys, key) > 0; });
      groups[g].last.push_back(later ? 0 : 1);
    }
  }
  return groups;
}

/// Pages of snapshots.
std::int64_t snapshot_pages(const PagedLayout& layout, const Caches::Settings& settings) {
  return static_cast<std::int64_t>(static_cast<double>(layout.pages_for(settings.tokens)) *
                                   settings.snapshot_sequences);
}

std::int64_t page_count(const PagedLayout& layout, const Caches::Settings& settings) {
  const auto pages = std::ceil(static_cast<double>(layout.pages_for(settings.tokens)) * settings.sequences);
  return std::max(static_cast<std::int64_t>(pages), layout.pages_for(settings.tokens)) +
         snapshot_pages(layout, settings);
}

/// Bytes of a slot beside its pages: states, and rows of the tables.
std::int64_t slot_bytes(const CacheShape& shape, std::int64_t tokens) {
  std::int64_t bytes = shape.state_floats() * size_of(DType::f32);
  for (const auto& layout : shape.layouts) bytes += layout.pages_for(tokens) * size_of(DType::i32);
  return bytes;
}

std::int64_t page_bytes(const CacheShape& shape, std::int64_t tokens, DType compute) {
  std::int64_t bytes = 0;
  for (const auto& layout : shape.layouts)
    bytes += layout.pages_for(tokens) * layout.page_elements * size_of(compute);
  return bytes;
}

}  // namespace

CacheShape::CacheShape(const model::ModelConfig& config, const model::PatternPlan& plan, std::int64_t tokens)
    : head_dim(config.head_dim) {
  for (std::int64_t i = 0; i < config.layers; ++i) {
    const model::LayerConfig here{config, config.mixer(i)};
    LayerShape layer;
    std::optional<Pattern> own;
    model::with_mixer(here.mixer.kind, [&]<typename M>(std::type_identity<M>) {
      layer.form = M::form(here);
      own = M::own_pattern(here.mixer);
    });
    layer.key_heads = layer.form.v.width / config.head_dim;
    if (layer.form.recurs()) {
      layer.state = recurrent_layers++;
      state_heads = std::max(state_heads, layer.key_heads);
    }
    if (layer.form.attends()) {
      const auto patterns = own ? HeadPatterns(&*own, 1) : plan.layer(i);
      layer.groups = groups_of(patterns, config.heads(), layer.key_heads);
    }
    for (auto& group : layer.groups) {
      const CacheLayout layout(group.pattern);
      auto found = std::ranges::find(layouts, layout, &PagedLayout::layout);
      if (found == layouts.end()) {
        layouts.push_back({.layout = layout, .entries = entries_of(layout.places(tokens))});
        found = layouts.end() - 1;
      }
      group.layout = static_cast<std::size_t>(found - layouts.begin());
      group.offset = found->page_elements;
      found->page_elements += std::ssize(group.keys) * 2 * found->entries * head_dim;
    }
    layers.push_back(std::move(layer));
  }
}

std::int64_t CacheShape::sequence_bytes(std::int64_t tokens, DType compute) const {
  return slot_bytes(*this, tokens) + page_bytes(*this, tokens, compute);
}

/// Pages are dealt to the layouts as a sequence of settings.tokens has them: the layout that needs the largest share for
/// `tokens` decides.
std::int64_t Caches::snapshot_bytes(const CacheShape& shape, const Settings& settings, std::int64_t tokens,
                                    DType compute) {
  double share = 0;
  for (const auto& layout : shape.layouts) {
    share = std::max(share, static_cast<double>(layout.pages_written(tokens)) /
                                static_cast<double>(layout.pages_for(settings.tokens)));
  }
  const auto pages = share * static_cast<double>(page_bytes(shape, settings.tokens, compute));
  // One byte more for the rounding of shares.
  return slot_bytes(shape, settings.tokens) + static_cast<std::int64_t>(std::ceil(pages)) + 1;
}

Caches::Settings Caches::with_snapshots(const CacheShape& shape, Settings settings, std::int64_t bytes,
                                        std::int64_t least, DType compute) {
  constexpr std::int64_t most_snapshots = 4096;
  settings.snapshots = std::min(bytes / snapshot_bytes(shape, settings, least, compute), most_snapshots);
  settings.snapshot_sequences = 0;
  const auto pages = page_bytes(shape, settings.tokens, compute);
  if (settings.snapshots > 0 && pages > 0) {
    settings.snapshot_sequences =
        static_cast<double>(bytes - settings.snapshots * slot_bytes(shape, settings.tokens)) /
        static_cast<double>(pages);
  }
  return settings;
}

Caches::Caches(const CacheShape& shape, const Settings& settings, Ops& ops, Arena& arena)
    : ops_(ops),
      shape_(shape),
      settings_(settings),
      slots_(static_cast<std::size_t>(settings.slots + settings.snapshots)) {
  arena.category("caches");
  const auto slots = settings.slots + settings.snapshots;
  for (const auto& layout : shape_.layouts) {
    const auto pages = page_count(layout, settings), most = layout.pages_for(settings.tokens);
    Pool pool;
    pool.pages = arena.allocate(ops.compute_type(), {pages, layout.page_elements});
    pool.tables = arena.allocate(DType::i32, {slots, most});
    pool.host_tables.assign(static_cast<std::size_t>(slots * most), -1);
    for (auto page = pages; page-- > 0;) pool.free.push_back(static_cast<std::int32_t>(page));
    pool.users.assign(static_cast<std::size_t>(pages), 0);
    pool.keepers.assign(static_cast<std::size_t>(pages), 0);
    pool.most_kept = snapshot_pages(layout, settings);
    pools_.push_back(std::move(pool));
  }
  if (shape_.recurrent_layers > 0) {
    states_ =
        arena.allocate(DType::f32, {slots, shape_.recurrent_layers, 2, shape_.state_heads, shape_.head_dim});
  }
  for (const auto& layer : shape_.layers) {
    std::vector<GroupTensors> tensors;
    for (const auto& group : layer.groups) {
      const auto indices = [&](const std::vector<std::int32_t>& values) {
        return arena.allocate(DType::i32, {std::ssize(values)});
      };
      tensors.push_back(
          {indices(group.keys), indices(group.heads), indices(group.first), indices(group.last)});
    }
    groups_.push_back(std::move(tensors));
  }
}

void Caches::prepare() {
  for (std::size_t layer = 0; layer < groups_.size(); ++layer) {
    for (std::size_t g = 0; g < groups_[layer].size(); ++g) {
      const auto& group = shape_.layers[layer].groups[g];
      ops_.upload(groups_[layer][g].keys, group.keys.data());
      ops_.upload(groups_[layer][g].heads, group.heads.data());
      ops_.upload(groups_[layer][g].first, group.first.data());
      ops_.upload(groups_[layer][g].last, group.last.data());
    }
  }
  for (auto& pool : pools_) ops_.upload(pool.tables, pool.host_tables.data());
}

std::int64_t Caches::bytes(const CacheShape& shape, const Settings& settings, DType compute) {
  std::int64_t bytes = (settings.slots + settings.snapshots) * slot_bytes(shape, settings.tokens);
  for (const auto& layout : shape.layouts)
    bytes += page_count(layout, settings) * layout.page_elements * size_of(compute);
  return bytes;
}

// --- sequences ---------------------------------------------------------------------------------------------------

const Caches::Slot& Caches::at(int slot) const {
  require(slot >= 0 && std::cmp_less(slot, slots_.size()) && slots_[static_cast<std::size_t>(slot)].open,
          "no sequence in slot {}", slot);
  return slots_[static_cast<std::size_t>(slot)];
}

bool Caches::fits(std::int64_t tokens, int from) const {
  if (open_ == settings_.slots || tokens > settings_.tokens) return false;
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    const auto& layout = shape_.layouts[i];
    const auto pages = layout.pages_for(tokens);
    const auto shared =
        from < 0 ? 0 : std::min(layout.shared_end(at(from).length), pages) - layout.shared_begin();
    if (pages - std::max<std::int64_t>(shared, 0) > std::ssize(pools_[i].free)) return false;
  }
  return true;
}

std::int32_t* Caches::row(Pool& pool, int slot) {
  return pool.host_tables.data() + slot * pool.tables.size(1);
}

const std::int32_t* Caches::row(const Pool& pool, int slot) const {
  return pool.host_tables.data() + slot * pool.tables.size(1);
}

void Caches::upload_row(Pool& pool, int slot) {
  ops_.upload(pool.tables.select(0, slot), row(pool, slot));
}

int Caches::take_slot(std::int64_t tokens, bool snapshot) {
  const auto first = slots_.begin() + (snapshot ? settings_.slots : 0);
  const auto last = snapshot ? slots_.end() : slots_.begin() + settings_.slots;
  const auto found = std::find_if(first, last, [](const Slot& slot) { return !slot.open; });
  *found = {.open = true, .length = 0, .tokens = tokens};
  ++(snapshot ? kept_ : open_);
  return static_cast<int>(found - slots_.begin());
}

/// The pages of a slot without any: new ones, but for those that it shares with `from` (-1: none), whose other entries and
/// states are copied.
void Caches::take_pages(int slot, int from) {
  const auto length = from < 0 ? 0 : at(from).length;
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    auto& pool = pools_[i];
    const auto& layout = shape_.layouts[i];
    const auto pages = pages_of(layout, slot);
    for (std::int64_t page = 0; page < pages; ++page) {
      auto& number = row(pool, slot)[page];
      const auto source = from < 0 ? -1 : row(pool, from)[page];
      if (from >= 0 && page >= layout.shared_begin() && page < layout.shared_end(length)) {
        number = source;
      } else {
        number = pool.free.back();
        pool.free.pop_back();
        if (source >= 0 && page < layout.pages_written(length))
          ops_.copy(pool.pages.select(0, number), pool.pages.select(0, source));
      }
      ++pool.users[static_cast<std::size_t>(number)];
      if (is_snapshot(slot) && ++pool.keepers[static_cast<std::size_t>(number)] == 1) ++pool.kept;
    }
    upload_row(pool, slot);
  }
  if (from < 0) return;
  if (!states_.empty()) ops_.copy(states_.select(0, slot), states_.select(0, from));
  slots_[static_cast<std::size_t>(slot)].length = length;
}

void Caches::release_pages(int slot) {
  for (auto& pool : pools_) {
    for (std::int64_t page = 0; page < pool.tables.size(1); ++page) {
      auto& number = row(pool, slot)[page];
      if (number < 0) continue;
      const auto at = static_cast<std::size_t>(number);
      if (is_snapshot(slot) && --pool.keepers[at] == 0) --pool.kept;
      if (--pool.users[at] == 0) pool.free.push_back(number);
      number = -1;
    }
  }
}

int Caches::open(std::int64_t tokens) {
  require(tokens >= 1 && fits(tokens), "no room for a sequence of {} tokens", tokens);
  const int slot = take_slot(tokens, false);
  take_pages(slot, -1);
  return slot;
}

void Caches::drop(int slot) {
  at(slot);
  release_pages(slot);
  for (auto& pool : pools_) upload_row(pool, slot);
  slots_[static_cast<std::size_t>(slot)] = {};
  --(is_snapshot(slot) ? kept_ : open_);
}

int Caches::copy(int from, std::int64_t tokens) {
  require(tokens >= at(from).length && fits(tokens, from), "no room for {} tokens of a copy of {}", tokens,
          at(from).length);
  require(is_snapshot(from) || has_all(at(from).tokens, at(from).length, tokens),
          "slot {} lacks dilated entries for a copy of {} tokens", from, tokens);
  const int to = take_slot(tokens, false);
  take_pages(to, from);
  return to;
}

void Caches::fork(int from, int to) {
  require(at(to).length == 0 && at(to).tokens >= at(from).length && !is_snapshot(to),
          "slot {} is not a new sequence with room for {} tokens", to, at(from).length);
  require(is_snapshot(from) || has_all(at(from).tokens, at(from).length, at(to).tokens),
          "slot {} lacks dilated entries for a copy of {} tokens", from, at(to).tokens);
  release_pages(to);
  take_pages(to, from);
}

bool Caches::has_all(std::int64_t room, std::int64_t length, std::int64_t tokens) const {
  return std::ranges::all_of(shape_.layouts, [&](const PagedLayout& x) {
    return x.pages_for(room) >= std::min(x.pages_for(tokens), x.pages_written(length));
  });
}

bool Caches::could_keep(std::int64_t room, std::int64_t length) const {
  if (settings_.snapshots == 0) return false;
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    const auto written = shape_.layouts[i].pages_written(length);
    if (written > pools_[i].most_kept || written > shape_.layouts[i].pages_for(room)) return false;
  }
  return true;
}

bool Caches::can_keep(int slot) const {
  const auto length = at(slot).length;
  if (kept_ == settings_.snapshots || length == 0 || !could_keep(at(slot).tokens, length)) return false;
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    const auto& pool = pools_[i];
    const auto& layout = shape_.layouts[i];
    const auto begin = layout.shared_begin(), end = layout.shared_end(length);
    const auto copied = layout.pages_written(length) - (end - begin);
    std::int64_t kept = pool.kept + copied;
    for (auto page = begin; page < end; ++page) {
      if (pool.keepers[static_cast<std::size_t>(row(pool, slot)[page])] == 0) ++kept;
    }
    if (copied > std::ssize(pool.free) || kept > pool.most_kept) return false;
  }
  return true;
}

int Caches::keep(int slot) {
  require(can_keep(slot), "no room for a snapshot of {} tokens", at(slot).length);
  const int to = take_slot(at(slot).length, true);
  take_pages(to, slot);
  return to;
}

bool Caches::can_cut(int slot, std::int64_t length) const {
  const auto now = at(slot).length;
  if (length < 0 || length > now) return false;
  if (length == now || length == 0) return true;
  if (shape_.recurrent_layers > 0) return false;
  // A ring that has not come round yet still has all its tokens.
  return std::ranges::all_of(shape_.layouts, [&](const PagedLayout& x) {
    return x.layout.window == 0 || now <= x.layout.sinks + x.layout.window;
  });
}

void Caches::cut(int slot, std::int64_t length) {
  require(can_cut(slot, length), "a sequence of {} tokens cannot be cut to {}", at(slot).length, length);
  slots_[static_cast<std::size_t>(slot)].length = length;
}

void Caches::advance(int slot, std::int64_t tokens) {
  require(at(slot).length + tokens <= at(slot).tokens, "{} tokens more than slot {} has room for", tokens,
          slot);
  slots_[static_cast<std::size_t>(slot)].length += tokens;
}

std::int64_t Caches::bytes_in_use() const {
  std::int64_t bytes = open_ * shape_.state_floats() * size_of(DType::f32);
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    const auto& pool = pools_[i];
    const auto used = pool.pages.size(0) - std::ssize(pool.free) - pool.kept;
    bytes += used * shape_.layouts[i].page_elements * size_of(pool.pages.dtype());
  }
  return bytes;
}

std::int64_t Caches::snapshot_bytes_in_use() const {
  std::int64_t bytes = kept_ * shape_.state_floats() * size_of(DType::f32);
  for (std::size_t i = 0; i < pools_.size(); ++i)
    bytes += pools_[i].kept * shape_.layouts[i].page_elements * size_of(pools_[i].pages.dtype());
  return bytes;
}

std::vector<std::int64_t> Caches::held(int slot, std::int64_t layer, std::size_t g) const {
  const auto& layout = shape_.layouts[group(layer, g).layout].layout;
  const auto runs = layout.runs(at(slot).length);
  std::vector<std::int64_t> positions;
  for (std::int64_t j = 0; j < runs.keys(); ++j) positions.push_back(layout.position(runs, j));
  return positions;
}

// --- for the pass ------------------------------------------------------------------------------------------------

operation::CachePages Caches::pages(std::int64_t layer, std::size_t g) const {
  const auto& of = group(layer, g);
  const auto& layout = shape_.layouts[of.layout];
  const auto elements = std::ssize(of.keys) * 2 * layout.entries * shape_.head_dim;
  return {.pages = pools_[of.layout].pages.slice(1, of.offset, of.offset + elements),
          .entries = layout.entries,
          .heads = tensors(layer, g).keys,
          .pattern = of.pattern};
}

Tensor Caches::tables(std::int64_t layer, std::size_t g) const {
  return pools_[group(layer, g).layout].tables;
}

Tensor Caches::states(std::int64_t layer) const {
  const auto& shape = shape_.layers[static_cast<std::size_t>(layer)];
  if (shape.state < 0) return {};
  return states_.select(1, shape.state).slice(2, 0, shape.key_heads);
}

}  // namespace ratplus::infer
