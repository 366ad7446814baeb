// AttentionShape: the checked sizes of a call of attention, on any backend.
#pragma once

#include "kernels/checks.h"
#include "kernels/ops.h"

namespace ratplus {

struct AttentionShape {
  explicit AttentionShape(const OpShapes& shapes)
      : batch(shapes.batch), tokens(shapes.tokens), heads(shapes.heads), head_dim(shapes.head_dim) {}
  /// q [B, T, H, P] of this type gives the sizes; patterns are valid, 1 or H of them.
  AttentionShape(const Tensor& q, DType compute, HeadPatterns patterns, const char* op)
      : kind(q.device().kind), dtype(compute) {
    check_rank(q, kind, dtype, 4, op, "q");
    batch = q.size(0), tokens = q.size(1), heads = q.size(2), head_dim = q.size(3);
    require(patterns.size() == 1 || static_cast<std::int64_t>(patterns.size()) == heads,
            "{}: {} patterns for {} heads", op, patterns.size(), heads);
    for (const Pattern& pattern : patterns) validate(pattern, op);
  }

  void check_rows(const Tensor& tensor, const char* op, const char* name) const {
    check_tensor(tensor, kind, dtype, {batch, tokens, heads, head_dim}, op, name);
  }
  void check_lse(const Tensor& lse, const char* op) const {
    check_tensor(lse, kind, DType::f32, {batch, heads, tokens}, op, "lse");
    check_contiguous(lse, op, "lse");
  }
  /// The other tensors of Ops::attention_forward.
  void check_forward(const Tensor& out, const Tensor& lse, const Tensor& k, const Tensor& v,
                     const char* op) const {
    check_rows(k, op, "k");
    check_rows(v, op, "v");
    check_rows(out, op, "out");
    check_lse(lse, op);
  }
  /// Those that Ops::attention_backward has beside them.
  void check_gradients(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                       const char* op) const {
    check_rows(dout, op, "dout");
    check_rows(dq, op, "dq");
    check_rows(dk, op, "dk");
    check_rows(dv, op, "dv");
  }
  const Pattern& pattern(HeadPatterns patterns, std::int64_t h) const {
    return patterns.size() == 1 ? patterns.front() : patterns[static_cast<std::size_t>(h)];
  }

  std::int64_t batch, tokens, heads, head_dim;
  DeviceKind kind = DeviceKind::cpu;
  DType dtype = DType::f32;
};

}  // namespace ratplus
