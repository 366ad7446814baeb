#include "kernels/cuda/cuda_ops.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/dense_attention.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/stopwatch.h"
#include "kernels/cuda/stream.h"

namespace ratplus {

int cuda_device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();  // no driver, or no GPU: an answer, not a fault
  return status == cudaSuccess ? count : 0;
}

std::unique_ptr<Ops> make_cuda_ops(int index, DType compute_type, bool deterministic) {
  const int count = cuda_device_count();
  if (index < 0 || index >= count) {
    fail(
        "there is no GPU {} here ({} found); look at nvidia-smi and CUDA_VISIBLE_DEVICES, or set job.device "
        "= \"cpu\"",
        index, count);
  }
  require(compute_type == DType::bf16 || compute_type == DType::f32, "products in {}",
          to_string(compute_type));
  return std::make_unique<cuda::CudaOps>(index, compute_type, deterministic);
}

namespace cuda {

cudaStream_t stream_of(const Ops& ops) {
  const auto* backend = dynamic_cast<const CudaOps*>(&ops);
  require(backend != nullptr, "the stream of a backend on {}", to_string(ops.device()));
  return backend->stream();
}

namespace {

/// Tensors [B, T, H, P] that only their shape and place matter of.
Tensor like_a_head_tensor(const OpShapes& s) {
  constexpr std::uintptr_t aligned_address = 4096;
  return Tensor(reinterpret_cast<void*>(aligned_address), DType::bf16,
                {s.batch, s.tokens, s.heads, s.head_dim}, {DeviceKind::cuda, 0});
}

}  // namespace

CudaOps::CudaOps(int index, DType compute_type, bool deterministic) : index_(index), compute_(compute_type) {
  check_cuda(cudaSetDevice(index), "choosing the GPU");
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, index), "asking for the GPU's properties");
  if (properties.major < 8) {
    fail("GPU {} ({}) has compute capability {}.{}; ratplus needs 8.0 (A100) or newer", index,
         properties.name, properties.major, properties.minor);
  }
  name_ = properties.name;
  multiprocessors_ = properties.multiProcessorCount;
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  matmul_ = std::make_unique<Matmul>();
  dense_attention_ = std::make_unique<DenseAttention>(stream_, deterministic);
  staging_ = std::make_unique<Staging>();
}

CudaOps::~CudaOps() {
  cudaStreamSynchronize(stream_);
  staging_.reset();
  dense_attention_.reset();
  matmul_.reset();
  cudaStreamDestroy(stream_);
}

std::unique_ptr<Stopwatch> CudaOps::make_stopwatch() {
  return std::make_unique<EventStopwatch>(stream_);
}

void CudaOps::synchronize() {
  check_cuda(cudaStreamSynchronize(stream_), "an operation");
}

std::int64_t CudaOps::scratch_bytes(const OpShapes& shapes) const {
  const std::int64_t width = shapes.heads * shapes.head_dim;
  std::int64_t bytes =
      std::max({Matmul::workspace_bytes, pattern_attention_scratch(shapes), recurrence_scratch(shapes),
                norm_scratch(width), embedding_scratch(shapes.batch * shapes.tokens), reduction_scratch()});
  if (compute_ == DType::bf16) {
    const Tensor x = like_a_head_tensor(shapes);
    bytes = std::max({bytes, dense_attention_->forward_workspace(x, x, x, x),
                      dense_attention_->backward_workspace(x, x, x, x, x, x, x, x)});
  }
  return bytes;
}

void CudaOps::use_scratch(Tensor scratch) {
  check_rank(scratch, DType::u8, 1, "use_scratch", "scratch");
  scratch_ = scratch;
}

void* CudaOps::scratch(std::int64_t bytes, const char* op) const {
  require(!scratch_.empty() && scratch_.numel() >= bytes, "{}: needs {} bytes of scratch, {} are lent", op,
          bytes, scratch_.empty() ? 0 : scratch_.numel());
  return scratch_.raw();
}

void CudaOps::upload(Tensor dst, const void* host) {
  check_contiguous(dst, "upload", "dst");
  if (dst.numel() == 0) return;
  if (dst.bytes() <= Staging::slot_bytes) return staging_->upload(dst.raw(), host, dst.bytes(), stream_);
  check_cuda(cudaMemcpyAsync(dst.raw(), host, static_cast<std::size_t>(dst.bytes()), cudaMemcpyHostToDevice,
                             stream_),
             "uploading");
  synchronize();
}

void CudaOps::download(void* host, Tensor src) {
  check_contiguous(src, "download", "src");
  if (src.numel() == 0) return;
  check_cuda(cudaMemcpyAsync(host, src.raw(), static_cast<std::size_t>(src.bytes()), cudaMemcpyDeviceToHost,
                             stream_),
             "downloading");
  synchronize();
}

}  // namespace cuda
}  // namespace ratplus
