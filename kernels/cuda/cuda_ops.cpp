#include "kernels/cuda/cuda_ops.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/causal_attention.h"
#include "kernels/cuda/dense_attention.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/recording.h"
#include "kernels/cuda/row_product.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/stopwatch.h"
#include "kernels/cuda/stream.h"

namespace ratplus {

namespace {

/// The GPUs that this process sees, and why it can use none.
struct Devices {
  Devices() {
    const cudaError_t status = cudaGetDeviceCount(&count);
    cudaGetLastError();  // no driver, or no GPU: an answer, not a fault
    if (status != cudaSuccess || count == 0) {
      missing = status == cudaSuccess ? "no GPU" : cudaGetErrorString(status);
      count = 0;
    }
    for (int i = 0; i < count; ++i) {
      int major = 0, minor = 0;
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, i);
      cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, i);
      if (major >= 8) continue;
      missing =
          fmt::format("GPU {} has compute capability {}.{}, and 8.0 (Ampere) is the least", i, major, minor);
      count = 0;
    }
  }
  int count = 0;
  std::string missing;
};

const Devices& devices() {
  static const Devices found;
  return found;
}

}  // namespace

int cuda_device_count() {
  return devices().count;
}

std::string cuda_missing() {
  return devices().missing;
}

std::string cuda_device_id(int index) {
  cudaDeviceProp properties{};
  cuda::check_cuda(cudaGetDeviceProperties(&properties, index), "asking for the GPU's properties");
  std::string id;
  for (const char byte : properties.uuid.bytes) id += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return id;
}

std::unique_ptr<Ops> make_cuda_ops(int index, DType compute_type, bool deterministic) {
  const Devices& found = devices();
  if (found.count == 0) {
    fail(
        "no GPU can be used here: {}; look at nvidia-smi, the driver and CUDA_VISIBLE_DEVICES, or compute on "
        "the CPU "
        "(device \"cpu\")",
        found.missing);
  }
  require(index >= 0 && index < found.count, "GPU {} of {}", index, found.count);
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
  name_ = properties.name;
  multiprocessors_ = properties.multiProcessorCount;
  check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  matmul_ = std::make_unique<Matmul>();
  if (compute_ == DType::bf16 && RowProducts::built()) row_products_ = std::make_unique<RowProducts>();
  dense_attention_ = std::make_unique<DenseAttention>(stream_, deterministic);
  if (compute_ == DType::bf16 && CausalAttention::built())
    causal_attention_ = std::make_unique<CausalAttention>();
  staging_ = std::make_unique<Staging>();
}

CudaOps::~CudaOps() {
  cudaStreamSynchronize(stream_);
  staging_.reset();
  causal_attention_.reset();
  dense_attention_.reset();
  row_products_.reset();
  matmul_.reset();
  cudaStreamDestroy(stream_);
}

std::unique_ptr<Stopwatch> CudaOps::make_stopwatch() {
  return std::make_unique<EventStopwatch>(stream_);
}

std::unique_ptr<Recording> CudaOps::make_recording() {
  return std::make_unique<GraphRecording>(stream_);
}

void CudaOps::synchronize() {
  check_cuda(cudaStreamSynchronize(stream_), "an operation");
}

std::int64_t CudaOps::scratch_bytes(const OpShapes& shapes) const {
  const std::int64_t width = shapes.heads * shapes.head_dim;
  std::int64_t bytes = std::max({Matmul::workspace_bytes, pattern_attention_scratch(shapes),
                                 recurrence_scratch(shapes), norm_scratch(width), column_sums_scratch(width),
                                 embedding_scratch(shapes.batch * shapes.tokens), reduction_scratch()});
  if (compute_ != DType::bf16) return bytes;
  bytes = std::max(bytes, chunk_attention_scratch(shapes));
  if (shapes.dense) {
    const Tensor x = like_a_head_tensor(shapes);
    OpShapes of_keys = shapes;
    if (shapes.shares_keys()) of_keys.heads = shapes.key_heads;
    const Tensor k = like_a_head_tensor(of_keys);
    bytes = std::max(bytes, dense_attention_->forward_workspace(x, x, k, k));
    if (!shapes.forward_only)
      bytes = std::max(bytes, dense_attention_->backward_workspace(x, k, k, x, x, x, k, k));
  }
  return bytes;
}

void CudaOps::use_scratch(Tensor scratch) {
  check_rank(scratch, DeviceKind::cuda, DType::u8, 1, "use_scratch", "scratch");
  scratch_ = scratch;
}

void* CudaOps::scratch(std::int64_t bytes, const char* op) const {
  require(!scratch_.empty() && scratch_.numel() >= bytes, "{}: needs {} bytes of scratch, {} are lent", op,
          bytes, scratch_.empty() ? 0 : scratch_.numel());
  return scratch_.raw();
}

void CudaOps::compute(const operation::Upload& call) {
  const Tensor& dst = call.dst;
  const void* host = call.host;
  if (dst.numel() == 0) return;
  if (dst.bytes() <= Staging::slot_bytes) return staging_->upload(dst.raw(), host, dst.bytes(), stream_);
  check_cuda(cudaMemcpyAsync(dst.raw(), host, static_cast<std::size_t>(dst.bytes()), cudaMemcpyHostToDevice,
                             stream_),
             "uploading");
  synchronize();
}

void CudaOps::compute(const operation::Download& call) {
  const Tensor& src = call.src;
  void* host = call.host;
  if (src.numel() == 0) return;
  check_cuda(cudaMemcpyAsync(host, src.raw(), static_cast<std::size_t>(src.bytes()), cudaMemcpyDeviceToHost,
                             stream_),
             "downloading");
  synchronize();
}

}  // namespace cuda
}  // namespace ratplus
