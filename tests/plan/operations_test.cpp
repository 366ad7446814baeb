// The times of single operations beside the table "Operations of a layer" of docs/performance.md (an H100).
#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "kernels/buffer.h"
#include "lib/plan/modelled_ops.h"
#include "tests/plan/jobs.h"

namespace ratplus::plan {
namespace {

constexpr std::int64_t B = 2, T = 4096, N = B * T, d = 2048, P = 128, H = d / P, V = 32000;

/// Tensors that nobody touches.
struct Layer {
  Tensor make(DType dtype, std::initializer_list<std::int64_t> shape) { return arena.allocate(dtype, shape); }
  Tensor heads() { return make(DType::bf16, {B, T, H, P}); }

  Arena arena{{DeviceKind::cuda, 0}};
  Tensor stream = make(DType::f32, {N, d}), row = make(DType::bf16, {N, d}),
         wide = make(DType::bf16, {N, 4 * d});
  Tensor projection = make(DType::bf16, {B, T, 5, H, P}), statistics = make(DType::f32, {N});
  Tensor norm = make(DType::bf16, {d}), dnorm = make(DType::f32, {d}), rope = make(DType::f32, {T, 2, P / 2});
  Tensor q = heads(), lse = make(DType::f32, {B, H, T});
};

/// The milliseconds of what f does.
double milliseconds(const std::function<void(ModelledOps&)>& f, bool deterministic = true) {
  ModelledTime time;
  ModelledOps ops(find_gpu("h100"), DType::bf16, deterministic, 1, time);
  f(ops);
  return time.now() * 1e3;
}

/// The plan of a training step takes products and dense attention to be as slow as in one, where power limits the clock.
void check_near(double planned, double measured) {
  CAPTURE(planned);
  CAPTURE(measured);
  CHECK(std::abs(planned / measured - 1) < 0.15);
}

TEST_CASE("operations of one pass over memory") {
  Layer l;
  check_near(milliseconds([&](Ops& ops) {
               ops.residual_rms_norm_forward({.y = l.stream,
                                              .u = l.row,
                                              .rstd = l.statistics,
                                              .x = l.stream,
                                              .delta = l.row,
                                              .weight = l.norm});
               ops.residual_rms_norm_backward({.dx = l.stream,
                                               .dlayer = l.row,
                                               .dweight = l.dnorm,
                                               .du = l.row,
                                               .dy = l.stream,
                                               .y = l.stream,
                                               .rstd = l.statistics,
                                               .weight = l.norm});
             }),
             0.178);
  check_near(milliseconds([&](Ops& ops) {
               const auto part = [&](int i) { return l.projection.select(2, i); };
               ops.recurrence_rope_forward({.q_rot = l.q,
                                            .k_rot = l.q,
                                            .v_rec = l.q,
                                            .q = part(1),
                                            .k = part(2),
                                            .v = part(3),
                                            .f = part(4),
                                            .rope = l.rope});
               ops.recurrence_rope_backward({.dq = part(1),
                                             .dk = part(2),
                                             .dv = part(3),
                                             .df = part(4),
                                             .dq_rot = l.q,
                                             .dk_rot = l.q,
                                             .dv_rec = l.q,
                                             .k = part(2),
                                             .v = part(3),
                                             .f = part(4),
                                             .k_rot = l.q,
                                             .v_rec = l.q,
                                             .rope = l.rope});
             }),
             0.255);
  check_near(milliseconds([&](Ops& ops) {
               ops.output_gate_forward(l.row, l.row, l.row);
               ops.output_gate_backward(l.row, l.row, l.row, l.row, l.row);
             }),
             0.099);
  check_near(milliseconds([&](Ops& ops) {
               ops.gelu_forward(l.wide, l.wide);
               ops.gelu_backward(l.wide, l.wide, l.wide);
             }),
             0.229);
  const Tensor logits = l.make(DType::bf16, {4096, V}), rows = l.make(DType::f32, {4096}),
               labels = l.make(DType::i32, {4096}), total = l.make(DType::f64, {1});
  check_near(milliseconds([&](Ops& ops) { ops.cross_entropy(rows, logits, labels, 1, true); }), 0.181);
  const Tensor state = l.make(DType::f32, {5 * d * d}), weights = l.make(DType::bf16, {5 * d * d});
  check_near(milliseconds([&](Ops& ops) { ops.adamw(state, state, state, weights, state, {}); }), 0.213);
  check_near(milliseconds([&](Ops& ops) { ops.add_sum_of_squares(total, state); }), 0.034);
}

TEST_CASE("products") {
  Layer l;
  const auto product = [&](std::int64_t in, std::int64_t out) {
    const Tensor x = l.make(DType::bf16, {N, in}), y = l.make(DType::bf16, {N, out});
    const Tensor w = l.make(DType::bf16, {out, in}), dw = l.make(DType::f32, {out, in});
    return milliseconds([&](Ops& ops) {
      ops.matmul(y, x, w, {.transpose_b = true});
      ops.matmul(x, y, w, {});
      ops.matmul(dw, y, x, {.transpose_a = true, .accumulate = true});
    });
  };
  check_near(product(d, 5 * d), 0.486 + 1.029);
  check_near(product(d, d), 0.104 + 0.222);
  check_near(product(d, 4 * d), 0.399 + 0.809);
  check_near(product(4 * d, d), 0.451 + 0.848);
}

TEST_CASE("attention") {
  Layer l;
  struct Row {
    Pattern pattern;
    double forward, backward;
    bool deterministic = true;
  };
  for (const Row& row :
       {Row{{1, 0, 0}, 0.263, 0.927}, Row{{1, 0, 0}, 0.260, 0.791, false}, Row{{64, 0, 0}, 0.062, 0.153},
        Row{{16, 0, 4}, 0.080, 0.236}, Row{{16, 256, 4}, 0.136, 0.451}}) {
    CAPTURE(row.pattern.dilation);
    const std::vector<Pattern> patterns = {row.pattern};
    check_near(milliseconds([&](Ops& ops) {
                 ops.attention_forward(
                     {.out = l.q, .lse = l.lse, .q = l.q, .k = l.q, .v = l.q, .patterns = patterns});
               }),
               row.forward);
    check_near(milliseconds(
                   [&](Ops& ops) {
                     ops.attention_backward({.dq = l.q,
                                             .dk = l.q,
                                             .dv = l.q,
                                             .dout = l.q,
                                             .out = l.q,
                                             .lse = l.lse,
                                             .q = l.q,
                                             .k = l.q,
                                             .v = l.q,
                                             .patterns = patterns});
                   },
                   row.deterministic),
               row.backward);
  }
}

TEST_CASE("attention over many chunks takes the time of dense attention over the chunks' keys") {
  constexpr std::int64_t tokens = 131072, chunk = 16;
  Arena arena({DeviceKind::cuda, 0});
  const Tensor x = arena.allocate(DType::bf16, {2, tokens, H, P}),
               lse = arena.allocate(DType::f32, {2, H, tokens});
  const std::vector<Pattern> patterns = {{chunk, 0, 0}}, with_sinks = {{chunk, 0, 1}};
  const auto forward = [&](const std::vector<Pattern>& under) {
    return milliseconds([&](Ops& ops) {
      ops.attention_forward({.out = x, .lse = lse, .q = x, .k = x, .v = x, .patterns = under});
    });
  };
  const auto backward = [&](const std::vector<Pattern>& under) {
    return milliseconds(
        [&](Ops& ops) {
          ops.attention_backward({.dq = x,
                                  .dk = x,
                                  .dv = x,
                                  .dout = x,
                                  .out = x,
                                  .lse = lse,
                                  .q = x,
                                  .k = x,
                                  .v = x,
                                  .patterns = under});
        },
        false);
  };
  // 14 operations a pair and channel at 720 TFLOP/s take 42.8 ms.
  const double many = forward(patterns) + backward(patterns);
  CHECK(many > 42.8);
  CHECK(many < 0.75 * (forward(with_sinks) + backward(with_sinks)));
}

TEST_CASE("scratch of dense attention is planned for models that may be dense") {
  ModelledTime time;
  const ModelledOps ops(find_gpu("h100"), DType::bf16, true, 1, time);
  OpShapes shapes{2, 131072, H, P};
  const std::int64_t dense = ops.scratch_bytes(shapes);
  shapes.dense = false;
  CHECK(dense == 2 * 131072 * H * 2 * 131072);
  CHECK(ops.scratch_bytes(shapes) == 2 * 131072 * H * (1 + 2 * P) * 4);
}

}  // namespace
}  // namespace ratplus::plan
