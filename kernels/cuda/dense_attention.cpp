#include "kernels/cuda/dense_attention.h"

#include <cudnn_frontend.h>

#include <cmath>
#include <unordered_map>
#include <vector>

#include "kernels/cuda/checks.h"

namespace ratplus::cuda {
namespace {

namespace fe = cudnn_frontend;
using Sizes = std::vector<std::int64_t>;
using GraphTensor = std::shared_ptr<fe::graph::Tensor_attributes>;

/// Names of the tensors of a graph.
enum Uid : std::int64_t { uid_q = 1, uid_k, uid_v, uid_out, uid_lse, uid_dout, uid_dq, uid_dk, uid_dv };

void check_cudnn(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) fail("cuDNN: {} failed: {}", what, cudnnGetErrorString(status));
}

/// [B, T, H, P] as cuDNN orders dimensions: [B, H, T, P].
Sizes sizes_of(const Tensor& x) {
  return {x.size(0), x.size(2), x.size(1), x.size(3)};
}
Sizes strides_of(const Tensor& x) {
  return {x.stride(0), x.stride(2), x.stride(1), 1};
}

fe::graph::Tensor_attributes describe(const Tensor& x, Uid uid) {
  return fe::graph::Tensor_attributes().set_uid(uid).set_dim(sizes_of(x)).set_stride(strides_of(x));
}

/// lse [B, H, T], as cuDNN's [B, H, T, 1].
fe::graph::Tensor_attributes describe_lse(const Tensor& q) {
  const std::int64_t b = q.size(0), t = q.size(1), h = q.size(2);
  return fe::graph::Tensor_attributes()
      .set_uid(uid_lse)
      .set_dim({b, h, t, 1})
      .set_stride({h * t, t, 1, 1})
      .set_data_type(fe::DataType_t::FLOAT);
}

void mark_output(const GraphTensor& x, const Tensor& like, Uid uid) {
  x->set_output(true).set_uid(uid).set_dim(sizes_of(like)).set_stride(strides_of(like));
}

float scale_of(const Tensor& q) {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(q.size(3))));
}

/// cuDNN's kernels load 16 bytes at once.
bool aligned(const Tensor& x) {
  const auto whole = [](std::int64_t elements) { return elements * 2 % 16 == 0; };
  return reinterpret_cast<std::uintptr_t>(x.raw()) % 16 == 0 && whole(x.stride(0)) && whole(x.stride(1)) &&
         whole(x.stride(2)) && whole(x.size(3));
}

template <std::size_t N>
bool all_aligned(const std::array<Tensor, N>& tensors) {
  for (const Tensor& x : tensors) {
    if (!aligned(x)) return false;
  }
  return true;
}

template <typename Key, std::size_t N>
Key key_of(const std::array<Tensor, N>& tensors, const Tensor& k) {
  Key key{};
  for (std::size_t i = 0; i < 4; ++i) key[i] = tensors[0].size(static_cast<int>(i));
  key[4] = k.size(1), key[5] = k.size(2);
  for (std::size_t n = 0; n < N; ++n) {
    for (std::size_t i = 0; i < 3; ++i) key[6 + 3 * n + i] = tensors[n].stride(static_cast<int>(i));
  }
  return key;
}

std::unique_ptr<fe::graph::Graph> new_graph() {
  auto graph = std::make_unique<fe::graph::Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  return graph;
}

}  // namespace

struct DenseAttention::Handle {
  explicit Handle(cudaStream_t stream) {
    check_cudnn(cudnnCreate(&value), "starting");
    check_cudnn(cudnnSetStream(value, stream), "choosing a stream");
  }
  ~Handle() { cudnnDestroy(value); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  cudnnHandle_t value = nullptr;
};

struct DenseAttention::Plan {
  /// Takes a graph whose operation and outputs are set; keeps it if cuDNN has a kernel for it.
  Plan(std::unique_ptr<fe::graph::Graph> wanted, cudnnHandle_t handle, const Tensor& q) {
    auto status = wanted->build(handle, {fe::HeurMode_t::A});
    if (status.is_good()) status = wanted->get_workspace_size(workspace);
    if (status.is_good()) {
      graph = std::move(wanted);
      return;
    }
    workspace = -1;
    // Of the sizes of models it has kernels: that one is not to be had says that something is wrong with this cuDNN, and
    // our own kernels, which are several times slower here, shall not hide it.
    if (q.size(1) >= 256 && (q.size(3) == 64 || q.size(3) == 128)) {
      fail(
          "cuDNN {} has no dense attention for {} here ({}); check that it is complete (libcudnn_graph, "
          "libcudnn_engines_*, libnvrtc) and fits this GPU and its driver",
          cudnnGetVersion(), q.describe(), status.get_message());
    }
  }
  Plan() = default;

  void run(std::unordered_map<std::int64_t, void*> pointers, void* memory, cudnnHandle_t handle) const {
    auto status = graph->execute(handle, pointers, memory);
    if (status.is_bad()) fail("cuDNN: attention failed: {}", status.get_message());
  }

  std::unique_ptr<fe::graph::Graph> graph;  ///< empty: cuDNN has no kernel
  std::int64_t workspace = -1;
};

DenseAttention::DenseAttention(cudaStream_t stream, bool deterministic)
    : handle_(std::make_unique<Handle>(stream)), deterministic_(deterministic) {}
DenseAttention::~DenseAttention() = default;

DenseAttention::Plan& DenseAttention::forward_plan(const Tensor& out, const Tensor& q, const Tensor& k,
                                                   const Tensor& v) {
  const std::array<Tensor, 4> tensors{q, k, v, out};
  auto& plan = plans_[key_of<Key>(tensors, k)];
  if (plan) return *plan;
  auto graph = new_graph();
  const auto options = fe::graph::SDPA_attributes()
                           .set_name("attention")
                           .set_generate_stats(true)
                           .set_causal_mask(true)
                           .set_attn_scale(scale_of(q));
  const auto [result, stats] =
      graph->sdpa(graph->tensor(describe(q, uid_q)), graph->tensor(describe(k, uid_k)),
                  graph->tensor(describe(v, uid_v)), options);
  mark_output(result, out, uid_out);
  const auto lse = describe_lse(q);
  stats->set_output(true)
      .set_uid(uid_lse)
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim(lse.get_dim())
      .set_stride(lse.get_stride());
  plan = std::make_unique<Plan>(std::move(graph), handle_->value, q);
  return *plan;
}

DenseAttention::Plan& DenseAttention::backward_plan(const std::array<Tensor, 8>& tensors) {
  const auto& [dq, dk, dv, dout, out, q, k, v] = tensors;
  auto& plan = plans_[key_of<Key>(tensors, k)];
  if (plan) return *plan;
  auto graph = new_graph();
  const auto options = fe::graph::SDPA_backward_attributes()
                           .set_name("attention gradient")
                           .set_causal_mask(true)
                           .set_attn_scale(scale_of(q))
                           .set_deterministic_algorithm(deterministic_);
  const auto [gq, gk, gv] =
      graph->sdpa_backward(graph->tensor(describe(q, uid_q)), graph->tensor(describe(k, uid_k)),
                           graph->tensor(describe(v, uid_v)), graph->tensor(describe(out, uid_out)),
                           graph->tensor(describe(dout, uid_dout)), graph->tensor(describe_lse(q)), options);
  mark_output(gq, dq, uid_dq);
  mark_output(gk, dk, uid_dk);
  mark_output(gv, dv, uid_dv);
  plan = std::make_unique<Plan>(std::move(graph), handle_->value, q);
  return *plan;
}

std::int64_t DenseAttention::forward_workspace(Tensor out, Tensor q, Tensor k, Tensor v) {
  if (!all_aligned(std::array{out, q, k, v})) return -1;
  return forward_plan(out, q, k, v).workspace;
}

std::int64_t DenseAttention::backward_workspace(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                                                Tensor q, Tensor k, Tensor v) {
  const std::array tensors{dq, dk, dv, dout, out, q, k, v};
  return all_aligned(tensors) ? backward_plan(tensors).workspace : -1;
}

void DenseAttention::forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, void* workspace) {
  forward_plan(out, q, k, v)
      .run({{uid_q, q.raw()}, {uid_k, k.raw()}, {uid_v, v.raw()}, {uid_out, out.raw()}, {uid_lse, lse.raw()}},
           workspace, handle_->value);
}

void DenseAttention::backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                              Tensor k, Tensor v, void* workspace) {
  backward_plan({dq, dk, dv, dout, out, q, k, v})
      .run({{uid_q, q.raw()},
            {uid_k, k.raw()},
            {uid_v, v.raw()},
            {uid_out, out.raw()},
            {uid_lse, lse.raw()},
            {uid_dout, dout.raw()},
            {uid_dq, dq.raw()},
            {uid_dk, dk.raw()},
            {uid_dv, dv.raw()}},
           workspace, handle_->value);
}

}  // namespace ratplus::cuda
