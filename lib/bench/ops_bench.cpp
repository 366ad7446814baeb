#include "lib/bench/ops_bench.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "kernels/buffer.h"
#include "kernels/random.h"

namespace ratplus::bench {
namespace {

constexpr double least_seconds = 0.3;  ///< that an operation is repeated for
constexpr int least_repeats = 5;

/// Median seconds of a call, after one to warm up.
double median_seconds(Ops& ops, const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  call();
  ops.synchronize();
  std::vector<double> times;
  double total = 0;
  while (static_cast<int>(times.size()) < least_repeats || total < least_seconds) {
    const auto began = Clock::now();
    call();
    ops.synchronize();
    times.push_back(std::chrono::duration<double>(Clock::now() - began).count());
    total += times.back();
  }
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

/// Normal values in a tensor of the arena; not zeros, on which some operations are faster.
Tensor random_tensor(Ops& ops, Arena& arena, std::initializer_list<std::int64_t> shape) {
  static std::uint32_t stream = 0;
  const Tensor x = arena.allocate(DType::f32, shape);
  if (!arena.committed()) return x;
  std::vector<float> values(static_cast<std::size_t>(x.numel()));
  fill_normal(values, 1.0F, 7, Purpose::test, stream++, 0);
  ops.upload(x, values.data());
  return x;
}

/// (query, key) pairs that one head attends to.
double attended_pairs(const Pattern& pattern, std::int64_t tokens) {
  double pairs = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t s = 0; s <= t; ++s) pairs += pattern.attends(t, s) ? 1 : 0;
  }
  return pairs;
}

/// The tensors of one layer, f32.
struct Layer {
  Layer(Ops& ops, Arena& arena, const OpsBenchSettings& s) {
    const auto N = s.batch * s.tokens;
    const auto d = s.width;
    const auto H = d / s.head_dim;
    const auto rows = [&](std::int64_t columns) { return random_tensor(ops, arena, {N, columns}); };
    const auto heads = [&] { return random_tensor(ops, arena, {s.batch, s.tokens, H, s.head_dim}); };
    x = rows(d), delta = rows(d), y = rows(d), u = rows(d), du = rows(d);
    wide = rows(5 * d), dwide = rows(5 * d), h = rows(4 * d), z = rows(4 * d);
    q = heads(), k = heads(), v = heads(), a = heads(), dq = heads(), dk = heads(), dv = heads(),
    da = heads();
    rstd = random_tensor(ops, arena, {N});
    lse = random_tensor(ops, arena, {s.batch, H, s.tokens});
    norm = random_tensor(ops, arena, {d});
    dnorm = random_tensor(ops, arena, {d});
    weight = random_tensor(ops, arena, {5 * d, d});
    dweight = random_tensor(ops, arena, {5 * d, d});
    first = random_tensor(ops, arena, {5 * d * d});
    second = random_tensor(ops, arena, {5 * d * d});
    rope = arena.allocate(DType::f32, {s.tokens, 2, s.head_dim / 2});
    logits = random_tensor(ops, arena, {std::min<std::int64_t>(N, 1024), s.vocab_size});
    losses = random_tensor(ops, arena, {logits.size(0)});
    labels = arena.allocate(DType::i32, {logits.size(0)});
    scratch = arena.allocate(DType::u8, {ops.scratch_bytes({s.batch, s.tokens, H, s.head_dim})});
  }
  Tensor x, delta, y, u, du, wide, dwide, h, z, q, k, v, a, dq, dk, dv, da, rstd, lse, norm, dnorm, weight,
      dweight, first, second, rope, logits, losses, labels, scratch;
};

/// Sum of the tensors' bytes.
double bytes_of(std::initializer_list<Tensor> tensors) {
  double bytes = 0;
  for (const auto& x : tensors) bytes += static_cast<double>(x.numel() * size_of(x.dtype()));
  return bytes;
}

OpTime time_attention(Ops& ops, const Layer& l, const OpsBenchSettings& s, const Pattern& pattern) {
  const std::vector<Pattern> patterns = {pattern};
  OpTime time{.name = "attention " + to_string(pattern)};
  time.forward = median_seconds(ops, [&] { ops.attention_forward(l.a, l.lse, l.q, l.k, l.v, patterns); });
  time.backward = median_seconds(
      ops, [&] { ops.attention_backward(l.dq, l.dk, l.dv, l.da, l.a, l.lse, l.q, l.k, l.v, patterns); });
  // Two products forward and five backward, each 2 P operations a pair; P channels of H heads are the width.
  time.operations = 14.0 * static_cast<double>(s.batch * s.width) * attended_pairs(pattern, s.tokens);
  time.bytes = bytes_of({l.q, l.k, l.v, l.a}) + bytes_of({l.q, l.k, l.v, l.a, l.da, l.dq, l.dk, l.dv});
  return time;
}

}  // namespace

double OpTime::floor(const Ceilings& ceilings) const {
  return std::max(operations / ceilings.product_rate, bytes / ceilings.bandwidth);
}

Ceilings measure_ceilings(Ops& ops) {
  constexpr std::int64_t n = 1024;
  constexpr std::int64_t copied = std::int64_t{32} << 20;  // elements: far more than caches hold
  Arena arena(ops.device());
  Tensor a, b, c, from, to;
  const auto build = [&] {
    a = random_tensor(ops, arena, {n, n});
    b = random_tensor(ops, arena, {n, n});
    c = random_tensor(ops, arena, {n, n});
    from = random_tensor(ops, arena, {copied});
    to = arena.allocate(DType::f32, {copied});
  };
  build();
  arena.commit();
  build();
  const double product = median_seconds(ops, [&] { ops.matmul(c, a, b, {.transpose_b = true}); });
  const double copy = median_seconds(ops, [&] { ops.copy(to, from); });
  return {.product_rate = 2.0 * n * n * n / product,
          .bandwidth = 2.0 * static_cast<double>(from.bytes()) / copy};
}

std::vector<OpTime> time_ops(Ops& ops, const OpsBenchSettings& s) {
  Arena arena(ops.device());
  { const Layer counted(ops, arena, s); }
  arena.commit();
  const Layer l(ops, arena, s);
  ops.use_scratch(l.scratch);
  ops.rope_table(l.rope, 10000);
  ops.fill(l.labels, 1);
  const auto N = s.batch * s.tokens;
  const auto d = s.width;
  const auto heads = [&](const Tensor& x) {
    return x.view({s.batch, s.tokens, 5, d / s.head_dim, s.head_dim});
  };
  const auto gate = [&](const Tensor& x) { return x.slice(1, 0, d); };
  std::vector<OpTime> times;
  const auto add = [&](const std::string& name, const std::function<void()>& forward,
                       const std::function<void()>& backward, double operations, double bytes) {
    OpTime time{.name = name, .operations = operations, .bytes = bytes};
    time.forward = median_seconds(ops, forward);
    if (backward) time.backward = median_seconds(ops, backward);
    times.push_back(time);
  };

  add(
      "residual + RMSNorm",
      [&] { ops.residual_rms_norm_forward(l.y, l.u, l.rstd, l.x, l.delta, l.norm, 1e-6); },
      [&] { ops.residual_rms_norm_backward(l.x, l.dnorm, l.du, l.delta, l.y, l.rstd, l.norm); }, 0,
      bytes_of({l.x, l.delta, l.y, l.u}) + bytes_of({l.x, l.du, l.delta, l.y}));
  add(
      "product [N,d] x [d,5d]", [&] { ops.matmul(l.wide, l.u, l.weight, {.transpose_b = true}); },
      [&] {
        ops.matmul(l.du, l.dwide, l.weight, {});
        ops.matmul(l.dweight, l.dwide, l.u, {.transpose_a = true, .accumulate = true});
      },
      3 * 2.0 * static_cast<double>(N * 5 * d * d), 0);
  add(
      "gate, recurrence, RoPE", [&] { ops.recurrence_rope_forward(l.q, l.k, l.v, heads(l.wide), l.rope); },
      [&] {
        ops.recurrence_rope_backward(heads(l.dwide), l.dq, l.dk, l.dv, heads(l.wide), l.k, l.v, l.rope);
      },
      0,
      bytes_of({l.q, l.k, l.v, l.a}) + bytes_of({l.q, l.k, l.v}) + bytes_of({l.dq, l.dk, l.dv}) +
          bytes_of({l.q, l.k, l.v, l.k, l.v}) + bytes_of({l.dq, l.dk, l.dv, l.da}));
  for (const auto& pattern : s.patterns) times.push_back(time_attention(ops, l, s, pattern));
  const Tensor a = l.a.view({N, d});
  add(
      "output gate", [&] { ops.output_gate_forward(l.u, a, gate(l.wide)); },
      [&] { ops.output_gate_backward(l.du, gate(l.dwide), l.du, a, gate(l.wide)); }, 0,
      bytes_of({l.u, a, a}) + bytes_of({l.du, l.du, a, a, a}));
  add(
      "GELU", [&] { ops.gelu_forward(l.z, l.h); }, [&] { ops.gelu_backward(l.z, l.z, l.h); }, 0,
      bytes_of({l.z, l.h}) + bytes_of({l.z, l.z, l.h}));
  add(
      "cross-entropy and gradient", [&] { ops.cross_entropy(l.losses, l.logits, l.labels, 1e-3, true); }, {},
      0, bytes_of({l.logits, l.logits}));
  const Tensor weights = l.weight.view({5 * d * d});
  const Tensor gradient = l.dweight.view({5 * d * d});
  ops.fill(l.second, 1);
  add(
      "AdamW", [&] { ops.adamw(weights, l.first, l.second, {}, gradient, {.lr = 1e-6}); }, {}, 0,
      bytes_of({weights, l.first, l.second}) * 2 + bytes_of({gradient}));
  return times;
}

}  // namespace ratplus::bench
