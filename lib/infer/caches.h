// Caches: of every sequence in flight the keys and values that its pattern keeps, in pages, and the last states of its
// recurrences (docs/model.md, section 19). All memory is taken in the constructor; a sequence reserves its share before its
// first token.
#pragma once

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
  };

  Caches(const CacheShape& shape, const Settings& settings, Ops& ops, Arena& arena);
  /// Uploads what is constant; once, after the arena's commit.
  void prepare();

  /// Bytes that a Caches of these settings takes.
  static std::int64_t bytes(const CacheShape& shape, const Settings& settings, DType compute);

  const CacheShape& shape() const { return shape_; }
  const Settings& settings() const { return settings_; }

  // --- sequences -------------------------------------------------------------------------------------------------
  /// Whether a sequence of up to `tokens` tokens could be opened now.
  bool fits(std::int64_t tokens) const;
  /// A sequence with room for `tokens` tokens; std::logic_error unless fits(tokens). Returns its slot.
  int open(std::int64_t tokens);
  void drop(int slot);
  /// A second sequence that goes on from the tokens of the first, with room for `tokens` in all. Full pages to which
  /// nothing will be written are shared.
  int copy(int slot, std::int64_t tokens);
  /// Whether the tokens after the first `length` can be forgotten: not where a recurrence or a window has passed over what
  /// it would need. There a copy() made in time serves.
  bool can_cut(int slot, std::int64_t length) const;
  /// Forgets them; std::logic_error unless can_cut.
  void cut(int slot, std::int64_t length);
  std::int64_t length(int slot) const { return at(slot).length; }
  std::int64_t room(int slot) const { return at(slot).tokens; }
  std::int64_t open_sequences() const { return open_; }
  /// Bytes that the open sequences' pages and states take.
  std::int64_t bytes_in_use() const;
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
    std::vector<std::int32_t> users;  ///< sequences of each page
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
  int take_slot(std::int64_t tokens);
  std::int32_t* row(Pool& pool, int slot);
  void upload_row(Pool& pool, int slot);

  Ops& ops_;
  CacheShape shape_;
  Settings settings_;
  std::vector<Pool> pools_;  ///< one a layout
  Tensor states_;            ///< f32 [slots, recurrent layers, 2, heads, P]
  std::vector<std::vector<GroupTensors>> groups_;
  std::vector<Slot> slots_;
  std::int64_t open_ = 0;
};

}  // namespace ratplus::infer
