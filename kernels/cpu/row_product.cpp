// Products of inference: every element is a sum over k in one order, from the first to the last, whatever rows are computed
// beside it. Weights are packed for it once.
#include <omp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile_gemm.h"

namespace ratplus::cpu {
namespace {

// w [out, in] becomes panels [in, panel]; the last one has the outputs that are left. With AVX2 a panel is as wide as a strip of
// tile_gemm, which skips no cache line then, and all sets of the first-level cache hold its block.
constexpr std::int64_t panel = 2 * vec_width;
constexpr std::int64_t inner_block = 256;  // of in: a float32 panel's block stays in the first-level cache
constexpr std::int64_t row_tile = 96;      // of x: read again for each panel

// In bfloat16 the two vectors of a panel's step lie element by element beside each other, so that a shift and a mask widen them.
struct Pair {
  Vec first, second;
};

Pair widened(const bf16_t* step) {
  typedef std::uint32_t Words __attribute__((vector_size(vec_width * sizeof(std::uint32_t))));
  typedef std::uint32_t UnalignedWords
      __attribute__((vector_size(vec_width * sizeof(std::uint32_t)), aligned(2), may_alias));
  const Words words = *reinterpret_cast<const UnalignedWords*>(step);
  return {std::bit_cast<Vec>(words << 16), std::bit_cast<Vec>(words & 0xffff0000U)};
}

/// The place of output j of a step of n; those of a panel that is not whole stay in order.
template <typename T>
constexpr std::int64_t place(std::int64_t j, std::int64_t n) {
  if (std::is_same_v<T, float> || n < panel) return j;
  return j % vec_width * 2 + j / vec_width;
}

/// Outputs [column, column + panel) of rows [row, row + rows), into out with rows ld apart. Behind the panel `packed` lies the next
/// one, unless it is the last.
void panel_product(float* out, std::int64_t ld, const operation::RowProduct& call, std::int64_t row,
                   std::int64_t rows, const float* packed, bool last) {
  const std::int64_t inner = call.x.size(1), ldx = call.x.stride(0);
  const float* x = call.x.as<float>() + row * ldx;
  for (std::int64_t l = 0; l < inner; l += inner_block) {
    const std::int64_t k = std::min(inner_block, inner - l);
    tile_gemm(out, ld, x + l, ldx, Left::rows, packed + l * panel, panel, rows, panel, k, l > 0,
              last && l + k == inner ? Fetch::nothing : Fetch::next_rows);
  }
}

/// The same of weights in bfloat16 and of rows whose sums are in registers together.
template <int rows>
void product_of_rows(float* out, std::int64_t ld, const float* x, std::int64_t ldx, const bf16_t* packed,
                     std::int64_t inner) {
  constexpr std::int64_t ahead = 2048 / std::int64_t{sizeof(bf16_t)};
  Pair sums[rows] = {};
  for (std::int64_t l = 0; l < inner; ++l) {
    const bf16_t* const step = packed + l * panel;
    __builtin_prefetch(step + ahead, 0, 2);
    const Pair w = widened(step);
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i) {
      const float element = x[i * ldx + l];
      sums[i].first += element * w.first, sums[i].second += element * w.second;
    }
  }
  for (int i = 0; i < rows; ++i)
    store(out + i * ld, sums[i].first), store(out + i * ld + vec_width, sums[i].second);
}

constexpr int rows_together = 6;

/// product_of_rows of 1 .. rows_together rows.
template <int... i>
constexpr auto by_rows(std::integer_sequence<int, i...>) {
  return std::array{&product_of_rows<i + 1>...};
}

void panel_product(float* out, std::int64_t ld, const operation::RowProduct& call, std::int64_t row,
                   std::int64_t rows, const bf16_t* packed, bool) {
  static constexpr auto products = by_rows(std::make_integer_sequence<int, rows_together>());
  const std::int64_t ldx = call.x.stride(0);
  const float* x = call.x.as<float>() + row * ldx;
  for (std::int64_t i = 0; i < rows; i += rows_together) {
    const auto together = static_cast<std::size_t>(std::min<std::int64_t>(rows_together, rows - i));
    products[together - 1](out + i * ld, ld, x + i * ldx, ldx, packed, call.x.size(1));
  }
}

/// The last panel where it has fewer outputs, n: in one that is padded.
template <typename T>
void rest_product(const operation::RowProduct& call, std::int64_t row, std::int64_t rows, const T* packed,
                  std::int64_t column, std::int64_t n) {
  const std::int64_t inner = call.x.size(1);
  std::vector<T> whole(static_cast<std::size_t>(inner * panel));
  std::vector<float> out(static_cast<std::size_t>(rows * panel));
  for (std::int64_t l = 0; l < inner; ++l) {
    for (std::int64_t j = 0; j < n; ++j)
      whole[static_cast<std::size_t>(l * panel + place<T>(j, panel))] = packed[l * n + j];
  }
  panel_product(out.data(), panel, call, row, rows, whole.data(), true);
  for (std::int64_t i = 0; i < rows; ++i)
    std::copy_n(out.data() + i * panel, n, call.y.as<float>() + (row + i) * call.y.stride(0) + column);
}

template <typename T>
void pack(const Tensor& w, int threads) {
  const std::int64_t columns = w.size(0), inner = w.size(1);
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> rows;
#pragma omp for schedule(static)
    for (std::int64_t column = 0; column < columns; column += panel) {
      const std::int64_t n = std::min(panel, columns - column);
      T* const packed = w.as<T>() + column * inner;
      rows.assign(packed, packed + n * inner);
      for (std::int64_t l = 0; l < inner; ++l) {
        for (std::int64_t j = 0; j < n; ++j)
          packed[l * n + place<T>(j, n)] = rows[static_cast<std::size_t>(j * inner + l)];
      }
    }
  }
}

template <typename T>
void multiply(const operation::RowProduct& call, int threads) {
  const std::int64_t rows = call.y.size(0), columns = call.y.size(1), inner = call.x.size(1);
  const std::int64_t panels = (columns + panel - 1) / panel, tiles = (rows + row_tile - 1) / row_tile;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t task = 0; task < panels * tiles; ++task) {
    const std::int64_t row = task / panels * row_tile, column = task % panels * panel;
    const std::int64_t m = std::min(row_tile, rows - row), n = std::min(panel, columns - column);
    const T* packed = call.w.as<T>() + column * inner;
    if (n == panel) {
      panel_product(call.y.as<float>() + row * call.y.stride(0) + column, call.y.stride(0), call, row, m,
                    packed, column + n == columns);
    } else {
      rest_product(call, row, m, packed, column, n);
    }
    if (!call.gelu) continue;
    for (std::int64_t i = row; i < row + m; ++i) {
      float* const y = call.y.as<float>() + i * call.y.stride(0) + column;
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) y[j] *= normal(y[j]).cdf;
    }
  }
}

}  // namespace

void CpuOps::compute(const operation::PackWeight& call) {
  call.w.dtype() == DType::bf16 ? pack<bf16_t>(call.w, threads_) : pack<float>(call.w, threads_);
}

void CpuOps::compute(const operation::RowProduct& call) {
  require(!call.norm_weight && !call.residual, "{}: a norm or a residual, which the CPU does not fuse",
          call.name);
  call.w.dtype() == DType::bf16 ? multiply<bf16_t>(call, threads_) : multiply<float>(call, threads_);
}

void CpuOps::compute(const operation::ProductChain& call) {
  for (const auto& product : call.products) compute(product);
}

}  // namespace ratplus::cpu
