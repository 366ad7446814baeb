// Caches: of every sequence in flight the keys and values that its pattern keeps, in pages, and the last states of its
// recurrences (docs/model.md, section 19); and snapshots of them, with which later sequences begin. All memory is taken in the
// constructor; a sequence reserves its share before its first token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/config.h"
#include "lib/model/mixer_form.h"
#include "lib/model/pattern_plan.h"

namespace ratplus::infer {

/// The heads of a layer under one pattern, and where their keys lie.
struct HeadGroup {
  Pattern pattern;
  std::vector<std::int32_t> keys;   ///< heads of keys that the cache holds
  std::vector<std::int32_t> heads;  ///< heads that read them, those of one key together
  std::vector<std::int32_t> first;  ///< [keys + 1]: where the heads of a key begin
  std::vector<std::int32_t> last;   ///< [keys]: 1 where no later group of the layer holds the key
  std::size_t layout = 0;           ///< of CacheShape::layouts
  std::int64_t offset = 0;          ///< of the group in a page, in elements
};

/// One layer: how its mixer combines its parts, and its heads by pattern; none where it does not attend.
struct LayerShape {
  model::MixerForm form;
  std::int64_t key_heads = 0;  ///< heads of k~ and v~
  std::int64_t state = -1;     ///< its place among the layers that recur; -1: it does not
  std::vector<HeadGroup> groups;
};

/// Entries that sequences keep alike: one table of pages for all groups with this layout.
struct PagedLayout {
  CacheLayout layout;
  std::int64_t entries = 0;        ///< E of a page
  std::int64_t page_elements = 0;  ///< of all groups

  std::int64_t pages_for(std::int64_t tokens) const {
    return (layout.places(tokens) + entries - 1) / entries;
  }
  /// Entries of sinks and window; those behind are dilated, and written once, in their order.
  std::int64_t ring() const { return layout.sinks + layout.window; }
  /// Pages that `length` tokens write to where there is room for many more: a sequence within its ring leaves out the dilated
  /// entries.
  std::int64_t pages_written(std::int64_t length) const {
    const auto dilated = layout.dilated_below(length);
    return ((dilated > 0 ? ring() + dilated : std::min(length, ring())) + entries - 1) / entries;
  }
  /// Pages [shared_begin(), shared_end(length)) are full for ever after `length` tokens.
  std::int64_t shared_begin() const { return (ring() + entries - 1) / entries; }
  std::int64_t shared_end(std::int64_t length) const {
    return std::max(shared_begin(), (ring() + layout.dilated_below(length)) / entries);
  }
};

/// What a model's caches consist of under a plan of patterns.
struct CacheShape {
  /// Of sequences of up to `tokens` tokens.
  CacheShape(const model::ModelConfig& config, const model::PatternPlan& plan, std::int64_t tokens);

  std::vector<LayerShape> layers;
  std::vector<PagedLayout> layouts;
  std::int64_t recurrent_layers = 0;
  std::int64_t state_heads = 0;  ///< the most of a layer that recurs
  std::int64_t head_dim = 0;

  /// Floats of a sequence's states.
  std::int64_t state_floats() const { return recurrent_layers * 2 * state_heads * head_dim; }
  /// Bytes of one sequence of up to `tokens` tokens: pages, states, its rows of the tables.
  std::int64_t sequence_bytes(std::int64_t tokens, DType compute) const;
  /// The most keys that a query below `tokens` attends to in a group, its own included.
  static std::int64_t most_keys(const CacheLayout& layout, std::int64_t tokens) {
    return layout.runs(tokens).keys() + 1;
  }
};

class Caches {
 public:
  struct Settings {
    std::int64_t slots = 1;   ///< sequences in flight at most
    std::int64_t tokens = 1;  ///< tokens of a sequence at most
    /// Pages of all sequences, as the number of sequences of `tokens` tokens that they hold; may be fewer than slots.
    double sequences = 1;
    std::int64_t snapshots = 0;     ///< snapshots at most
    double snapshot_sequences = 0;  ///< pages of all snapshots, as `sequences`; rounded down
  };
  /// `settings` with as many snapshots as `bytes` hold. They are of `least` tokens or more; no snapshot where
  /// bytes < snapshot_bytes().
  static Settings with_snapshots(const CacheShape& shape, Settings settings, std::int64_t bytes,
                                 std::int64_t least, DType compute);
  /// The bytes for one snapshot of `tokens` tokens.
  static std::int64_t snapshot_bytes(const CacheShape& shape, const Settings& settings, std::int64_t tokens,
                                     DType compute);

  Caches(const CacheShape& shape, const Settings& settings, Ops& ops, Arena& arena);
  /// Uploads what is constant; once, after the arena's commit.
  void prepare();

  /// Bytes that a Caches of these settings takes.
  static std::int64_t bytes(const CacheShape& shape, const Settings& settings, DType compute);

  const CacheShape& shape() const { return shape_; }
  const Settings& settings() const { return settings_; }

  // --- sequences -------------------------------------------------------------------------------------------------
  /// Whether a sequence of up to `tokens` tokens could be opened now; with a slot `from`, copied from it.
  bool fits(std::int64_t tokens, int from = -1) const;
  /// A sequence with room for `tokens` tokens; std::logic_error unless fits(tokens). Returns its slot.
  int open(std::int64_t tokens);
  void drop(int slot);
  /// Whether a copy with room for `tokens` can be made of a sequence with this room and length: one within its ring lacks the
  /// dilated entries.
  bool has_all(std::int64_t room, std::int64_t length, std::int64_t tokens) const;
  /// A second sequence that goes on from the tokens of the first, a sequence that has_all or a snapshot, with room for `tokens`
  /// in all; fits(tokens, slot). Full pages to which nothing will be written are shared.
  int copy(int slot, std::int64_t tokens);
  /// The same into a sequence `to` that is open and has no tokens yet.
  void fork(int slot, int to);
  /// Whether the tokens after the first `length` can be forgotten: not where a recurrence or a window has passed over what
  /// it would need. There a copy() made in time serves.
  bool can_cut(int slot, std::int64_t length) const;
  /// Forgets them; std::logic_error unless can_cut.
  void cut(int slot, std::int64_t length);
  std::int64_t length(int slot) const { return at(slot).length; }
  std::int64_t room(int slot) const { return at(slot).tokens; }
  std::int64_t open_sequences() const { return open_; }
  /// Bytes that the open sequences' pages and states take, but for pages of snapshots.
  std::int64_t bytes_in_use() const;

  // --- snapshots -------------------------------------------------------------------------------------------------
  /// Whether a snapshot of `length` tokens of a sequence with this room can be kept where there is no other.
  bool could_keep(std::int64_t room, std::int64_t length) const;
  /// Whether keep(slot) has room now.
  bool can_keep(int slot) const;
  /// A snapshot of the sequence as it is now; returns its slot, for copy(), fork(), length() and drop().
  int keep(int slot);
  std::int64_t snapshots() const { return kept_; }
  /// Bytes that the snapshots' pages and states take.
  std::int64_t snapshot_bytes_in_use() const;

  /// The positions whose keys the cache of a layer's group holds for the next token, ascending.
  std::vector<std::int64_t> held(int slot, std::int64_t layer, std::size_t group) const;

  // --- for the pass ----------------------------------------------------------------------------------------------
  /// The sequence has this many tokens more; their keys and states are in their places.
  void advance(int slot, std::int64_t tokens);
  operation::CachePages pages(std::int64_t layer, std::size_t group) const;
  /// i32 [slots, pages], or [pages] of one sequence.
  Tensor tables(std::int64_t layer, std::size_t group) const;
  Tensor table(int slot, std::int64_t layer, std::size_t group) const {
    return tables(layer, group).select(0, slot);
  }
  Tensor heads(std::int64_t layer, std::size_t group) const { return tensors(layer, group).heads; }
  Tensor first_heads(std::int64_t layer, std::size_t group) const { return tensors(layer, group).first; }
  Tensor keeps_state(std::int64_t layer, std::size_t group) const { return tensors(layer, group).last; }
  /// f32 [slots, 2, Hk, P] of a layer that recurs.
  Tensor states(std::int64_t layer) const;

 private:
  struct Pool {
    Tensor pages;   ///< C [pages, page elements]
    Tensor tables;  ///< i32 [slots, most pages]
    std::vector<std::int32_t> host_tables;
    std::vector<std::int32_t> free;
    std::vector<std::int32_t> users;    ///< sequences and snapshots of each page
    std::vector<std::int32_t> keepers;  ///< snapshots of each page
    std::int64_t kept = 0;              ///< pages with keepers
    std::int64_t most_kept = 0;
  };
  struct GroupTensors {
    Tensor keys, heads, first, last;
  };
  struct Slot {
    bool open = false;
    std::int64_t length = 0;
    std::int64_t tokens = 0;
  };

  const Slot& at(int slot) const;
  const HeadGroup& group(std::int64_t layer, std::size_t g) const {
    return shape_.layers[static_cast<std::size_t>(layer)].groups[g];
  }
  const GroupTensors& tensors(std::int64_t layer, std::size_t g) const {
    return groups_[static_cast<std::size_t>(layer)][g];
  }
  bool is_snapshot(int slot) const { return slot >= settings_.slots; }
  std::int64_t pages_of(const PagedLayout& layout, int slot) const {
    return is_snapshot(slot) ? layout.pages_written(at(slot).tokens) : layout.pages_for(at(slot).tokens);
  }
  int take_slot(std::int64_t tokens, bool snapshot);
  void take_pages(int slot, int from);
  void release_pages(int slot);
  std::int32_t* row(Pool& pool, int slot);
  const std::int32_t* row(const Pool& pool, int slot) const;
  void upload_row(Pool& pool, int slot);

  Ops& ops_;
  CacheShape shape_;
  Settings settings_;
  std::vector<Pool> pools_;  ///< one a layout
  Tensor states_;            ///< f32 [slots and snapshots, recurrent layers, 2, heads, P]
  std::vector<std::vector<GroupTensors>> groups_;
  std::vector<Slot> slots_;  ///< of sequences, then of snapshots
  std::int64_t open_ = 0, kept_ = 0;
};

}  // namespace ratplus::infer
