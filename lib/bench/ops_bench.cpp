#include "lib/bench/ops_bench.h"

#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/host_memory.h"
#include "lib/bench/operation_timer.h"
#include "lib/model/linear.h"

namespace ratplus::bench {
namespace {

/// The tensors of one layer.
struct LayerSizes {
  LayerSizes(Ops& ops, Arena& arena, const OpsBenchSettings& s) {
    const auto N = s.batch * s.tokens;
    const auto d = s.width;
    const auto H = d / s.head_dim;
    RandomTensors random(ops, arena);
    for (Tensor* t : {&x, &y, &dy}) *t = random.f32({N, d});
    for (Tensor* t : {&delta, &u, &du, &dlayer}) *t = random.compute({N, d});
    for (Tensor* t : {&wide, &dwide}) *t = random.compute({N, 5 * d});
    // GELU has an input that no other operation writes: of large values it would make subnormal numbers, which are slow.
    for (Tensor* t : {&h, &z, &before_gelu}) *t = random.compute({N, 4 * d});
    for (Tensor* t : {&q, &k, &v, &a, &dq, &dk, &dv, &da})
      *t = random.compute({s.batch, s.tokens, H, s.head_dim});
    rstd = random.f32({N});
    lse = random.f32({s.batch, H, s.tokens});
    norm = random.compute({d});
    dnorm = random.f32({d});
    weight = random.compute({5 * d, d});
    dweight = random.f32({5 * d, d});
    for (Tensor* t : {&master, &first, &second, &gradient}) *t = random.f32({5 * d * d});
    rope = arena.allocate(DType::f32, {s.tokens, 2, s.head_dim / 2});
    logits = random.compute({std::min<std::int64_t>(N, 4096), s.vocab_size});
    losses = random.f32({logits.size(0)});
    embedding = random.compute({s.vocab_size, d});
    dembedding = random.f32({s.vocab_size, d});
    labels = arena.allocate(DType::i32, {logits.size(0)});
    scratch = arena.allocate(DType::u8, {ops.scratch_bytes({s.batch, s.tokens, H, s.head_dim})});
  }
  Tensor x, y, dy, delta, u, du, dlayer, wide, dwide, h, z, before_gelu, q, k, v, a, dq, dk, dv, da, rstd,
      lse, norm, dnorm, weight, dweight, master, first, second, gradient, rope, logits, losses, embedding,
      dembedding, labels, scratch;
};

OpTime time_attention(Ops& ops, const LayerSizes& l, const Pattern& pattern) {
  const std::vector<Pattern> patterns = {pattern};
  return time_both(
      ops, "attention " + to_string(pattern),
      [&] {
        ops.attention_forward({.out = l.a, .lse = l.lse, .q = l.q, .k = l.k, .v = l.v, .patterns = patterns});
      },
      [&] {
        ops.attention_backward({.dq = l.dq,
                                .dk = l.dk,
                                .dv = l.dv,
                                .dout = l.da,
                                .out = l.a,
                                .lse = l.lse,
                                .q = l.q,
                                .k = l.k,
                                .v = l.v,
                                .patterns = patterns});
      });
}

}  // namespace

double OpTime::floor(const Ceilings& ceilings) const {
  return std::max(operations / ceilings.product_rate, bytes / ceilings.bandwidth);
}

Ceilings measure_ceilings(Ops& ops) {
  const bool gpu = ops.device().kind == DeviceKind::cuda;
  const std::int64_t n = gpu ? 8192 : 1024;
  const std::int64_t copied = std::int64_t{gpu ? 256 : 32} << 20;  // elements: far more than caches hold
  Arena arena(ops.device());
  Tensor a, b, c, from, to, scratch;
  const auto build = [&] {
    RandomTensors random(ops, arena);
    for (Tensor* t : {&a, &b, &c}) *t = random.compute({n, n});
    from = random.f32({copied});
    to = arena.allocate(DType::f32, {copied});
    scratch = arena.allocate(DType::u8, {ops.scratch_bytes({})});
  };
  build();
  arena.commit();
  build();
  ops.use_scratch(scratch);
  const double product = median_seconds(ops, [&] { model::linear::forward(ops, c, a, b); });
  const double copy = median_seconds(ops, [&] { ops.copy(to, from); });
  double to_host = 0;
  if (gpu) {
    const HostMemory host(ops.device(), from.bytes());
    const double download = median_seconds(ops, [&] { ops.download(host.as<char>().data(), from); });
    to_host = static_cast<double>(from.bytes()) / download;
  }
  return {.product_rate =
              2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / product,
          .bandwidth = 2.0 * static_cast<double>(from.bytes()) / copy,
          .to_host = to_host};
}

std::vector<OpTime> time_ops(Ops& ops, const OpsBenchSettings& s) {
  Arena arena(ops.device());
  { const LayerSizes counted(ops, arena, s); }
  arena.commit();
  const LayerSizes l(ops, arena, s);
  ops.use_scratch(l.scratch);
  ops.rope_table(l.rope, 10000);
  ops.fill(l.labels, 1);
  const Buffer total_memory(ops.device(), size_of(DType::f64));
  const Tensor total = total_memory.as_tensor(DType::f64);
  const auto N = s.batch * s.tokens;
  const auto d = s.width;
  const auto part = [&](const Tensor& x, int i) {
    return x.view({s.batch, s.tokens, 5, d / s.head_dim, s.head_dim}).select(2, i);
  };
  const auto gate = [&](const Tensor& x) { return x.slice(1, 0, d); };
  std::vector<OpTime> times;
  const auto add = [&](const std::string& name, const std::function<void()>& forward,
                       const std::function<void()>& backward) {
    times.push_back(time_both(ops, name, forward, backward));
  };

  add(
      "residual + RMSNorm",
      [&] {
        ops.residual_rms_norm_forward(
            {.y = l.y, .u = l.u, .rstd = l.rstd, .x = l.x, .delta = l.delta, .weight = l.norm});
      },
      [&] {
        ops.residual_rms_norm_backward({.dx = l.dy,
                                        .dlayer = l.dlayer,
                                        .dweight = l.dnorm,
                                        .du = l.du,
                                        .dy = l.dy,
                                        .y = l.y,
                                        .rstd = l.rstd,
                                        .weight = l.norm});
      });
  // y = x w^T; dx = dy w and dw += dy^T x from a dy of its own, so that nothing grows from call to call.
  const auto add_product = [&](const std::string& name, const Tensor& y, const Tensor& x, const Tensor& dx) {
    const auto out = y.size(1), in = x.size(1);
    const auto first = [](const Tensor& all, std::int64_t rows, std::int64_t columns) {
      return all.view({all.numel()}).slice(0, 0, rows * columns).view({rows, columns});
    };
    const Tensor w = first(l.weight, out, in), dw = first(l.dweight, out, in), dy = first(l.dwide, N, out);
    add(
        name, [&] { model::linear::forward(ops, y, x, w); },
        [&] {
          model::linear::input_gradient(ops, dx, dy, w);
          model::linear::weight_gradient(ops, dw, dy, x, false);
        });
  };
  add_product("product [N,d] x [d,5d]", l.wide, l.u, l.du);
  add_product("product [N,d] x [d,d]", l.dlayer, l.u, l.du);
  add_product("product [N,d] x [d,4d]", l.h, l.u, l.du);
  add_product("product [N,4d] x [4d,d]", l.dlayer, l.h, l.z);
  add(
      "gate, recurrence, RoPE",
      [&] {
        ops.recurrence_rope_forward({.q_rot = l.q,
                                     .k_rot = l.k,
                                     .v_rec = l.v,
                                     .q = part(l.wide, 1),
                                     .k = part(l.wide, 2),
                                     .v = part(l.wide, 3),
                                     .f = part(l.wide, 4),
                                     .rope = l.rope});
      },
      [&] {
        ops.recurrence_rope_backward({.dq = part(l.dwide, 1),
                                      .dk = part(l.dwide, 2),
                                      .dv = part(l.dwide, 3),
                                      .df = part(l.dwide, 4),
                                      .dq_rot = l.dq,
                                      .dk_rot = l.dk,
                                      .dv_rec = l.dv,
                                      .k = part(l.wide, 2),
                                      .v = part(l.wide, 3),
                                      .f = part(l.wide, 4),
                                      .k_rot = l.k,
                                      .v_rec = l.v,
                                      .rope = l.rope});
      });
  for (const auto& pattern : s.patterns) times.push_back(time_attention(ops, l, pattern));
  const Tensor a = l.a.view({N, d});
  // Gradients are not taken in place, as training does: they would shrink from call to call to subnormal numbers.
  const Tensor dz = l.dwide.view({l.dwide.numel()}).slice(0, 0, l.z.numel()).view({N, 4 * d});
  add(
      "output gate", [&] { ops.output_gate_forward(l.u, a, gate(l.wide)); },
      [&] { ops.output_gate_backward(l.dlayer, gate(l.dwide), l.du, a, gate(l.wide)); });
  add(
      "GELU", [&] { ops.gelu_forward(l.z, l.before_gelu); },
      [&] { ops.gelu_backward(l.z, dz, l.before_gelu); });
  add("cross-entropy and gradient", [&] { ops.cross_entropy(l.losses, l.logits, l.labels, 1e-3, true); }, {});
  // A chunk of the loss head: logits, loss and its gradient in place, gradients of rows and embedding.
  const Tensor rows = l.u.slice(0, 0, l.logits.size(0)), drows = l.du.slice(0, 0, l.logits.size(0));
  add(
      fmt::format("loss head, {} rows", l.logits.size(0)),
      [&] { model::linear::forward(ops, l.logits, rows, l.embedding); },
      [&] {
        ops.cross_entropy(l.losses, l.logits, l.labels, 1e-3, true);
        model::linear::weight_gradient(ops, l.dembedding, l.logits, rows, false);
        model::linear::input_gradient(ops, drows, l.logits, l.embedding);
      });
  const Tensor weights = l.weight.view({5 * d * d});
  // Where products are not in f32, the update also writes the weights that they use.
  const Tensor written = ops.compute_type() == DType::f32 ? Tensor() : weights;
  ops.fill(l.second, 1);
  add("AdamW", [&] { ops.adamw(l.master, l.first, l.second, written, l.gradient, {.lr = 1e-6}); }, {});
  add("gradient norm", [&] { ops.add_sum_of_squares(total, l.gradient); }, {});
  return times;
}

}  // namespace ratplus::bench
