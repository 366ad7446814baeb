// Matrix products by OpenBLAS.
#include <cblas.h>
#include <omp.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"

namespace ratplus::cpu {
namespace {

/// OpenBLAS's OpenMP build takes as many threads as OpenMP would at the call.
class BlasThreads {
 public:
  explicit BlasThreads(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~BlasThreads() { omp_set_num_threads(before_); }
  BlasThreads(const BlasThreads&) = delete;
  BlasThreads& operator=(const BlasThreads&) = delete;

 private:
  int before_;
};

blasint to_blas(std::int64_t value) {
  require(value <= std::int64_t{0x7fffffff}, "matmul: a size of {} is too large for this BLAS", value);
  return static_cast<blasint>(value);
}

/// Elements between rows; a BLAS wants at least the row's length, also where there is only one row.
blasint leading(const Tensor& matrix) {
  return to_blas(std::max({matrix.size(0) > 1 ? matrix.stride(0) : 0, matrix.size(1), std::int64_t{1}}));
}

}  // namespace

void CpuOps::compute(const operation::Matmul& call) {
  const Tensor &c = call.c, &a = call.a, &b = call.b;
  const MatmulOptions& options = call.options;
  const std::int64_t m = c.size(0), n = c.size(1);
  const std::int64_t k = a.size(options.transpose_a ? 0 : 1);
  const BlasThreads threads(threads_);
  cblas_sgemm(CblasRowMajor, options.transpose_a ? CblasTrans : CblasNoTrans,
              options.transpose_b ? CblasTrans : CblasNoTrans, to_blas(m), to_blas(n), to_blas(k), 1.0f,
              a.as<float>(), leading(a), b.as<float>(), leading(b), options.accumulate ? 1.0f : 0.0f,
              c.as<float>(), leading(c));
}

}  // namespace ratplus::cpu
