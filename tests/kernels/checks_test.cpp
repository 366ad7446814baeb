// Mismatched shapes and types are std::logic_error, before any memory is touched.
#include <stdexcept>

#include "base/error.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("operations refuse tensors that do not fit") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend, {1, 4, 1, 8});
    const DType c = bench.compute();
    const Tensor x = bench.poisoned(c, {4, 8}), wide = bench.poisoned(c, {4, 9}),
                 vector = bench.poisoned(c, {8});
    const Tensor f32 = bench.poisoned(DType::f32, {4, 8}), ints = bench.poisoned(DType::i32, {4, 8});
    const Tensor heads = bench.poisoned(c, {1, 4, 1, 8}), lse = bench.poisoned(DType::f32, {1, 1, 4});
    const Tensor rope = bench.poisoned(DType::f32, {4, 2, 4}), five = bench.poisoned(c, {1, 4, 5, 1, 8});
    const std::vector<Pattern> one{Pattern{}}, two{Pattern{}, Pattern{}}, bad{Pattern{1, -1, 0}};

    CHECK_THROWS_AS(bench->matmul(f32, x, x, {}), std::logic_error);
    CHECK_THROWS_AS(bench->matmul(ints, x, x, {}), std::logic_error);
    CHECK_THROWS_AS(bench->matmul(f32, x, vector, {}), std::logic_error);
    CHECK_THROWS_AS(bench->copy(x, wide), std::logic_error);
    CHECK_THROWS_AS(bench->copy(f32, ints), std::logic_error);
    CHECK_THROWS_AS(bench->add(f32, wide), std::logic_error);
    CHECK_THROWS_AS(bench->gelu_forward(x, wide), std::logic_error);
    CHECK_THROWS_AS(bench->gelu_forward(x, ints), std::logic_error);
    CHECK_THROWS_AS(bench->output_gate_forward(x, wide, x), std::logic_error);
    CHECK_THROWS_AS(bench->residual_rms_norm_forward(
                        {.y = f32, .u = x, .rstd = lse, .x = f32, .delta = x, .weight = vector}),
                    std::logic_error);
    const auto recurrence = recurrence_of(five, heads, heads, heads, rope);
    const auto recurs_with = [&](auto change) {
      auto call = recurrence;
      change(call);
      bench->recurrence_rope_forward(call);
    };
    CHECK_THROWS_AS(recurs_with([&](auto& call) { call.v_rec = x; }), std::logic_error);
    CHECK_THROWS_AS(recurs_with([&](auto& call) { call.rope = lse; }), std::logic_error);
    CHECK_THROWS_AS(recurs_with([&](auto& call) { call.first_position = 1; }), std::logic_error);
    CHECK_THROWS_AS(recurs_with([&](auto& call) { call.state_in = f32; }), std::logic_error);
    const operation::AttentionForward attention{
        .out = heads, .lse = lse, .q = heads, .k = heads, .v = heads, .patterns = one};
    const auto attends_with = [&](auto change) {
      auto call = attention;
      change(call);
      bench->attention_forward(call);
    };
    CHECK_THROWS_AS(attends_with([&](auto& call) { call.patterns = two; }), std::logic_error);
    CHECK_THROWS_AS(attends_with([&](auto& call) { call.v = x; }), std::logic_error);
    CHECK_THROWS_AS(attends_with([&](auto& call) { call.first_query = 1; }), std::logic_error);
    CHECK_THROWS_AS(attends_with([&](auto& call) { call.patterns = bad; }), Error);
    CHECK_THROWS_AS(bench->cross_entropy(vector, x, ints, 1, true), std::logic_error);
    CHECK_THROWS_AS(bench->hits(vector, x, ints), std::logic_error);
    CHECK_THROWS_AS(bench->add_sum(bench.poisoned(DType::f64, {1}), ints), std::logic_error);
    CHECK_THROWS_AS(bench->add_sum(f32, f32), std::logic_error);
  }
}

TEST_CASE("the CPU backend says which token, label or scratch is wrong") {
  const auto ops = make_cpu_ops(1);
  std::vector<float> table(20), x(8);
  std::vector<std::int32_t> ids{0, 5};
  const Tensor tokens(ids.data(), DType::i32, {2});
  CHECK_THROWS_WITH_AS(ops->embedding_forward(Tensor(x.data(), DType::f32, {2, 4}), tokens,
                                              Tensor(table.data(), DType::f32, {5, 4})),
                       "embedding_forward: token 5 of row 1 is outside the vocabulary of 5",
                       std::logic_error);
  CHECK_THROWS_WITH_AS(ops->cross_entropy(Tensor(x.data(), DType::f32, {2}),
                                          Tensor(table.data(), DType::f32, {2, 5}), tokens, 1, false),
                       "cross_entropy: label 5 of row 1 is outside the vocabulary of 5", std::logic_error);
  std::vector<std::int32_t> hits(2);
  CHECK_THROWS_WITH_AS(
      ops->hits(Tensor(hits.data(), DType::i32, {2}), Tensor(table.data(), DType::f32, {2, 5}), tokens),
      "hits: label 5 of row 1 is outside the vocabulary of 5", std::logic_error);
  const Tensor head(x.data(), DType::f32, {1, 1, 1, 8}), lse(table.data(), DType::f32, {1, 1, 1});
  const std::vector<Pattern> dense{Pattern{}};
  CHECK_THROWS_AS(
      ops->attention_forward({.out = head, .lse = lse, .q = head, .k = head, .v = head, .patterns = dense}),
      std::logic_error);  // no scratch lent
  CHECK_THROWS_AS(make_cpu_ops(-1), Error);
}
