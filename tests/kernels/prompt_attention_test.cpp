// Attention in pieces of prompts: against float64, and with the same bits wherever a prompt is cut and whatever follows.
#include <algorithm>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;
using reference::expand;
using reference::HeadShape;

namespace {

constexpr std::int64_t none = Pattern::no_dilation;

/// Sequences whose H heads read Hq heads of queries and Hk of keys.
struct Case {
  HeadShape s;
  std::int64_t queries, keys;
  std::vector<Pattern> patterns;
  double scale = 1;  ///< of queries and keys
};

struct Result {
  Values out;               ///< [B, T, H, P]
  std::vector<Values> lse;  ///< of each piece, [B, H, ...]
};

class Prompts {
 public:
  Prompts(const Backend& backend, const Case& of)
      : x_(of), bench_(backend, {of.s.b, of.s.t, of.s.h, of.s.p}) {
    q_ = input(of.queries, 1, of.scale), k_ = input(of.keys, 2, of.scale), v_ = input(of.keys, 3, 1);
  }

  /// The first `tokens` tokens, in pieces that end at `cuts` and there.
  Result run(std::int64_t tokens, std::vector<std::int64_t> cuts) {
    const auto& s = x_.s;
    const Tensor out = bench_.strided_poisoned(bench_.compute(), {s.b, tokens, s.h, s.p});
    Result result;
    cuts.push_back(tokens);
    std::int64_t begin = 0;
    for (const auto end : cuts) {
      const Tensor lse = bench_.poisoned(DType::f32, {s.b, s.h, end - begin});
      bench_->attention_forward({.out = out.slice(1, begin, end),
                                 .lse = lse,
                                 .q = q_.slice(1, begin, end),
                                 .k = k_.slice(1, 0, end),
                                 .v = v_.slice(1, 0, end),
                                 .patterns = x_.patterns,
                                 .first_query = begin,
                                 .in_pieces = true});
      result.lse.push_back(bench_.read(lse));
      begin = end;
    }
    result.out = bench_.read(out);
    return result;
  }

  reference::Attention expected() const {
    const auto& s = x_.s;
    const auto query = [&](std::int64_t h) { return h % x_.queries; };
    const auto key = [&](std::int64_t h) { return h / (s.h / x_.keys); };
    return reference::attention(expand(bench_.read(q_), x_.queries, s, query),
                                expand(bench_.read(k_), x_.keys, s, key),
                                expand(bench_.read(v_), x_.keys, s, key), s, x_.patterns);
  }
  double tolerance() const { return bench_.tolerance(); }

 private:
  Tensor input(std::int64_t heads, std::uint32_t stream, double scale) {
    const Shape shape{x_.s.b, x_.s.t, heads, x_.s.p};
    return bench_.strided(bench_.compute(), shape, normal_values(count(shape), stream, scale));
  }

  Case x_;
  Bench bench_;
  Tensor q_, k_, v_;
};

/// The first `tokens` tokens of [B, T, row].
Values beginning(const Values& x, const HeadShape& s, std::int64_t tokens) {
  const auto row = s.h * s.p;
  Values y;
  for (std::int64_t b = 0; b < s.b; ++b)
    y.insert(y.end(), x.begin() + b * s.t * row, x.begin() + (b * s.t + tokens) * row);
  return y;
}

void check(const Backend& backend, const Case& x) {
  const auto& s = x.s;
  CAPTURE(s.b);
  CAPTURE(s.t);
  CAPTURE(s.h);
  CAPTURE(s.p);
  CAPTURE(x.queries);
  CAPTURE(x.keys);
  INFO(describe(x.patterns));
  Prompts prompts(backend, x);
  const auto expected = prompts.expected();
  const Result whole = prompts.run(s.t, {});
  // Scores of some hundred carry an absolute error of some 1e-5, which is a relative one of the weights.
  const double tolerance = std::max(prompts.tolerance(), x.scale > 1 ? 2e-4 : 0);
  CHECK(relative_error(whole.out, expected.out) < tolerance);
  CHECK(relative_error(whole.lse.front(), expected.lse) < tolerance);
  for (const std::vector<std::int64_t>& cuts :
       {std::vector<std::int64_t>{128}, std::vector<std::int64_t>{256, 384}}) {
    if (cuts.back() >= s.t) continue;
    const Result pieces = prompts.run(s.t, cuts);
    CHECK(same_bits(pieces.out, whole.out));
    if (s.b > 1) continue;
    for (std::int64_t h = 0; h < s.h; ++h) {  // of the last piece
      const auto last = s.t - cuts.back();
      const Values of_piece(pieces.lse.back().begin() + h * last, pieces.lse.back().begin() + (h + 1) * last);
      const Values of_whole(whole.lse.front().begin() + h * s.t + cuts.back(),
                            whole.lse.front().begin() + (h + 1) * s.t);
      CHECK(same_bits(of_piece, of_whole));
    }
  }
  for (const std::int64_t tokens : {std::int64_t{1}, std::int64_t{64}, s.t / 2, s.t - 1})
    CHECK(same_bits(prompts.run(tokens, {}).out, beginning(whole.out, s, tokens)));
}

}  // namespace

TEST_CASE("attention of prompts has the same bits wherever they are cut") {
  FOR_EACH_BACKEND(backend) {
    for (const std::int64_t p : {64, 128}) {
      check(backend, {{1, 520, 2, p}, 2, 2, {Pattern{}}});
      check(backend, {{2, 130, 3, p}, 3, 3, {Pattern{}}});
      check(backend, {{1, 300, 2, p}, 2, 2, {Pattern{16, 64, 4}}});
      check(backend, {{1, 384, 4, p}, 4, 2, {Pattern{}}});  // grouped queries
      check(backend, {{1, 400, 4, p}, 2, 4, {Pattern{}}});  // shared queries
      check(backend, {{1, 300, 3, p}, 3, 3, {Pattern{}, Pattern{64, 0, 4}, Pattern{}}});
      check(backend, {{1, 390, 2, p}, 2, 2, {Pattern{none, 100, 0}, Pattern{}}});
      check(backend, {{1, 260, 1, p}, 1, 1, {Pattern{}}, 10});
    }
    check(backend, {{1, 260, 2, 32}, 2, 2, {Pattern{}}});
    check(backend, {{1, 150, 2, 20}, 2, 2, {Pattern{}}});
  }
}

TEST_CASE("attention of more blocks of queries than a GPU has processors") {
  FOR_EACH_BACKEND(backend) {
    check(backend, {{1, 140, 90, 64}, 90, 90, {Pattern{}}});
  }
}

TEST_CASE("attention of more keys than a GPU's cache holds has the bits of each head alone") {
  FOR_EACH_BACKEND(backend) {
    if (backend.make()->compute_type() != DType::bf16) continue;  // a GPU's; others take minutes
    const HeadShape s{1, 2048, 40, 128};
    Bench bench(backend, {s.b, s.t, s.h, s.p});
    const Shape shape{s.b, s.t, s.h, s.p};
    const auto input = [&](std::uint32_t stream) {
      return bench.tensor(DType::bf16, shape, normal_values(s.count(), stream));
    };
    const Tensor q = input(1), k = input(2), v = input(3), out = bench.poisoned(DType::bf16, shape),
                 lse = bench.poisoned(DType::f32, {s.b, s.h, s.t});
    const std::vector<Pattern> dense{Pattern{}};
    bench->attention_forward(
        {.out = out, .lse = lse, .q = q, .k = k, .v = v, .patterns = dense, .in_pieces = true});
    for (const std::int64_t h : {0, 15, 16, 31, 32, 39}) {
      CAPTURE(h);
      const auto head = [&](const Tensor& x) { return x.slice(2, h, h + 1); };
      const Tensor alone = bench.poisoned(DType::bf16, {s.b, s.t, 1, s.p}),
                   lse_alone = bench.poisoned(DType::f32, {s.b, 1, s.t});
      bench->attention_forward({.out = alone,
                                .lse = lse_alone,
                                .q = head(q),
                                .k = head(k),
                                .v = head(v),
                                .patterns = dense,
                                .in_pieces = true});
      CHECK(same_bits(bench.read(alone), bench.read(head(out))));
      CHECK(same_bits(bench.read(lse_alone), bench.read(lse.slice(1, h, h + 1))));
    }
  }
}
