#include "lib/infer/caches.h"

#include <algorithm>
#include <cmath>

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

std::int64_t page_count(const PagedLayout& layout, const Caches::Settings& settings) {
  const auto pages = std::ceil(static_cast<double>(layout.pages_for(settings.tokens)) * settings.sequences);
  return std::max(static_cast<std::int64_t>(pages), layout.pages_for(settings.tokens));
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
  std::int64_t bytes = state_floats() * size_of(DType::f32);
  for (const auto& layout : layouts) {
    bytes += layout.pages_for(tokens) * (layout.page_elements * size_of(compute) + size_of(DType::i32));
  }
  return bytes;
}

Caches::Caches(const CacheShape& shape, const Settings& settings, Ops& ops, Arena& arena)
    : ops_(ops), shape_(shape), settings_(settings), slots_(static_cast<std::size_t>(settings.slots)) {
  arena.category("caches");
  for (const auto& layout : shape_.layouts) {
    const auto pages = page_count(layout, settings), most = layout.pages_for(settings.tokens);
    Pool pool;
    pool.pages = arena.allocate(ops.compute_type(), {pages, layout.page_elements});
    pool.tables = arena.allocate(DType::i32, {settings.slots, most});
    pool.host_tables.assign(static_cast<std::size_t>(settings.slots * most), -1);
    for (auto page = pages; page-- > 0;) pool.free.push_back(static_cast<std::int32_t>(page));
    pool.users.assign(static_cast<std::size_t>(pages), 0);
    pools_.push_back(std::move(pool));
  }
  if (shape_.recurrent_layers > 0) {
    states_ = arena.allocate(
        DType::f32, {settings.slots, shape_.recurrent_layers, 2, shape_.state_heads, shape_.head_dim});
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
  std::int64_t bytes = settings.slots * shape.state_floats() * size_of(DType::f32);
  for (const auto& layout : shape.layouts) {
    bytes += page_count(layout, settings) * layout.page_elements * size_of(compute) +
             settings.slots * layout.pages_for(settings.tokens) * size_of(DType::i32);
  }
  return bytes;
}

// --- sequences ---------------------------------------------------------------------------------------------------

const Caches::Slot& Caches::at(int slot) const {
  require(slot >= 0 && slot < settings_.slots && slots_[static_cast<std::size_t>(slot)].open,
          "no sequence in slot {}", slot);
  return slots_[static_cast<std::size_t>(slot)];
}

bool Caches::fits(std::int64_t tokens) const {
  if (open_ == settings_.slots || tokens > settings_.tokens) return false;
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    if (shape_.layouts[i].pages_for(tokens) > std::ssize(pools_[i].free)) return false;
  }
  return true;
}

std::int32_t* Caches::row(Pool& pool, int slot) {
  return pool.host_tables.data() + slot * pool.tables.size(1);
}

void Caches::upload_row(Pool& pool, int slot) {
  ops_.upload(pool.tables.select(0, slot), row(pool, slot));
}

int Caches::take_slot(std::int64_t tokens) {
  require(tokens >= 1 && fits(tokens), "no room for a sequence of {} tokens", tokens);
  const auto found = std::ranges::find(slots_, false, &Slot::open);
  *found = {.open = true, .length = 0, .tokens = tokens};
  ++open_;
  return static_cast<int>(found - slots_.begin());
}

int Caches::open(std::int64_t tokens) {
  const int slot = take_slot(tokens);
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    auto& pool = pools_[i];
    const auto pages = shape_.layouts[i].pages_for(tokens);
    for (std::int64_t page = 0; page < pages; ++page) {
      row(pool, slot)[page] = pool.free.back();
      pool.users[static_cast<std::size_t>(pool.free.back())] = 1;
      pool.free.pop_back();
    }
    upload_row(pool, slot);
  }
  return slot;
}

void Caches::drop(int slot) {
  at(slot);
  for (auto& pool : pools_) {
    for (std::int64_t page = 0; page < pool.tables.size(1); ++page) {
      auto& number = row(pool, slot)[page];
      if (number < 0) continue;
      if (--pool.users[static_cast<std::size_t>(number)] == 0) pool.free.push_back(number);
      number = -1;
    }
    upload_row(pool, slot);
  }
  slots_[static_cast<std::size_t>(slot)] = {};
  --open_;
}

int Caches::copy(int from, std::int64_t tokens) {
  const auto length = at(from).length;
  require(tokens >= length, "{} tokens for a copy of {}", tokens, length);
  const int to = open(tokens);
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    auto& pool = pools_[i];
    const auto& layout = shape_.layouts[i];
    // Dilated entries are written once, in their order: pages before this entry and after the ring are full for ever.
    const auto ring = layout.layout.sinks + layout.layout.window;
    const auto written = ring + layout.layout.dilated_below(length);
    for (std::int64_t page = 0; page < pool.tables.size(1); ++page) {
      const auto source = row(pool, from)[page];
      auto& target = row(pool, to)[page];
      const auto begin = page * layout.entries;
      if (source < 0 || target < 0 || begin >= std::max(written, std::min(length, ring))) continue;
      if (begin >= ring && begin + layout.entries <= written) {
        pool.users[static_cast<std::size_t>(target)] = 0;
        pool.free.push_back(target);
        target = source;
        ++pool.users[static_cast<std::size_t>(source)];
      } else {
        ops_.copy(pool.pages.select(0, target), pool.pages.select(0, source));
      }
    }
    upload_row(pool, to);
  }
  if (!states_.empty()) ops_.copy(states_.select(0, to), states_.select(0, from));
  slots_[static_cast<std::size_t>(to)].length = length;
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
    const auto used = pools_[i].pages.size(0) - std::ssize(pools_[i].free);
    bytes += used * shape_.layouts[i].page_elements * size_of(pools_[i].pages.dtype());
  }
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
