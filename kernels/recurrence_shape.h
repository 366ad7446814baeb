// RecurrenceShape: the checked sizes of a call of the recurrence, on any backend.
#pragma once

#include "kernels/checks.h"
#include "kernels/ops.h"

namespace ratplus {

/// The parts of a projection [B, T, 5 or 4, H, P], in order; without the recurrence there is no gate f.
enum ProjectionPart { part_o, part_q, part_k, part_v, part_f };

struct RecurrenceShape {
  /// projection of this type and rope f32 [at least T, 2, P/2] give the sizes.
  RecurrenceShape(const Tensor& projection, const Tensor& rope, DType compute, const char* op)
      : kind(projection.device().kind), dtype(compute) {
    check_rank(projection, kind, dtype, 5, op, "projection");
    batch = projection.size(0), tokens = projection.size(1);
    heads = projection.size(3), head_dim = projection.size(4);
    gated = projection.size(2) == 5;
    require(gated || projection.size(2) == 4, "{}: a projection has 4 or 5 parts, not {}", op,
            projection.size(2));
    require(head_dim % 2 == 0, "{}: the head dimension {} is odd", op, head_dim);
    require(rope.rank() == 3 && rope.size(0) >= tokens, "{}: the rotary table has too few positions", op);
    check_tensor(rope, kind, DType::f32, {rope.size(0), 2, head_dim / 2}, op, "rope");
    check_contiguous(rope, op, "rope");
  }

  /// The other tensors of Ops::recurrence_rope_forward.
  void check_forward(const Tensor& q_rot, const Tensor& k_rot, const Tensor& v_rec, const char* op) const {
    check_heads(q_rot, op, "q_rot");
    check_heads(k_rot, op, "k_rot");
    check_heads(v_rec, op, "v_rec");
  }
  /// Those of Ops::recurrence_rope_backward.
  void check_backward(const Tensor& dprojection, const Tensor& dq_rot, const Tensor& dk_rot,
                      const Tensor& dv_rec, const Tensor& k_rot, const Tensor& v_rec, const char* op) const {
    check_tensor(dprojection, kind, dtype, {batch, tokens, gated ? 5 : 4, heads, head_dim}, op,
                 "dprojection");
    check_heads(dq_rot, op, "dq_rot");
    check_heads(dk_rot, op, "dk_rot");
    check_heads(dv_rec, op, "dv_rec");
    check_heads(k_rot, op, "k_rot");
    check_heads(v_rec, op, "v_rec");
  }
  bool empty() const { return batch * tokens * heads * head_dim == 0; }

  std::int64_t batch, tokens, heads, head_dim;
  bool gated;
  DeviceKind kind = DeviceKind::cpu;
  DType dtype = DType::f32;

 private:
  void check_heads(const Tensor& tensor, const char* op, const char* name) const {
    check_tensor(tensor, kind, dtype, {batch, tokens, heads, head_dim}, op, name);
  }
};

/// Checks Ops::rope_table's table f32 [T, 2, P/2].
inline void check_rope_table(const Tensor& table, DeviceKind kind) {
  require(table.rank() == 3, "rope_table: the table has {} dimensions, not 3", table.rank());
  check_tensor(table, kind, DType::f32, {table.size(0), 2, table.size(2)}, "rope_table", "table");
  check_contiguous(table, "rope_table", "table");
}

}  // namespace ratplus
