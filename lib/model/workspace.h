// Workspace: what layers need for a moment and hand on to the next: one set for the whole model.
#pragma once

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/config.h"
#include "lib/model/shapes.h"

namespace ratplus::model {

/// N rows; C is the compute type. `stream` (x, delta) is the residual stream between two residual layers: the
/// layer that comes next adds delta to x, in the same pass as its norm (docs/model.md, section 3).
struct Workspace {
  Tensor rope;  ///< f32 [T, 2, P/2], by position
  /// The same by chunk, one for each length of chunks that the model has.
  struct ChunkRope {
    std::int64_t chunk;
    Tensor table;
  };
  std::vector<ChunkRope> chunk_ropes;
  Tensor delta;           ///< C [N, d], what the last residual layer adds to the stream
  Tensor dstream;         ///< f32 [N, d], gradient of the residual stream (training)
  Tensor dlayer;          ///< C [N, d], the same in C for products; dstream itself where C is f32
  Tensor wide;            ///< C [N, as many columns as the widest layer needs]
  Tensor dz, dq, dk, dv;  ///< C [N, d]
  /// Made again in the backward where Recompute is cheap, so that layers share them.
  Tensor u, q, k, v, z;  ///< C [N, d]
  Tensor activated;      ///< C [N, 4d]

  /// wide_columns: the most that wide_rows() is asked for.
  Workspace(Arena& arena, DType compute, const ModelConfig& config, const PassShapes& shapes,
            std::int64_t wide_columns, bool training) {
    const auto rows = shapes.rows();
    const auto d = config.width;
    arena.category("activations");
    rope = arena.allocate(DType::f32, {shapes.tokens, 2, config.head_dim / 2});
    for (const auto& mixer : config.distinct_mixers()) {
      if (mixer.chunk == 0 || find_rope(mixer.chunk) != nullptr) continue;
      chunk_ropes.push_back(
          {mixer.chunk, arena.allocate(DType::f32, {shapes.tokens, 2, config.head_dim / 2})});
    }
    delta = arena.allocate(compute, {rows, d});
    if (!training) return;
    dstream = arena.allocate(DType::f32, {rows, d});
    dlayer = compute == DType::f32 ? dstream : arena.allocate(compute, {rows, d});
    wide = arena.allocate(compute, {rows, wide_columns});
    for (Tensor* x : {&dz, &dq, &dk, &dv}) *x = arena.allocate(compute, {rows, d});
    if (shapes.recompute != Recompute::cheap) return;
    for (Tensor* x : {&u, &q, &k, &v, &z}) *x = arena.allocate(compute, {rows, d});
    activated = arena.allocate(compute, {rows, 4 * d});
  }

  /// A buffer [N, at least columns] as [N, columns] without gaps.
  static Tensor narrowed(const Tensor& buffer, std::int64_t columns) {
    const auto rows = buffer.size(0);
    return buffer.view({buffer.numel()}).slice(0, 0, rows * columns).view({rows, columns});
  }
  Tensor wide_rows(std::int64_t columns) const { return narrowed(wide, columns); }
  /// A layer's tensor C [N, columns]: the workspace's `shared` where that is there, else one of its own.
  static Tensor shared_or_own(const Tensor& shared, Arena& arena, DType compute, std::int64_t rows,
                              std::int64_t columns) {
    return shared ? narrowed(shared, columns) : arena.allocate(compute, {rows, columns});
  }
  /// The rotary table by chunks of this length.
  Tensor rope_of(std::int64_t chunk) const {
    const ChunkRope* found = find_rope(chunk);
    require(found != nullptr, "no rotary table of chunks of {}", chunk);
    return found->table;
  }

 private:
  const ChunkRope* find_rope(std::int64_t chunk) const {
    const auto found = std::ranges::find(chunk_ropes, chunk, &ChunkRope::chunk);
    return found == chunk_ropes.end() ? nullptr : &*found;
  }
};

}  // namespace ratplus::model
