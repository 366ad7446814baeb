// Ops: a backend that runs the operations of kernels/operations.h. Every call is checked, shown to an observer if there is
// one, and handed to the backend (kernels/cpu, kernels/cuda).
//
// - Operations run in the order of the calls. Results on a device are ready for the host after synchronize();
//   download() waits by itself.
// - A token or label outside the vocabulary is std::logic_error on the CPU; a GPU's kernels cannot tell, stay within
//   memory and give a meaningless result: callers check (lib/model does).
// - The same call on the same inputs gives the same bits, on a GPU as on the CPU with the same number of threads. Whatever
//   the number of threads, too, for all but matmul, whose sums a BLAS may cut by threads (OpenBLAS 0.3.21 gave equal bits
//   with 1 and 2 threads at the sizes of the tests, but promises nothing).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "kernels/device.h"
#include "kernels/inference_operations.h"
#include "kernels/operations.h"
#include "kernels/sampling_operations.h"
#include "kernels/tensor.h"

namespace ratplus {

/// The sizes of a job that decide how much scratch its operations need.
struct OpShapes {
  std::int64_t batch = 1;      ///< B, sequences of a micro-batch
  std::int64_t tokens = 1;     ///< T
  std::int64_t heads = 1;      ///< H
  std::int64_t head_dim = 1;   ///< P
  std::int64_t key_heads = 0;  ///< heads of keys and values that H heads share; 0: H
  bool forward_only = false;   ///< no gradient is computed
  bool dense = true;           ///< a layer may attend to every key

  bool shares_keys() const { return key_heads != 0 && key_heads != heads; }
};

/// Points in the order of a backend's work, and the time between them.
class Stopwatch {
 public:
  virtual ~Stopwatch() = default;
  /// Notes a point after all work given so far; returns its number, from 0. Does not wait.
  virtual int mark() = 0;
  /// Seconds from one point to a later one. Waits for it.
  virtual double seconds(int from, int to) = 0;
};

/// One call, as an observer sees it. Valid during the call alone.
class OpCall {
 public:
  virtual ~OpCall() = default;
  /// "matmul", "attention_forward 64,0,0": calls of one kind take alike.
  virtual std::string kind() const = 0;
  virtual Cost cost() const = 0;
};

/// Sees every call of a backend that it is given to (Ops::observe): a profile, a model of time.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  virtual void began(const OpCall& call) = 0;
  virtual void ended(const OpCall& call) = 0;
};

/// Calls of operations that are made again and again on the same tensors, with uploads and downloads left out: a GPU replays
/// them as one.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Makes the calls; they are the same each time.
  virtual void run(const std::function<void()>& calls) = 0;
};

class Ops {
 public:
  virtual ~Ops() = default;

  virtual Device device() const = 0;
  /// The processor's own name, "NVIDIA H100 80GB HBM3"; "CPU" for the host.
  virtual std::string device_name() const = 0;
  /// The type C of products and saved activations.
  virtual DType compute_type() const = 0;
  /// Waits until all work is done.
  virtual void synchronize() = 0;
  /// For measuring how long operations take on the device.
  virtual std::unique_ptr<Stopwatch> make_stopwatch() = 0;
  /// For calls that are made again and again.
  virtual std::unique_ptr<Recording> make_recording();
  /// Shows every call to the observer from now on; nullptr: to nobody. The observer outlives that.
  void observe(OpObserver* observer) { observer_ = observer; }

  // --- scratch -------------------------------------------------------------------------------------------
  /// Bytes of scratch that the operations below may use at these sizes.
  virtual std::int64_t scratch_bytes(const OpShapes& shapes) const = 0;
  /// Lends scratch: u8 [bytes], at least scratch_bytes of the largest sizes to come. All operations share it.
  virtual void use_scratch(Tensor scratch) = 0;

  // --- operations: kernels/operations.h says what each does ------------------------------------------------
  void copy(Tensor dst, Tensor src) { run(operation::Copy{dst, src}); }
  void fill(Tensor x, float value) { run(operation::Fill{x, value}); }
  void add(Tensor y, Tensor x) { run(operation::Add{y, x}); }
  void upload(Tensor dst, const void* host) { run(operation::Upload{dst, host}); }
  void download(void* host, Tensor src) { run(operation::Download{host, src}); }
  void matmul(Tensor c, Tensor a, Tensor b, MatmulOptions options) {
    run(operation::Matmul{c, a, b, options});
  }
  void embedding_forward(Tensor x, Tensor tokens, Tensor table) {
    run(operation::EmbeddingForward{x, tokens, table});
  }
  void embedding_backward(Tensor dtable, Tensor dx, Tensor tokens) {
    run(operation::EmbeddingBackward{dtable, dx, tokens});
  }
  void residual_rms_norm_forward(const operation::NormForward& x) { run(x); }
  void residual_rms_norm_backward(const operation::NormBackward& x) { run(x); }
  void rope_table(Tensor table, double base, std::int64_t chunk = 1, double scale = 1) {
    run(operation::RopeTable{table, base, chunk, scale});
  }
  void recurrence_rope_forward(const operation::RecurrenceForward& x) { run(x); }
  void recurrence_rope_backward(const operation::RecurrenceBackward& x) { run(x); }
  void add_column_sums(Tensor sums, Tensor x) { run(operation::AddColumnSums{sums, x}); }
  void attention_forward(const operation::AttentionForward& x) { run(x); }
  void attention_backward(const operation::AttentionBackward& x) { run(x); }
  void output_gate_forward(Tensor z, Tensor a, Tensor o) { run(operation::OutputGateForward{z, a, o}); }
  void output_gate_backward(Tensor da, Tensor dgate, Tensor dz, Tensor a, Tensor o) {
    run(operation::OutputGateBackward{da, dgate, dz, a, o});
  }
  void gelu_forward(Tensor z, Tensor h) { run(operation::GeluForward{z, h}); }
  void gelu_backward(Tensor dh, Tensor dz, Tensor h) { run(operation::GeluBackward{dh, dz, h}); }
  void cross_entropy(Tensor losses, Tensor logits, Tensor labels, double scale, bool want_gradient) {
    run(operation::CrossEntropy{losses, logits, labels, scale, want_gradient});
  }
  void hits(Tensor hits, Tensor logits, Tensor labels) { run(operation::Hits{hits, logits, labels}); }
  void add_sum(Tensor total, Tensor x) { run(operation::AddSum{total, x}); }
  void add_sum_of_squares(Tensor total, Tensor x) { run(operation::AddSumOfSquares{total, x}); }
  void add_digest(Tensor digest, Tensor x) { run(operation::AddDigest{digest, x}); }
  void pack_weight(Tensor w) { run(operation::PackWeight{w}); }
  /// Whether a row_product of so many rows may begin with their norm or end with a residual.
  virtual bool fuses_norm(std::int64_t /*rows*/, std::int64_t /*width*/) const { return false; }
  void row_product(const operation::RowProduct& x) { run(x); }
  void row_product(Tensor y, Tensor x, Tensor w, bool gelu = false) {
    run(operation::RowProduct{y, x, w, gelu});
  }
  void product_chain(const operation::ProductChain& x) { run(x); }
  void cache_append(const operation::CacheAppend& x) { run(x); }
  void cache_gather(const operation::CacheGather& x) { run(x); }
  void mixer_step(const operation::MixerStep& x) { run(x); }
  void adamw(Tensor master, Tensor m, Tensor v, Tensor weights, Tensor gradient, const AdamW& update) {
    run(operation::AdamWUpdate{master, m, v, weights, gradient, update});
  }
  void adjust_logits(const operation::AdjustLogits& x) { run(x); }
  void sample_tokens(const operation::SampleTokens& x) { run(x); }
  void score_tokens(const operation::ScoreTokens& x) { run(x); }

 protected:
  // A backend's own part of each operation, once its arguments are checked.
#define RATPLUS_DECLARE(Operation) virtual void compute(const operation::Operation& x) = 0;
  RATPLUS_OPERATIONS(RATPLUS_DECLARE)
#undef RATPLUS_DECLARE

 private:
  template <typename Operation>
  class CallOf final : public OpCall {
   public:
    CallOf(const Operation& operation, const Target& target) : operation_(operation), target_(target) {}
    std::string kind() const override {
      if constexpr (requires { operation_.patterns; }) {
        return operation::profile_kind(Operation::name, operation_.patterns);
      } else {
        return Operation::name;
      }
    }
    Cost cost() const override { return operation_.cost(target_); }

   private:
    const Operation& operation_;
    Target target_;
  };

  template <typename Operation>
  void run(const Operation& x) {
    const Target target{device().kind, compute_type()};
    x.check(target);
    if (!observer_) return compute(x);
    const CallOf<Operation> call(x, target);
    observer_->began(call);
    compute(x);
    observer_->ended(call);
  }

  OpObserver* observer_ = nullptr;
};

/// The CPU backend: float32, OpenBLAS, OpenMP threads (0 = what OpenMP would take).
std::unique_ptr<Ops> make_cpu_ops(int threads = 0);

/// GPUs that this process can use: 0 in a build without CUDA, or where there is no driver, or none of compute capability
/// 8.0 (Ampere) or newer.
int cuda_device_count();
/// Why there are none; empty where there are some, and in a build without CUDA.
std::string cuda_missing();
/// What no two GPUs have in common, on whatever host, as text.
std::string cuda_device_id(int index);
/// The CUDA backend on the GPU of this local index, with products in bf16, or in f32 for checking. Not
/// deterministic: cuDNN may add up the gradient of dense attention in any order, which is a little faster. Throws
/// Error where there is no such GPU, or this build has no CUDA.
std::unique_ptr<Ops> make_cuda_ops(int index, DType compute_type, bool deterministic = true);

}  // namespace ratplus
