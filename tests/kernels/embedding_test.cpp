#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

TEST_CASE("embedding takes rows, and its gradient adds them up") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    for (const std::int64_t width : {8, 50, 72, 256}) {
      CAPTURE(width);
      constexpr std::int64_t rows = 333, vocab = 11;  // every token occurs often
      const std::vector<std::int32_t> tokens = random_ids(rows, vocab, 0);
      const Tensor ids = bench.labels(tokens);
      const Tensor table = bench.tensor(bench.compute(), {vocab, width}, normal_values(vocab * width, 1));
      const Values entries = bench.read(table);
      const Tensor x = bench.poisoned(DType::f32, {rows, width});
      bench->embedding_forward(x, ids, table);
      const Values before = normal_values(vocab * width, 2);
      const Tensor dx = bench.strided(DType::f32, {rows, width}, normal_values(rows * width, 3));
      const Tensor dtable = bench.tensor(DType::f32, {vocab, width}, before);
      bench->embedding_backward(dtable, dx, ids);
      Values expected_x, expected_dtable = before;
      const Values gradient = bench.read(dx);
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < width; ++j) {
          const auto entry = static_cast<std::size_t>(tokens[static_cast<std::size_t>(i)] * width + j);
          expected_x.push_back(entries[entry]);
          expected_dtable[entry] += gradient[static_cast<std::size_t>(i * width + j)];
        }
      }
      CHECK(bench.read(x) == expected_x);
      CHECK(relative_error(bench.read(dtable), expected_dtable) < 1e-5);
    }
  }
}
