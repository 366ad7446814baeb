#include "kernels/cuda/matmul.h"

#include <algorithm>

#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/row_product.h"
#include "kernels/cuda/row_stride.h"

namespace ratplus::cuda {
namespace {

void check_cublas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) fail("cuBLASLt: {} failed: {}", what, cublasLtGetStatusString(status));
}

cudaDataType_t cublas_type(DType dtype) {
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The largest power of two, up to 256, that divides an address.
std::int64_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return static_cast<std::int64_t>(address == 0 ? 256
                                                : std::min<std::uintptr_t>(256, address & (~address + 1)));
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
  for (const auto* plans : {&plans_, &rows_alone_}) {
    for (const auto& [key, plan] : *plans) {
      for (auto* matrix : {plan.a, plan.b, plan.c}) cublasLtMatrixLayoutDestroy(matrix);
      cublasLtMatmulDescDestroy(plan.operation);
    }
  }
  cublasLtDestroy(handle_);
}

/// cuBLAS is column-major: it computes c^T = b^T a^T, so its first factor is our b.
const Matmul::Plan& Matmul::plan(const Key& key) {
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  return plans_.emplace(key, make_plan(key, 0)).first->second;
}

Matmul::Plan Matmul::make_plan(const Key& key, std::int64_t of_rows) {
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
  // Where K is cut, the pieces are added in float32.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<std::uint32_t>(of_rows > 0 ? CUBLASLT_REDUCTION_SCHEME_NONE
                                                : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(align_b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(align_a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(align_c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(align_c));
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  auto *of_a = plan.a, *of_c = plan.c;
  if (of_rows > 0) of_a = layout(in, of_rows, k, stride_a), of_c = layout(out, of_rows, n, stride_c);
  const auto status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.b, of_a, of_c, of_c,
                                                     preference, 1, &result, &count);
  if (of_rows > 0) cublasLtMatrixLayoutDestroy(of_a), cublasLtMatrixLayoutDestroy(of_c);
  cublasLtMatmulPreferenceDestroy(preference);
  check_cublas(status, "choosing an algorithm");
  require(count == 1, "cuBLASLt has no algorithm for a product of {} x {} x {}", m, n, k);
  plan.algorithm = result.algo;
  return plan;
}

void Matmul::run(Tensor c, Tensor a, Tensor b, MatmulOptions options, void* workspace, cudaStream_t stream) {
  const std::int64_t m = c.size(0), n = c.size(1), k = options.transpose_a ? a.size(0) : a.size(1);
  const std::int64_t flags = (options.transpose_a ? 1 : 0) | (options.transpose_b ? 2 : 0);
  const Plan& chosen = plan({m, n, k, row_stride(a), row_stride(b), row_stride(c),
                             static_cast<std::int64_t>(a.dtype()), static_cast<std::int64_t>(c.dtype()),
                             flags, alignment_of(a.raw()), alignment_of(b.raw()), alignment_of(c.raw())});
  run(chosen, c, a, b, options.accumulate, workspace, stream);
}

void Matmul::run_rows_alone(Tensor c, Tensor a, Tensor b, void* workspace, cudaStream_t stream) {
  constexpr std::int64_t rows = 1024;  // whose algorithm all numbers of rows take
  // Rows that lie alike whatever their number: one row has no distance of its own, and alignments are the least.
  const auto stride = [](const Tensor& x) { return std::max(x.stride(0), x.size(1)); };
  const Key key{c.size(0),
                c.size(1),
                a.size(1),
                stride(a),
                stride(b),
                stride(c),
                static_cast<std::int64_t>(a.dtype()),
                static_cast<std::int64_t>(c.dtype()),
                2,
                16,
                16,
                16};
  auto found = rows_alone_.find(key);
  if (found == rows_alone_.end()) found = rows_alone_.emplace(key, make_plan(key, rows)).first;
  run(found->second, c, a, b, false, workspace, stream);
}

void Matmul::run(const Plan& chosen, Tensor c, Tensor a, Tensor b, bool accumulate, void* workspace,
                 cudaStream_t stream) {
  const float one = 1, beta = accumulate ? 1 : 0;
  check_cublas(cublasLtMatmul(handle_, chosen.operation, &one, b.raw(), chosen.b, a.raw(), chosen.a, &beta,
                              c.raw(), chosen.c, c.raw(), chosen.c, &chosen.algorithm, workspace,
                              static_cast<std::size_t>(workspace_bytes), stream),
               "a product");
}

void CudaOps::compute(const operation::Matmul& call) {
  const Tensor &c = call.c, &a = call.a, &b = call.b;
  const MatmulOptions& options = call.options;
  const char* op = "matmul";
  const std::int64_t m = c.size(0), n = c.size(1), k = options.transpose_a ? a.size(0) : a.size(1);
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!options.accumulate) compute(operation::Fill{c, 0});
    return;
  }
  matmul_->run(c, a, b, options, scratch(Matmul::workspace_bytes, op), stream_);
}

void CudaOps::compute(const operation::PackWeight&) {}

bool CudaOps::fuses_norm(std::int64_t rows, std::int64_t width) const {
  return row_products_ && operation::RowProduct::norm_fits(rows, width);
}

void CudaOps::compute(const operation::RowProduct& call) {
  if (call.y.numel() == 0) return;
  if (row_products_ && RowProducts::takes(call)) return row_products_->run(call, stream_);
  require(!call.norm_weight && !call.residual, "{}: a norm or a residual of {}", call.name,
          call.x.describe());
  matmul_->run_rows_alone(call.y, call.x, call.w, scratch(Matmul::workspace_bytes, call.name), stream_);
  if (call.gelu) compute(operation::GeluForward{call.y, call.y});
}

void CudaOps::compute(const operation::ProductChain& call) {
  if (row_products_ && row_products_->takes(call)) return row_products_->run(call, stream_);
  for (const auto& product : call.products) compute(product);
}

}  // namespace ratplus::cuda
