#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/kernels/reference.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

namespace {

constexpr double scale = 0.125;

/// How the logits lie in memory.
enum class Layout { contiguous, strided };

/// Labels of some rows: at both ends of the vocabulary, anywhere in it, and none for two of the rows.
std::vector<std::int32_t> some_labels(std::int64_t rows, std::int64_t vocab) {
  std::vector<std::int32_t> labels = random_ids(rows, vocab, 1);
  labels.front() = static_cast<std::int32_t>(vocab - 1);
  labels[1] = 0;
  labels[3] = -100, labels.back() = -1;
  return labels;
}

void check_loss(const Backend& backend, std::int64_t rows, std::int64_t vocab, DType dtype, Layout layout) {
  CAPTURE(rows);
  CAPTURE(vocab);
  CAPTURE(to_string(dtype));
  CAPTURE(layout == Layout::strided);
  Bench bench(backend);
  const double tolerance = dtype == DType::f32 ? 1e-5 : bench.tolerance();
  const std::vector<std::int32_t> labels = some_labels(rows, vocab);
  const Tensor ids = bench.labels(labels), losses = bench.poisoned(DType::f32, {rows});
  const Values random = normal_values(rows * vocab, 1, 3);
  const Tensor logits = layout == Layout::strided ? bench.strided(dtype, {rows, vocab}, random)
                                                  : bench.tensor(dtype, {rows, vocab}, random);
  const Values x = bench.read(logits), expected = reference::cross_entropy(x, labels);
  bench->cross_entropy(losses, logits, ids, scale, false);
  CHECK(relative_error(bench.read(losses), expected) < tolerance);
  CHECK(bench.read(losses)[3] == 0);
  CHECK(bench.read(losses).back() == 0);
  CHECK(same_bits(bench.read(logits), x));  // left alone

  bench->fill(losses, -1);
  bench->cross_entropy(losses, logits, ids, scale, true);
  CHECK(relative_error(bench.read(losses), expected) < tolerance);
  const Values gradient = bench.read(logits);
  // With one word in the vocabulary, every loss and gradient is zero.
  const double least_norm = vocab == 1 ? scale : 0;
  CHECK(relative_error(gradient, reference::cross_entropy_gradient(x, labels, scale), least_norm) <
        tolerance);
  for (const std::int64_t row : {std::int64_t{3}, rows - 1}) {
    const auto first = gradient.begin() + row * vocab;
    CHECK(std::all_of(first, first + vocab, [](double value) { return value == 0; }));
  }
}

}  // namespace

TEST_CASE("the reference of the loss's gradient equals central differences") {
  constexpr std::int64_t rows = 7, vocab = 13;
  const Values x = normal_values(rows * vocab, 1, 3);
  const std::vector<std::int32_t> labels = some_labels(rows, vocab);
  const auto loss = [&](const Values& at) {
    double sum = 0;
    for (const double value : reference::cross_entropy(at, labels)) sum += scale * value;
    return sum;
  };
  CHECK(gradient_error(reference::cross_entropy_gradient(x, labels, scale), x, loss, 2) < 1e-6);
}

TEST_CASE("cross-entropy, its gradient, and positions left out") {
  FOR_EACH_BACKEND(backend) {
    const DType compute = backend.make()->compute_type();
    for (const Layout layout : {Layout::contiguous, Layout::strided}) {
      for (const std::int64_t vocab : {1, 7, 101, 2777}) {
        check_loss(backend, 19, vocab, compute, layout);
      }
    }
  }
}

TEST_CASE("cross-entropy over the vocabularies of models, in either type") {
  FOR_EACH_BACKEND(backend) {
    const DType compute = backend.make()->compute_type();
    for (const Layout layout : {Layout::contiguous, Layout::strided}) {
      // The last is longer than the registers of a GPU's block hold.
      for (const std::int64_t vocab : {4096, 32000, 32768 + 8, 65536 + 8}) {
        check_loss(backend, 6, vocab, compute, layout);
        if (compute != DType::f32) check_loss(backend, 6, vocab, DType::f32, layout);
      }
    }
  }
}

TEST_CASE("cross-entropy stands large logits") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Tensor logits = bench.tensor(DType::f32, {2, 3}, {1e4, -1e4, 9999, -5e4, -5e4, -5e4});
    const Tensor losses = bench.poisoned(DType::f32, {2});
    bench->cross_entropy(losses, logits, bench.labels({0, 1}), 1, true);
    CHECK(relative_error(bench.read(losses), {std::log(1 + std::exp(-1)), std::log(3)}) < 1e-5);
    for (const double value : bench.read(logits)) CHECK(std::isfinite(value));
  }
}

TEST_CASE(
    "hits: the label has the largest logit, of equal ones the first; none where it is left out or not a "
    "number") {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(),
                   inf = std::numeric_limits<double>::infinity();
  const Values rows = {1,    3,    2,    0,    // the largest
                       1,    3,    2,    0,    // not the largest
                       1,    3,    3,    0,    // the first of two
                       1,    3,    3,    0,    // the second of them
                       -1,   -1,   -1,   -1,   // the first of all
                       -1,   -1,   -1,   -1,   // the last of all
                       1,    3,    2,    0,    // left out
                       nan,  3,    2,    0,    // NaN before it
                       1,    3,    2,    nan,  // NaN after it
                       1,    nan,  2,    0,    // NaN itself
                       nan,  nan,  nan,  nan,  //
                       1,    inf,  2,    0,    // infinite
                       -inf, -inf, -inf, -inf, -3, -2, -1, -0.5};
  const std::vector<std::int32_t> labels = {1, 2, 1, 2, 0, 3, -100, 1, 1, 1, 0, 1, 0, 3};
  const Values expected = {1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1};
  const auto count = std::ssize(labels);
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    for (const DType dtype : {DType::f32, bench.compute()}) {
      CAPTURE(to_string(dtype));
      const Tensor hits = bench.poisoned(DType::i32, {count});
      const Tensor logits = bench.tensor(dtype, {count, 4}, rows);
      bench->hits(hits, logits, bench.labels(labels));
      CHECK(bench.read(hits) == expected);
      const Tensor strided = bench.strided(dtype, {count, 4}, rows);
      bench->hits(hits, strided, bench.labels(labels));
      CHECK(bench.read(hits) == expected);
    }
  }
}

TEST_CASE("hits over vocabularies of models: at both ends, and equal logits far apart") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    for (const std::int64_t vocab : {1, 7, 2777, 32000}) {
      CAPTURE(vocab);
      constexpr std::int64_t rows = 5;
      Values x = normal_values(rows * vocab, 1, 3);
      const auto last = static_cast<std::int32_t>(vocab - 1);
      const auto at = [&](std::int64_t row, std::int64_t j) -> double& {
        return x[static_cast<std::size_t>(row * vocab + j)];
      };
      at(0, 0) = 64, at(1, last) = 64;
      at(2, 0) = at(2, last) = 64, at(3, 0) = at(3, last) = 64;
      at(4, last) = 64;
      const Tensor hits = bench.poisoned(DType::i32, {rows});
      const Tensor logits = bench.tensor(bench.compute(), {rows, vocab}, x);
      const Values before = bench.read(logits);
      bench->hits(hits, logits, bench.labels({0, last, 0, last, 0}));
      const double one = vocab == 1 ? 1 : 0;  // the first is the last
      CHECK(bench.read(hits) == Values{1, 1, 1, one, one});
      CHECK(same_bits(bench.read(logits), before));
    }
  }
}
