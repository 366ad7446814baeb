// A sequence that comes in pieces, with its state carried from one to the next, gives the outputs and gradients of the
// whole one, wherever it is cut.
#include <cmath>

#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

namespace {

constexpr std::int64_t none = Pattern::no_dilation;

struct Sizes {
  std::int64_t b, t, h, p;
  Shape shape() const { return {b, t, h, p}; }
  std::int64_t count() const { return b * t * h * p; }
};

/// Begins of the pieces, and the end of the last: 0, ..., T.
using Cuts = std::vector<std::int64_t>;

std::string describe(const Cuts& cuts) {
  std::string text;
  for (const auto cut : cuts) text += std::to_string(cut) + " ";
  return text;
}

/// What one way of going through a sequence gives, tensor by tensor.
using Results = std::vector<std::pair<std::string, Values>>;

void compare(const Results& pieces, const Results& whole, double tolerance, bool same) {
  REQUIRE(pieces.size() == whole.size());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    CAPTURE(whole[i].first);
    // A gradient that is zero but for rounding is compared with the size of ones that are not.
    const double size = std::sqrt(static_cast<double>(whole[i].second.size())) * 0.01;
    CHECK(relative_error(pieces[i].second, whole[i].second, size) < tolerance);
    if (same) CHECK(same_bits(pieces[i].second, whole[i].second));
  }
}

/// The tolerance for pieces against the whole: bf16 rounds a sum once more where it is handed on.
double tolerance_of(const Bench& bench) {
  return bench.compute() == DType::bf16 ? 2e-2 : 1e-6;
}

// --- recurrence and RoPE -----------------------------------------------------------------------------------------

/// Piece by piece, the state carried; the state after the sequence, too.
Results recurrence_in(const Backend& backend, const Sizes& s, const Cuts& cuts) {
  Bench bench(backend, {s.b, s.t, s.h, s.p});
  const DType c = bench.compute();
  const Shape state_shape{s.b, 2, s.h, s.p};
  const auto input = [&](std::uint32_t stream) {
    return bench.tensor(c, s.shape(), normal_values(s.count(), stream));
  };
  const auto output = [&] { return bench.poisoned(c, s.shape()); };
  const Tensor rope = bench.poisoned(DType::f32, {s.t, 2, s.p / 2});
  bench->rope_table(rope, 10000);
  const Tensor q = input(1), k = input(2), v = input(3), f = input(4);
  const Tensor q_rot = output(), k_rot = output(), v_rec = output();
  const auto state = [&](std::uint32_t stream) {
    return bench.tensor(DType::f32, state_shape, normal_values(count(state_shape), stream));
  };
  const Tensor first_state = state(5);
  Tensor carried = first_state;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const auto piece = [&](const Tensor& x) { return x.slice(1, cuts[i], cuts[i + 1]); };
    const Tensor next = bench.poisoned(DType::f32, state_shape);
    bench->recurrence_rope_forward({.q_rot = piece(q_rot),
                                    .k_rot = piece(k_rot),
                                    .v_rec = piece(v_rec),
                                    .state_out = next,
                                    .q = piece(q),
                                    .k = piece(k),
                                    .v = piece(v),
                                    .f = piece(f),
                                    .rope = rope,
                                    .state_in = cuts[i] == 0 ? Tensor() : carried,
                                    .first_position = cuts[i]});
    carried = next;
  }
  Results results{{"q_rot", bench.read(q_rot)},
                  {"k_rot", bench.read(k_rot)},
                  {"v_rec", bench.read(v_rec)},
                  {"state", bench.read(carried)}};

  const Tensor dq_rot = input(6), dk_rot = input(7), dv_rec = input(8);
  const Tensor dq = output(), dk = output(), dv = output(), df = output();
  Tensor dstate = state(9);
  for (std::size_t i = cuts.size() - 1; i-- > 0;) {
    const auto piece = [&](const Tensor& x) { return x.slice(1, cuts[i], cuts[i + 1]); };
    const auto before = [&](const Tensor& x) { return i == 0 ? Tensor() : x.slice(1, cuts[i] - 1, cuts[i]); };
    const Tensor next = bench.poisoned(DType::f32, state_shape);
    bench->recurrence_rope_backward({.dq = piece(dq),
                                     .dk = piece(dk),
                                     .dv = piece(dv),
                                     .df = piece(df),
                                     .dstate_in = next,
                                     .dq_rot = piece(dq_rot),
                                     .dk_rot = piece(dk_rot),
                                     .dv_rec = piece(dv_rec),
                                     .dstate_out = dstate,
                                     .k = piece(k),
                                     .v = piece(v),
                                     .f = piece(f),
                                     .k_rot = piece(k_rot),
                                     .v_rec = piece(v_rec),
                                     .k_rot_before = before(k_rot),
                                     .v_rec_before = before(v_rec),
                                     .rope = rope,
                                     .first_position = cuts[i]});
    dstate = next;
  }
  for (const auto& [name, tensor] :
       {std::pair{"dq", dq}, {"dk", dk}, {"dv", dv}, {"df", df}, {"dstate", dstate}}) {
    results.emplace_back(name, bench.read(tensor));
  }
  return results;
}

// --- attention ---------------------------------------------------------------------------------------------------

Results attention_in(const Backend& backend, const Sizes& s, const Cuts& cuts,
                     const std::vector<Pattern>& patterns) {
  Bench bench(backend, {s.b, s.t, s.h, s.p});
  const DType c = bench.compute();
  const auto input = [&](std::uint32_t stream) {
    return bench.tensor(c, s.shape(), normal_values(s.count(), stream));
  };
  const auto output = [&] { return bench.poisoned(c, s.shape()); };
  const Tensor q = input(1), k = input(2), v = input(3), dout = input(4), out = output(), dq = output();
  Tensor dk = output(), dv = output();
  const Shape sums_shape{s.b, s.t, 2, s.h, s.p};
  const Tensor sums = bench.tensor(DType::f32, sums_shape, Values(static_cast<std::size_t>(2 * s.count())));
  Values lse;
  std::vector<Tensor> lses;
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const auto queries = [&](const Tensor& x) { return x.slice(1, cuts[i], cuts[i + 1]); };
    const auto keys = [&](const Tensor& x) { return x.slice(1, 0, cuts[i + 1]); };
    lses.push_back(bench.poisoned(DType::f32, {s.b, s.h, cuts[i + 1] - cuts[i]}));
    bench->attention_forward({.out = queries(out),
                              .lse = lses.back(),
                              .q = queries(q),
                              .k = keys(k),
                              .v = keys(v),
                              .patterns = patterns,
                              .first_query = cuts[i]});
  }
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const auto queries = [&](const Tensor& x) { return x.slice(1, cuts[i], cuts[i + 1]); };
    const auto keys = [&](const Tensor& x) { return x.slice(1, 0, cuts[i + 1]); };
    bench->attention_backward({.dq = queries(dq),
                               .dk = keys(dk),
                               .dv = keys(dv),
                               .key_sums = cuts.size() > 2 ? keys(sums) : Tensor(),
                               .dout = queries(dout),
                               .out = queries(out),
                               .lse = lses[i],
                               .q = queries(q),
                               .k = keys(k),
                               .v = keys(v),
                               .patterns = patterns,
                               .first_query = cuts[i]});
  }
  // In the order of the whole sequence's: by sequence and head.
  std::vector<Values> parts;
  for (const auto& tensor : lses) parts.push_back(bench.read(tensor));
  for (std::int64_t row = 0; row < s.b * s.h; ++row) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto length = cuts[i + 1] - cuts[i];
      lse.insert(lse.end(), parts[i].begin() + row * length, parts[i].begin() + (row + 1) * length);
    }
  }
  return {{"out", bench.read(out)},
          {"lse", lse},
          {"dq", bench.read(dq)},
          {"dk", bench.read(dk)},
          {"dv", bench.read(dv)}};
}

/// dk and dv of single pieces, added up by the test, without key_sums.
Results summed_attention_in(const Backend& backend, const Sizes& s, const Cuts& cuts,
                            const std::vector<Pattern>& patterns) {
  Bench bench(backend, {s.b, s.t, s.h, s.p});
  const DType c = bench.compute();
  const auto input = [&](std::uint32_t stream) {
    return bench.tensor(c, s.shape(), normal_values(s.count(), stream));
  };
  const Tensor q = input(1), k = input(2), v = input(3), dout = input(4);
  Results results{{"dk", Values(static_cast<std::size_t>(s.count()))},
                  {"dv", Values(static_cast<std::size_t>(s.count()))}};
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    const auto queries = [&](const Tensor& x) { return x.slice(1, cuts[i], cuts[i + 1]); };
    const auto keys = [&](const Tensor& x) { return x.slice(1, 0, cuts[i + 1]); };
    const auto length = cuts[i + 1] - cuts[i];
    const Shape shape{s.b, length, s.h, s.p}, key_shape{s.b, cuts[i + 1], s.h, s.p};
    const Tensor out = bench.poisoned(c, shape), dq = bench.poisoned(c, shape),
                 dk = bench.poisoned(c, key_shape), dv = bench.poisoned(c, key_shape),
                 lse = bench.poisoned(DType::f32, {s.b, s.h, length});
    bench->attention_forward({.out = out,
                              .lse = lse,
                              .q = queries(q),
                              .k = keys(k),
                              .v = keys(v),
                              .patterns = patterns,
                              .first_query = cuts[i]});
    bench->attention_backward({.dq = dq,
                               .dk = dk,
                               .dv = dv,
                               .dout = queries(dout),
                               .out = out,
                               .lse = lse,
                               .q = queries(q),
                               .k = keys(k),
                               .v = keys(v),
                               .patterns = patterns,
                               .first_query = cuts[i]});
    for (std::size_t which = 0; which < 2; ++which) {
      const Values values = bench.read(which == 0 ? dk : dv);
      const auto row = static_cast<std::size_t>(s.h * s.p);
      for (std::int64_t b = 0; b < s.b; ++b) {
        for (std::size_t j = 0; j < static_cast<std::size_t>(cuts[i + 1]) * row; ++j) {
          results[which].second[static_cast<std::size_t>(b * s.t) * row + j] +=
              values[static_cast<std::size_t>(b * cuts[i + 1]) * row + j];
        }
      }
    }
  }
  return results;
}

}  // namespace

TEST_CASE("the recurrence in pieces is that of the whole sequence") {
  FOR_EACH_BACKEND(backend) {
    const bool cpu = backend.make()->device().kind == DeviceKind::cpu;
    for (const Sizes& s :
         {Sizes{2, 192, 3, 8}, Sizes{1, 130, 2, 64}, Sizes{1, 192, 1, 128}, Sizes{2, 70, 3, 6}}) {
      CAPTURE(s.t);
      CAPTURE(s.p);
      const Results whole = recurrence_in(backend, s, {0, s.t});
      const Bench bench(backend);
      for (const Cuts& cuts :
           {Cuts{0, 64, s.t}, Cuts{0, 1, 2, 3, s.t}, Cuts{0, 17, 65, s.t}, Cuts{0, s.t - 1, s.t}}) {
        INFO(describe(cuts));
        // A CPU's scan has no borders: its pieces give the same bits wherever they end.
        compare(recurrence_in(backend, s, cuts), whole, tolerance_of(bench), cpu);
      }
      if (s.t % 64 == 0) {  // a GPU's blocks have 64 steps forward and 32 backward
        compare(recurrence_in(backend, s, {0, 64, 128, s.t}), whole, tolerance_of(bench), true);
      }
    }
  }
}

TEST_CASE("attention in pieces is that of the whole sequence") {
  FOR_EACH_BACKEND(backend) {
    const bool cpu = backend.make()->device().kind == DeviceKind::cpu;
    for (const Pattern& pattern :
         {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 32, 4}, Pattern{none, 64, 0}, Pattern{none, 100, 3},
          Pattern{none, 0, 5}, Pattern{3, 16, 0}, Pattern{7, 17, 70}, Pattern{2, 0, 0}, Pattern{400, 5, 1},
          Pattern{none, 0, 0}}) {
      INFO(to_string(pattern));
      for (const Sizes& s : {Sizes{2, 301, 2, 8}, Sizes{1, 261, 1, 128}, Sizes{1, 150, 2, 20}}) {
        CAPTURE(s.t);
        CAPTURE(s.p);
        const Results whole = attention_in(backend, s, {0, s.t}, {pattern});
        const Bench bench(backend);
        for (const Cuts& cuts :
             {Cuts{0, 128, s.t}, Cuts{0, 1, 2, 5, s.t}, Cuts{0, 64, 100, 149, s.t}, Cuts{0, s.t - 1, s.t}}) {
          if (cuts[cuts.size() - 2] >= s.t) continue;
          INFO(describe(cuts));
          // A CPU's blocks of queries begin at multiples of 128.
          compare(attention_in(backend, s, cuts, {pattern}), whole, tolerance_of(bench),
                  cpu && cuts[1] == 128);
          const Results keys{whole[3], whole[4]};
          compare(summed_attention_in(backend, s, cuts, {pattern}), keys, tolerance_of(bench), false);
        }
      }
    }
  }
}

TEST_CASE("attention in pieces with a pattern a head") {
  FOR_EACH_BACKEND(backend) {
    const std::vector<Pattern> patterns{Pattern{}, Pattern{64, 0, 0}, Pattern{16, 32, 4},
                                        Pattern{none, 20, 1}};
    const Sizes s{2, 200, 4, 16};
    const Bench bench(backend);
    const Results whole = attention_in(backend, s, {0, s.t}, patterns);
    compare(attention_in(backend, s, {0, 77, 140, s.t}, patterns), whole, tolerance_of(bench), false);
  }
}
