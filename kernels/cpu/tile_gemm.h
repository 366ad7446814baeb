// Products of small matrices that lie in the cache: the inner loop of attention, where a BLAS call's packing
// would cost more than the product.
#pragma once

#include <cstdint>

namespace ratplus::cpu {

/// How the left factor lies in memory.
enum class Left { rows, columns };

/// Brought into the second-level cache meanwhile: the k rows of b behind those of the call, which the next call takes (only
/// with Left::rows).
enum class Fetch { nothing, next_rows };

/// c [m, n] = (or, if accumulate, +=) a [m, k] b [k, n], in one thread; every element is summed over k in
/// order. a(i, l) is a[i lda + l], or a[l lda + i] for Left::columns; b(l, j) = b[l ldb + j], c(i, j) = c[i
/// ldc + j]. n is a multiple of vec_width; m and k are any.
void tile_gemm(float* c, std::int64_t ldc, const float* a, std::int64_t lda, Left left, const float* b,
               std::int64_t ldb, std::int64_t m, std::int64_t n, std::int64_t k, bool accumulate,
               Fetch fetch = Fetch::nothing);

}  // namespace ratplus::cpu
