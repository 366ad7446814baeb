#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/same_bits.h"
#include "kernels/cuda/stopwatch.h"

namespace ratplus::cuda {
namespace {

void check_cublas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) fail("cuBLASLt: {} failed: {}", what, cublasLtGetStatusString(status));
}

constexpr int most_candidates = 8;
constexpr int tuning_rounds = 5;
constexpr double least_tuned = 2e10;  ///< operations: some 30 microseconds

cudaDataType_t cublas_type(DType dtype) {
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The largest power of two, up to 256, that divides an address.
std::int64_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return static_cast<std::int64_t>(address == 0 ? 256
                                                : std::min<std::uintptr_t>(256, address & (~address + 1)));
}

/// Distance of rows; that of a single row does not matter, but has to be valid.
std::int64_t row_stride(const Tensor& x) {
  return x.size(0) == 1 ? std::max<std::int64_t>(x.size(1), 1) : x.stride(0);
}

/// A row-major [rows, columns] matrix is a column-major [columns, rows] one.
cublasLtMatrixLayout_t layout(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  cublasLtMatrixLayout_t result = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&result, cublas_type(dtype), static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), stride),
               "describing a matrix");
  return result;
}

}  // namespace

Matmul::Matmul() {
  check_cublas(cublasLtCreate(&handle_), "starting");
}

Matmul::~Matmul() {
  for (const auto& [key, plan] : plans_) {
    for (auto* matrix : {plan.a, plan.b, plan.c}) cublasLtMatrixLayoutDestroy(matrix);
    cublasLtMatmulDescDestroy(plan.operation);
  }
  cublasLtDestroy(handle_);
}

/// cuBLAS is column-major: it computes c^T = b^T a^T, so its first factor is our b.
Matmul::Plan& Matmul::plan(const Key& key) {
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  const auto [m, n, k, stride_a, stride_b, stride_c, input, output, flags, align_a, align_b, align_c] = key;
  const auto in = static_cast<DType>(input), out = static_cast<DType>(output);
  const bool transpose_a = (flags & 1) != 0, transpose_b = (flags & 2) != 0;
  Plan plan;
  check_cublas(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "describing a product");
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, bool transposed) {
    const cublasOperation_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check_cublas(cublasLtMatmulDescSetAttribute(plan.operation, attribute, &value, sizeof(value)),
                 "describing a product");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, transpose_b);
  set(CUBLASLT_MATMUL_DESC_TRANSB, transpose_a);
  plan.b = layout(in, transpose_b ? n : k, transpose_b ? k : n, stride_b);
  plan.a = layout(in, transpose_a ? k : m, transpose_a ? m : k, stride_a);
  plan.c = layout(out, m, n, stride_c);

  cublasLtMatmulPreference_t preference = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&preference), "choosing an algorithm");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_cublas(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
                 "choosing an algorithm");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_bytes));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(align_b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(align_a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(align_c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(align_c));
  std::array<cublasLtMatmulHeuristicResult_t, most_candidates> results{};
  int count = 0;
  const auto status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.b, plan.a, plan.c, plan.c,
                                                     preference, most_candidates, results.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  check_cublas(status, "choosing an algorithm");
  require(count > 0, "cuBLASLt has no algorithm for a product of {} x {} x {}", m, n, k);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) plan.candidates.push_back(results[i].algo);
  }
  // Small products are over before the measurement's noise is.
  plan.tuned = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) < least_tuned ||
               plan.candidates.size() == 1;
  return plans_.emplace(key, plan).first->second;
}

void Matmul::multiply(const Plan& plan, std::size_t candidate, const Tensor& a, const Tensor& b, void* c,
                      bool accumulate, void* workspace, cudaStream_t stream) const {
  const float one = 1, beta = accumulate ? 1 : 0;
  check_cublas(cublasLtMatmul(handle_, plan.operation, &one, b.raw(), plan.b, a.raw(), plan.a, &beta, c,
                              plan.c, c, plan.c, &plan.candidates[candidate], workspace,
                              static_cast<std::size_t>(workspace_bytes), stream),
               "a product");
}

namespace {

/// Device memory for the time of a measurement; null where there is none left.
class Temporary {
 public:
  explicit Temporary(std::int64_t bytes) {
    if (cudaMalloc(&data_, static_cast<std::size_t>(bytes)) != cudaSuccess) {
      cudaGetLastError();  // an answer, not a fault
      data_ = nullptr;
    }
  }
  ~Temporary() { cudaFree(data_); }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

}  // namespace

/// Tries the candidates on copies of c. Where memory is too short for copies, the heuristic's first stays.
void Matmul::tune(Plan& plan, const Tensor& c, const Tensor& a, const Tensor& b, bool accumulate,
                  void* workspace, cudaStream_t stream) const {
  const std::int64_t bytes = ((c.size(0) - 1) * row_stride(c) + c.size(1)) * size_of(c.dtype());
  const Temporary expected(bytes), result(bytes), differs(sizeof(unsigned));
  if (!expected.data() || !result.data() || !differs.data()) return;
  const auto start_from_c = [&](void* to) {
    check_cuda(
        cudaMemcpyAsync(to, c.raw(), static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream),
        "copying a result");
  };
  start_from_c(expected.data());
  multiply(plan, 0, a, b, expected.data(), accumulate, workspace, stream);
  const auto gives_same_bits = [&](std::size_t candidate) {
    start_from_c(result.data());
    check_cuda(cudaMemsetAsync(differs.data(), 0, sizeof(unsigned), stream), "clearing a flag");
    multiply(plan, candidate, a, b, result.data(), accumulate, workspace, stream);
    compare_bits(static_cast<unsigned*>(differs.data()), expected.data(), result.data(), bytes, stream);
    unsigned flag = 1;
    check_cuda(cudaMemcpyAsync(&flag, differs.data(), sizeof(flag), cudaMemcpyDeviceToHost, stream),
               "reading a flag");
    check_cuda(cudaStreamSynchronize(stream), "a product");
    return flag == 0;
  };
  std::vector<std::size_t> eligible{0};
  for (std::size_t i = 1; i < plan.candidates.size(); ++i) {
    if (gives_same_bits(i)) eligible.push_back(i);
  }
  // In turn, so that a change of the clock meets all alike.
  EventStopwatch watch(stream);
  std::vector<std::vector<double>> times(eligible.size());
  for (int round = 0; round < tuning_rounds; ++round) {
    for (std::size_t e = 0; e < eligible.size(); ++e) {
      const int began = watch.mark();
      for (int i = 0; i < 2; ++i)
        multiply(plan, eligible[e], a, b, result.data(), accumulate, workspace, stream);
      times[e].push_back(watch.seconds(began, watch.mark()));
    }
  }
  double best = 0;
  for (std::size_t e = 0; e < eligible.size(); ++e) {
    std::ranges::sort(times[e]);
    const double median = times[e][times[e].size() / 2];
    if (e > 0 && median >= best) continue;
    best = median;
    plan.chosen = eligible[e];
  }
}

void Matmul::run(Tensor c, Tensor a, Tensor b, MatmulOptions options, void* workspace, cudaStream_t stream) {
  const std::int64_t m = c.size(0), n = c.size(1), k = options.transpose_a ? a.size(0) : a.size(1);
  const std::int64_t flags =
      (options.transpose_a ? 1 : 0) | (options.transpose_b ? 2 : 0) | (options.accumulate ? 4 : 0);
  Plan& chosen = plan({m, n, k, row_stride(a), row_stride(b), row_stride(c),
                       static_cast<std::int64_t>(a.dtype()), static_cast<std::int64_t>(c.dtype()), flags,
                       alignment_of(a.raw()), alignment_of(b.raw()), alignment_of(c.raw())});
  if (!std::exchange(chosen.tuned, true)) tune(chosen, c, a, b, options.accumulate, workspace, stream);
  multiply(chosen, chosen.chosen, a, b, c.raw(), options.accumulate, workspace, stream);
}

void CudaOps::matmul(Tensor c, Tensor a, Tensor b, MatmulOptions options) {
  const char* op = "matmul";
  const bool f32_out = c.dtype() == DType::f32;
  check_rank(c, f32_out ? DType::f32 : compute_, 2, op, "c");
  check_rank(a, compute_, 2, op, "a");
  const std::int64_t m = c.size(0), n = c.size(1), k = options.transpose_a ? a.size(0) : a.size(1);
  check(a, compute_, options.transpose_a ? Shape{k, m} : Shape{m, k}, op, "a");
  check(b, compute_, options.transpose_b ? Shape{n, k} : Shape{k, n}, op, "b");
  for (const Tensor* matrix : {&a, &b, &c}) {
    require(matrix->size(0) <= 1 || matrix->stride(0) >= matrix->size(1), "matmul: rows overlap");
  }
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!options.accumulate) fill(c, 0);
    return;
  }
  matmul_->run(c, a, b, options, scratch(Matmul::workspace_bytes, op), stream_);
}

}  // namespace ratplus::cuda
