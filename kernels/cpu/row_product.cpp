// Products of inference: every element is a sum over k in one order, from the first to the last, whatever rows are computed
// beside it. Weights are packed for it once.
#include <omp.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/tile_gemm.h"

namespace ratplus::cpu {
namespace {

// w [out, in] becomes panels [in, panel]; the last one has the outputs that are left. With AVX2 a panel is as wide as a strip of
// tile_gemm, which skips no cache line then, and all sets of the first-level cache hold its block.
constexpr std::int64_t panel = 2 * vec_width;
constexpr std::int64_t inner_block = 256;  // of in: a panel's block stays in the first-level cache
constexpr std::int64_t row_tile = 96;      // of x: read again for each panel

/// Outputs [column, column + n) of rows [row, row + rows), into out [rows, at least n] with rows ld apart. Behind the panel
/// `packed` lies the next one, unless it is the last.
void panel_product(float* out, std::int64_t ld, const operation::RowProduct& call, std::int64_t row,
                   std::int64_t rows, const float* packed, std::int64_t n, bool last) {
  const std::int64_t inner = call.x.size(1), ldx = call.x.stride(0);
  const float* x = call.x.as<float>() + row * ldx;
  for (std::int64_t l = 0; l < inner; l += inner_block) {
    const std::int64_t k = std::min(inner_block, inner - l);
    tile_gemm(out, ld, x + l, ldx, Left::rows, packed + l * n, n, rows, n, k, l > 0,
              last && l + k == inner ? Fetch::nothing : Fetch::next_rows);
  }
}

/// The last panel where it has fewer outputs: in one that is padded.
void rest_product(const operation::RowProduct& call, std::int64_t row, std::int64_t rows, const float* packed,
                  std::int64_t column, std::int64_t n) {
  const std::int64_t inner = call.x.size(1);
  std::vector<float> whole(static_cast<std::size_t>(inner * panel)),
      out(static_cast<std::size_t>(rows * panel));
  for (std::int64_t l = 0; l < inner; ++l) std::copy_n(packed + l * n, n, whole.data() + l * panel);
  panel_product(out.data(), panel, call, row, rows, whole.data(), panel, true);
  for (std::int64_t i = 0; i < rows; ++i)
    std::copy_n(out.data() + i * panel, n, call.y.as<float>() + (row + i) * call.y.stride(0) + column);
}

}  // namespace

void CpuOps::compute(const operation::PackWeight& call) {
  const std::int64_t columns = call.w.size(0), inner = call.w.size(1);
#pragma omp parallel num_threads(threads_)
  {
    std::vector<float> rows;
#pragma omp for schedule(static)
    for (std::int64_t column = 0; column < columns; column += panel) {
      const std::int64_t n = std::min(panel, columns - column);
      float* w = call.w.as<float>() + column * inner;
      rows.assign(w, w + n * inner);
      for (std::int64_t l = 0; l < inner; ++l) {
        for (std::int64_t j = 0; j < n; ++j) w[l * n + j] = rows[static_cast<std::size_t>(j * inner + l)];
      }
    }
  }
}

void CpuOps::compute(const operation::RowProduct& call) {
  require(!call.norm_weight && !call.residual, "{}: a norm or a residual, which the CPU does not fuse",
          call.name);
  const std::int64_t rows = call.y.size(0), columns = call.y.size(1), inner = call.x.size(1);
  const std::int64_t panels = (columns + panel - 1) / panel, tiles = (rows + row_tile - 1) / row_tile;
#pragma omp parallel for schedule(static) num_threads(threads_)
  for (std::int64_t task = 0; task < panels * tiles; ++task) {
    const std::int64_t row = task / panels * row_tile, column = task % panels * panel;
    const std::int64_t m = std::min(row_tile, rows - row), n = std::min(panel, columns - column);
    const float* packed = call.w.as<float>() + column * inner;
    if (n == panel) {
      panel_product(call.y.as<float>() + row * call.y.stride(0) + column, call.y.stride(0), call, row, m,
                    packed, n, column + n == columns);
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

void CpuOps::compute(const operation::ProductChain& call) {
  for (const auto& product : call.products) compute(product);
}

}  // namespace ratplus::cpu
