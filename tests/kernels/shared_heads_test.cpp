// Heads that share queries or keys, a recurrence that restarts with every chunk and has a bias in its gate, and sums of
// columns, against float64.
#include <array>
#include <cmath>
#include <utility>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;
using reference::at;
using reference::expand;
using reference::HeadShape;
using reference::with_heads;

namespace {

constexpr double base = 10000;

/// The transpose: sums over the heads that share.
template <typename Of>
Values sum_of_shared(const Values& x, std::int64_t heads_of_sum, const HeadShape& s, Of&& of) {
  const HeadShape shared = with_heads(s, heads_of_sum);
  Values y(static_cast<std::size_t>(shared.count()));
  for (std::int64_t b = 0; b < s.b; ++b) {
    for (std::int64_t t = 0; t < s.t; ++t) {
      for (std::int64_t h = 0; h < s.h; ++h) {
        for (std::int64_t i = 0; i < s.p; ++i)
          at(y, shared.index(b, t, of(h), i)) += at(x, s.index(b, t, h, i));
      }
    }
  }
  return y;
}

// --- the recurrence ----------------------------------------------------------------------------------------------

/// A call with H heads of gates, `queries` of q (0: none) whose gradient comes by `query_gradients` heads, and `keys` heads
/// of k (0: none); in two pieces where cut > 0.
struct RecurrenceCase {
  HeadShape s;
  std::int64_t queries, query_gradients, keys, chunk;
  bool biased = true;
  std::int64_t cut = 0;
};

void check_recurrence(const Backend& backend, const RecurrenceCase& x) {
  const HeadShape& s = x.s;
  CAPTURE(s.b);
  CAPTURE(s.t);
  CAPTURE(s.h);
  CAPTURE(s.p);
  CAPTURE(x.queries);
  CAPTURE(x.keys);
  CAPTURE(x.chunk);
  CAPTURE(x.cut);
  Bench bench(backend, {s.b, s.t, s.h, s.p});
  const DType c = bench.compute();
  const auto shape = [&](std::int64_t heads) { return Shape{s.b, s.t, heads, s.p}; };
  const auto input = [&](std::int64_t heads, std::uint32_t stream) {
    const auto dims = shape(heads);
    return heads == 0 ? Tensor() : bench.strided(c, dims, normal_values(count(dims), stream));
  };
  const auto output = [&](std::int64_t heads) {
    return heads == 0 ? Tensor() : bench.poisoned(c, shape(heads));
  };
  const std::int64_t states = x.keys == 0 ? 0 : s.h;  // heads of k~
  const Tensor rope = bench.poisoned(DType::f32, {s.t, 2, s.p / 2});
  bench->rope_table(rope, base, std::max<std::int64_t>(x.chunk, 1));
  const Tensor q = input(x.queries, 1), k = input(x.keys, 2), v = input(s.h, 3), f = input(s.h, 4);
  const Tensor bias = x.biased ? bench.tensor(DType::f32, {s.h, s.p}, normal_values(s.h * s.p, 5)) : Tensor();
  const Tensor q_rot = output(x.queries), k_rot = output(states), v_rec = output(s.h);
  const Tensor dq = output(x.queries), dk = output(x.keys), dv = output(s.h), df = output(s.h);
  const Tensor dq_rot = input(x.queries == 0 ? 0 : x.query_gradients, 6), dk_rot = input(states, 7),
               dv_rec = input(s.h, 8);
  const Values dq0 = dq_rot ? bench.read(dq_rot) : Values(), dk0 = dk_rot ? bench.read(dk_rot) : Values(),
               dv0 = bench.read(dv_rec);
  const auto state = [&] {
    return bench.tensor(DType::f32, {s.b, 2, s.h, s.p},
                        Values(static_cast<std::size_t>(2 * s.b * s.h * s.p)));
  };
  struct Piece {
    std::int64_t begin, end;
  };
  const std::vector<Piece> pieces =
      x.cut > 0 ? std::vector<Piece>{{0, x.cut}, {x.cut, s.t}} : std::vector<Piece>{{0, s.t}};
  const auto of = [](const Tensor& tensor, const Piece& piece) {
    return tensor ? tensor.slice(1, piece.begin, piece.end) : Tensor();
  };
  const Tensor carried = x.cut > 0 ? state() : Tensor(), dcarried = x.cut > 0 ? state() : Tensor();
  for (const Piece& piece : pieces) {
    bench->recurrence_rope_forward({.q_rot = of(q_rot, piece),
                                    .k_rot = of(k_rot, piece),
                                    .v_rec = of(v_rec, piece),
                                    .state_out = piece.begin == 0 ? carried : Tensor(),
                                    .q = of(q, piece),
                                    .k = of(k, piece),
                                    .v = of(v, piece),
                                    .f = of(f, piece),
                                    .gate_bias = bias,
                                    .rope = q || k ? rope : Tensor(),
                                    .state_in = piece.begin > 0 ? carried : Tensor(),
                                    .first_position = piece.begin,
                                    .chunk = x.chunk});
  }
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    const bool later = piece->begin > 0;
    const Piece last_before{piece->begin - 1, piece->begin};
    bench->recurrence_rope_backward({.dq = of(dq, *piece),
                                     .dk = of(dk, *piece),
                                     .dv = of(dv, *piece),
                                     .df = of(df, *piece),
                                     .dstate_in = later ? dcarried : Tensor(),
                                     .dq_rot = of(dq_rot, *piece),
                                     .dk_rot = of(dk_rot, *piece),
                                     .dv_rec = of(dv_rec, *piece),
                                     .dstate_out = !later ? dcarried : Tensor(),
                                     .k = of(k, *piece),
                                     .v = of(v, *piece),
                                     .f = of(f, *piece),
                                     .gate_bias = bias,
                                     .k_rot = of(k_rot, *piece),
                                     .v_rec = of(v_rec, *piece),
                                     .k_rot_before = later ? of(k_rot, last_before) : Tensor(),
                                     .v_rec_before = later ? of(v_rec, last_before) : Tensor(),
                                     .rope = q || k ? rope : Tensor(),
                                     .first_position = piece->begin,
                                     .chunk = x.chunk});
  }

  Values gate = bench.read(f);
  if (bias) {
    const Values b = bench.read(bias);
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] += b[i % b.size()];
  }
  const double tolerance = bench.tolerance();
  const std::int64_t positions = std::max<std::int64_t>(x.chunk, 1);
  const auto head_of_keys = [&](std::int64_t h) { return h % x.keys; };
  Values expected_df(gate.size());
  const auto of_v = reference::recurrence_gradient(dv0, bench.read(v), gate, s, x.chunk);
  expected_df = of_v.df;
  CHECK(relative_error(bench.read(v_rec), reference::recurrence(bench.read(v), gate, s, x.chunk)) <
        tolerance);
  CHECK(relative_error(bench.read(dv), of_v.dx) < tolerance);
  if (k) {
    const Values keys = expand(bench.read(k), x.keys, s, head_of_keys);
    const Values k_state = reference::recurrence(keys, gate, s, x.chunk);
    CHECK(relative_error(bench.read(k_rot),
                         reference::rope(k_state, s, base, reference::Turn::forward, positions)) < tolerance);
    const Values e = reference::rope(dk0, s, base, reference::Turn::backward, positions);
    const auto of_k = reference::recurrence_gradient(e, keys, gate, s, x.chunk);
    CHECK(relative_error(bench.read(dk), sum_of_shared(of_k.dx, x.keys, s, head_of_keys)) < tolerance);
    for (std::size_t i = 0; i < expected_df.size(); ++i) expected_df[i] += of_k.df[i];
  }
  CHECK(relative_error(bench.read(df), expected_df) < tolerance);
  if (q) {
    const HeadShape of_q = with_heads(s, x.queries), of_dq = with_heads(s, x.query_gradients);
    CHECK(relative_error(bench.read(q_rot),
                         reference::rope(bench.read(q), of_q, base, reference::Turn::forward, positions)) <
          tolerance);
    const Values turned = reference::rope(dq0, of_dq, base, reference::Turn::backward, positions);
    CHECK(relative_error(bench.read(dq), sum_of_shared(turned, x.queries, of_dq, [&](std::int64_t h) {
                           return h % x.queries;
                         })) < tolerance);
  }
}

// --- attention ---------------------------------------------------------------------------------------------------

void check_attention(const Backend& backend, const HeadShape& s, std::int64_t queries, std::int64_t keys,
                     const std::vector<Pattern>& patterns) {
  CAPTURE(s.t);
  CAPTURE(s.h);
  CAPTURE(s.p);
  CAPTURE(queries);
  CAPTURE(keys);
  CAPTURE(to_string(patterns.front()));
  Bench bench(backend, {s.b, s.t, s.h, s.p, keys});
  const DType c = bench.compute();
  const auto input = [&](std::int64_t heads, std::uint32_t stream) {
    const Shape shape{s.b, s.t, heads, s.p};
    return bench.strided(c, shape, normal_values(count(shape), stream));
  };
  const auto output = [&](std::int64_t heads) { return bench.poisoned(c, {s.b, s.t, heads, s.p}); };
  const Tensor q = input(queries, 1), k = input(keys, 2), v = input(keys, 3), dout = input(s.h, 4);
  const Tensor out = output(s.h), dq = output(s.h), dk = output(keys), dv = output(keys);
  const Tensor lse = bench.poisoned(DType::f32, {s.b, s.h, s.t});
  bench->attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = patterns});
  const auto backward = [&] {
    bench->attention_backward({.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = dout,
                               .out = out,
                               .lse = lse,
                               .q = q,
                               .k = k,
                               .v = v,
                               .patterns = patterns});
  };
  backward();
  const auto query_of = [&](std::int64_t h) { return h % queries; };
  const auto key_of = [&](std::int64_t h) { return h / (s.h / keys); };
  const Values q0 = expand(bench.read(q), queries, s, query_of), k0 = expand(bench.read(k), keys, s, key_of),
               v0 = expand(bench.read(v), keys, s, key_of);
  const auto expected = reference::attention(q0, k0, v0, s, patterns);
  CHECK(relative_error(bench.read(out), expected.out) < bench.tolerance());
  CHECK(relative_error(bench.read(lse), expected.lse) < bench.tolerance());
  const auto gradient = reference::attention_gradient(q0, k0, v0, bench.read(dout), s, patterns);
  const double size = 0.1 * std::sqrt(dot(gradient.dv, gradient.dv));
  CHECK(relative_error(bench.read(dq), gradient.dq, size) < bench.tolerance());
  CHECK(relative_error(bench.read(dk), sum_of_shared(gradient.dk, keys, s, key_of), size) <
        bench.tolerance());
  CHECK(relative_error(bench.read(dv), sum_of_shared(gradient.dv, keys, s, key_of)) < bench.tolerance());
  const Values dk0 = bench.read(dk), dv0 = bench.read(dv);
  backward();
  CHECK(same_bits(bench.read(dk), dk0));
  CHECK(same_bits(bench.read(dv), dv0));
}

/// What attention and its gradient give; dq of each head.
struct AttentionResults {
  Values out, lse, dq, dk, dv;
};

/// Of `queries` heads of q under (chunk, 0, 0); same_bits_again: a second call gives the same bits.
AttentionResults attention_over_chunks(Bench& bench, const HeadShape& s, std::int64_t queries,
                                       std::int64_t chunk, const std::array<Values, 4>& inputs,
                                       bool same_bits_again) {
  const std::vector<Pattern> patterns{Pattern{chunk, 0, 0}};
  const DType c = bench.compute();
  const Shape shape{s.b, s.t, s.h, s.p}, of_queries{s.b, s.t, queries, s.p};
  const Tensor q = bench.strided(c, of_queries, inputs[0]), k = bench.strided(c, shape, inputs[1]),
               v = bench.tensor(c, shape, inputs[2]), dout = bench.strided(c, shape, inputs[3]);
  const Tensor out = bench.poisoned(c, shape), lse = bench.poisoned(DType::f32, {s.b, s.h, s.t});
  const Tensor dq = bench.poisoned(c, shape), dk = bench.strided_poisoned(c, shape),
               dv = bench.poisoned(c, shape);
  bench->attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = patterns});
  const auto backward = [&] {
    bench->attention_backward({.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = dout,
                               .out = out,
                               .lse = lse,
                               .q = q,
                               .k = k,
                               .v = v,
                               .patterns = patterns});
  };
  backward();
  AttentionResults results{bench.read(out), bench.read(lse), bench.read(dq), bench.read(dk), bench.read(dv)};
  if (!same_bits_again) return results;
  bench->attention_forward({.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = patterns});
  backward();
  CHECK(same_bits(bench.read(out), results.out));
  CHECK(same_bits(bench.read(lse), results.lse));
  CHECK(same_bits(bench.read(dq), results.dq));
  CHECK(same_bits(bench.read(dk), results.dk));
  CHECK(same_bits(bench.read(dv), results.dv));
  return results;
}

/// A GPU's results beside the CPU's at the same rounded inputs.
void check_many_chunks(const Backend& backend, const HeadShape& s, std::int64_t queries, std::int64_t chunk,
                       bool same_bits_again) {
  CAPTURE(s.b);
  CAPTURE(s.t);
  CAPTURE(s.h);
  CAPTURE(s.p);
  CAPTURE(queries);
  CAPTURE(chunk);
  Bench bench(backend, {s.b, s.t, s.h, s.p});
  const auto rounded = [&](std::int64_t heads, std::uint32_t stream) {
    const Shape shape{s.b, s.t, heads, s.p};
    return bench.read(bench.tensor(bench.compute(), shape, normal_values(count(shape), stream)));
  };
  const std::array inputs{rounded(queries, 1), rounded(s.h, 2), rounded(s.h, 3), rounded(s.h, 4)};
  const auto found = attention_over_chunks(bench, s, queries, chunk, inputs, same_bits_again);
  Bench cpu({"cpu float32", [] { return make_cpu_ops(4); }, 0}, {s.b, s.t, s.h, s.p});
  const auto expected = attention_over_chunks(cpu, s, queries, chunk, inputs, false);
  CHECK(relative_error(found.out, expected.out) < bench.tolerance());
  CHECK(relative_error(found.lse, expected.lse) < bench.tolerance());
  CHECK(relative_error(found.dq, expected.dq) < bench.tolerance());
  CHECK(relative_error(found.dk, expected.dk) < bench.tolerance());
  CHECK(relative_error(found.dv, expected.dv) < bench.tolerance());
  // Of the first and the last chunk by themselves, where there are no earlier and no later ones.
  const auto of_tokens = [&](const Values& x, std::int64_t begin, std::int64_t end) {
    const auto width = static_cast<std::ptrdiff_t>(s.h * s.p);
    return Values(x.begin() + begin * width, x.begin() + end * width);
  };
  const std::int64_t last = (s.t - 1) / chunk * chunk;
  for (const auto& entry : {std::pair{std::int64_t{0}, chunk}, std::pair{last, s.t}}) {
    const auto& begin = entry.first;
    const auto& end = entry.second;
    CAPTURE(begin);
    const double size =
        0.1 * std::sqrt(dot(of_tokens(expected.dv, begin, end), of_tokens(expected.dv, begin, end)));
    CHECK(relative_error(of_tokens(found.out, begin, end), of_tokens(expected.out, begin, end)) <
          bench.tolerance());
    CHECK(relative_error(of_tokens(found.dq, begin, end), of_tokens(expected.dq, begin, end), size) <
          bench.tolerance());
    CHECK(relative_error(of_tokens(found.dk, begin, end), of_tokens(expected.dk, begin, end), size) <
          bench.tolerance());
    CHECK(relative_error(of_tokens(found.dv, begin, end), of_tokens(expected.dv, begin, end)) <
          bench.tolerance());
  }
}

}  // namespace

TEST_CASE("the reference of a recurrence in chunks has the gradient of central differences") {
  const HeadShape s{2, 11, 2, 3};
  const Values x = normal_values(s.count(), 1), f = normal_values(s.count(), 2),
               e = normal_values(s.count(), 3);
  for (const std::int64_t chunk : {1, 4, 20}) {
    const auto gradient = reference::recurrence_gradient(e, x, f, s, chunk);
    CHECK(gradient_error(
              gradient.dx, x, [&](const Values& y) { return dot(e, reference::recurrence(y, f, s, chunk)); },
              4) < 1e-6);
    CHECK(gradient_error(
              gradient.df, f, [&](const Values& y) { return dot(e, reference::recurrence(x, y, s, chunk)); },
              5) < 1e-6);
  }
}

TEST_CASE("a recurrence in chunks with a bias and shared queries and keys, forward and backward") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t groups : {1, 2, 4}) {
      for (const std::int64_t chunk : {2, 16, 5, 64, 1000}) {
        check_recurrence(backend, {{2, 131, 4, 8}, groups, 4, groups, chunk});
        check_recurrence(backend, {{1, 128, 4, 16}, groups, 4, groups, chunk});
      }
      check_recurrence(backend, {{1, 320, 4, 128}, groups, 4, groups, 16});
      check_recurrence(backend, {{2, 99, 4, 6}, groups, 4, groups, 7});
    }
  }
}

TEST_CASE("a recurrence of values alone, forward and backward") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t chunk : {0, 16, 9}) {
      check_recurrence(backend, {{2, 131, 3, 8}, 0, 0, 0, chunk});
      check_recurrence(backend, {{1, 257, 2, 128}, 0, 0, 0, chunk, false});
    }
  }
}

TEST_CASE("more heads of queries than of keys with a recurrence") {
  FOR_EACH_BACKEND(backend) {
    check_recurrence(backend, {{2, 131, 2, 8}, 4, 4, 2, 0, false});
    check_recurrence(backend, {{1, 300, 1, 128}, 8, 8, 1, 0, false});
  }
}

TEST_CASE("a recurrence in chunks that comes in two pieces") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t cut : {16, 21, 64, 100}) {
      check_recurrence(backend, {{2, 131, 4, 8}, 2, 4, 2, 16, true, cut});
      check_recurrence(backend, {{2, 131, 4, 8}, 2, 4, 2, 7, true, cut});
    }
  }
}

TEST_CASE("RoPE of tensors with different numbers of heads, without a recurrence") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const DType c = bench.compute();
    const HeadShape of_q{2, 37, 6, 8}, of_k = with_heads(of_q, 2);
    const Shape q_shape{2, 37, 6, 8}, k_shape{2, 37, 2, 8};
    const Tensor rope = bench.poisoned(DType::f32, {37, 2, 4});
    bench->rope_table(rope, base);
    const Tensor q = bench.strided(c, q_shape, normal_values(of_q.count(), 1)),
                 k = bench.strided(c, k_shape, normal_values(of_k.count(), 2)),
                 v = bench.strided(c, k_shape, normal_values(of_k.count(), 3));
    const Tensor q_rot = bench.poisoned(c, q_shape), k_rot = bench.poisoned(c, k_shape),
                 v_rec = bench.poisoned(c, k_shape);
    bench->recurrence_rope_forward(
        {.q_rot = q_rot, .k_rot = k_rot, .v_rec = v_rec, .q = q, .k = k, .v = v, .rope = rope});
    CHECK(relative_error(bench.read(q_rot), reference::rope(bench.read(q), of_q, base)) < bench.tolerance());
    CHECK(relative_error(bench.read(k_rot), reference::rope(bench.read(k), of_k, base)) < bench.tolerance());
    CHECK(same_bits(bench.read(v_rec), bench.read(v)));
    const Tensor dq = bench.poisoned(c, q_shape), dk = bench.poisoned(c, k_shape);
    bench->recurrence_rope_backward({.dq = dq, .dk = dk, .dq_rot = q, .dk_rot = k, .rope = rope});
    CHECK(relative_error(bench.read(dq), reference::rope(bench.read(q), of_q, base,
                                                         reference::Turn::backward)) < bench.tolerance());
    CHECK(relative_error(bench.read(dk), reference::rope(bench.read(k), of_k, base,
                                                         reference::Turn::backward)) < bench.tolerance());
  }
}

TEST_CASE("attention with shared queries or shared keys") {
  constexpr std::int64_t none = Pattern::no_dilation;
  FOR_EACH_BACKEND(backend) {
    for (const Pattern& pattern : {Pattern{}, Pattern{16, 0, 0}, Pattern{none, 20, 0}, Pattern{5, 30, 2}}) {
      check_attention(backend, {2, 150, 4, 8}, 4, 2, {pattern});
      check_attention(backend, {1, 150, 4, 8}, 4, 1, {pattern});
      check_attention(backend, {1, 150, 4, 8}, 2, 4, {pattern});
      check_attention(backend, {1, 150, 4, 8}, 1, 2, {pattern});
    }
    check_attention(backend, {1, 300, 4, 128}, 4, 2, {Pattern{}});
    check_attention(backend, {1, 300, 4, 128}, 2, 4, {Pattern{16, 0, 0}});
    check_attention(backend, {1, 300, 4, 64}, 4, 1, {Pattern{none, 100, 0}});
    check_attention(backend, {1, 90, 4, 16}, 4, 2,
                    {Pattern{none, 0, 4}, Pattern{}, Pattern{8, 4, 0}, Pattern{none, 20, 1}});
  }
}

TEST_CASE("attention over chunks of any number of tokens and groups of queries") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t groups : {1, 2, 4}) {
      for (const std::int64_t tokens : {1, 15, 16, 17, 250, 256}) {
        check_attention(backend, {2, tokens, 4, 64}, groups, 4, {Pattern{16, 0, 0}});
      }
    }
    check_attention(backend, {1, 4096, 2, 16}, 2, 2, {Pattern{16, 0, 0}});
  }
}

TEST_CASE("attention over many chunks") {
  struct Case {
    HeadShape s;
    std::int64_t queries, chunk, dense_chunk;
  };
  const std::vector<Case> cases{{{2, 4096, 4, 128}, 2, 4, 4},    {{2, 4100, 4, 128}, 1, 4, 4},
                                {{1, 4104, 8, 64}, 4, 4, 4},     {{2, 4099, 4, 128}, 4, 4, 0},
                                {{2, 16384, 2, 128}, 2, 16, 16}, {{1, 4096, 4, 128}, 1, 16, 0}};
  for (const Case& x : cases) {
    const std::vector<Pattern> patterns{Pattern{x.chunk, 0, 0}};
    const Shape shape{x.s.b, x.s.t, x.s.h, x.s.p};
    const Tensor like(nullptr, DType::bf16, shape);
    const operation::AttentionForward call{
        .out = like, .lse = {}, .q = like, .k = like, .v = like, .patterns = patterns};
    CHECK(call.dense_chunk(DType::bf16) == x.dense_chunk);
    CHECK(call.dense_chunk(DType::f32) == 0);
  }
  FOR_EACH_BACKEND(backend) {
    if (backend.make()->device().kind == DeviceKind::cpu) continue;
    for (const Case& x : cases) check_many_chunks(backend, x.s, x.queries, x.chunk, true);
    if (backend.make()->compute_type() != DType::bf16) continue;
    const Backend any_order{"cuda bfloat16, any order", [] { return make_cuda_ops(0, DType::bf16, false); },
                            backend.tolerance};
    for (const Case& x : cases) check_many_chunks(any_order, x.s, x.queries, x.chunk, false);
  }
}

TEST_CASE("sums of columns are added in float32") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t rows : {1, 63, 64, 1000, 5000}) {
      for (const std::int64_t columns : {1, 40, 300}) {
        Bench bench(backend, {1, rows, 1, columns});
        const Values before = normal_values(columns, 1);
        const Tensor sums = bench.tensor(DType::f32, {columns}, before);
        const Tensor x = bench.strided(bench.compute(), {rows, columns}, normal_values(rows * columns, 2));
        bench->add_column_sums(sums, x);
        const Values values = bench.read(x);
        Values expected = before;
        for (std::size_t i = 0; i < values.size(); ++i) expected[i % expected.size()] += values[i];
        CHECK(relative_error(bench.read(sums), expected) < 1e-5);
      }
    }
  }
}
