// Ops: every numerical operation of the system, forward and backward, documented once and implemented by each
// backend (kernels/cpu, kernels/cuda).
//
// Conventions
// - Outputs first. "x" is overwritten; "x +=" is added to.
// - B sequences of T tokens, N = B T rows, d model width, H heads of P channels (d = H P), V vocabulary
//   entries.
// - A backend computes products in its compute type C: float32 on the CPU; bfloat16, or float32 for checking,
//   on a GPU. "f32" marks what is float32 everywhere: the residual stream, norms' statistics, gradients of
//   parameters, losses, optimizer state.
// - Rows may be strided (a slice of a wider matrix); the last dimension is contiguous.
// - Shapes and types are checked; a mismatch is std::logic_error, since only this program can cause it.
// - Operations run in the order of the calls. Results on a device are ready for the host after synchronize();
//   download() waits by itself.
// - A token or label outside the vocabulary is std::logic_error on the CPU; a GPU's kernels cannot tell, stay within
//   memory and give a meaningless result: callers check (lib/model does).
// - The same call on the same inputs gives the same bits, on a GPU as on the CPU with the same number of threads. Whatever
//   the number of threads, too, for all but matmul, whose sums a BLAS may cut by threads (OpenBLAS 0.3.21 gave equal bits
//   with 1 and 2 threads at the sizes of the tests, but promises nothing).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/device.h"
#include "kernels/pattern.h"
#include "kernels/tensor.h"

namespace ratplus {

/// The sizes of a job that decide how much scratch its operations need.
struct OpShapes {
  std::int64_t batch = 1;     ///< B, sequences of a micro-batch
  std::int64_t tokens = 1;    ///< T
  std::int64_t heads = 1;     ///< H
  std::int64_t head_dim = 1;  ///< P
};

/// How matmul reads its factors.
struct MatmulOptions {
  bool transpose_a = false;  ///< a is stored [K, M]
  bool transpose_b = false;  ///< b is stored [N, K], as a weight [out, in] is
  bool accumulate = false;   ///< c += instead of c =
};

/// One AdamW update (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; with Adam's bias
/// corrections).
struct AdamW {
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double gradient_scale = 1;  ///< multiplies the gradient first: the clipping factor
  std::int64_t step = 1;      ///< this update's number, from 1
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

  // --- scratch -------------------------------------------------------------------------------------------
  /// Bytes of scratch that the operations below may use at these sizes.
  virtual std::int64_t scratch_bytes(const OpShapes& shapes) const = 0;
  /// Lends scratch: u8 [bytes], at least scratch_bytes of the largest sizes to come. All operations share it.
  virtual void use_scratch(Tensor scratch) = 0;

  // --- memory --------------------------------------------------------------------------------------------
  /// dst = src, converting between f32 and bf16 where the types differ. Equal shapes.
  virtual void copy(Tensor dst, Tensor src) = 0;
  /// x = value (f32, f64, C or i32).
  virtual void fill(Tensor x, float value) = 0;
  /// y += x, f32, equal shapes.
  virtual void add(Tensor y, Tensor x) = 0;
  /// Host memory to device memory and back. On return the host's memory may be changed, or holds the result.
  virtual void upload(Tensor dst, const void* host) = 0;
  virtual void download(void* host, Tensor src) = 0;

  // --- matrix product ------------------------------------------------------------------------------------
  /// c [M, N] = a [M, K] b [K, N]. a and b in C; c in C or f32.
  virtual void matmul(Tensor c, Tensor a, Tensor b, MatmulOptions options) = 0;

  // --- embedding -----------------------------------------------------------------------------------------
  /// x [N, d] f32 = rows of table [V, d] (C) at tokens [N] i32.
  virtual void embedding_forward(Tensor x, Tensor tokens, Tensor table) = 0;
  /// dtable [V, d] f32 += dx [N, d] f32 at tokens [N]; in the order of the rows.
  virtual void embedding_backward(Tensor dtable, Tensor dx, Tensor tokens) = 0;

  // --- residual + RMSNorm --------------------------------------------------------------------------------
  /// y = x + delta;  rstd = 1 / sqrt(mean(y^2) + eps);  u = y rstd weight.
  /// x, y [N, d] f32; delta, u [N, d] C; rstd [N] f32; weight [d] C. y may be x. With an empty delta, y = x
  /// and y may be empty.
  virtual void residual_rms_norm_forward(Tensor y, Tensor u, Tensor rstd, Tensor x, Tensor delta,
                                         Tensor weight, double eps) = 0;
  /// Gradient of the above: dx = dy + d(norm)/dy du, which is also d(delta).
  /// du [N, d] C; dy [N, d] f32 is the gradient that arrives at y past the norm (empty: none); dx [N, d] f32
  /// may be dy; dlayer [N, d] C is a copy of dx for products (empty: none); dweight [d] f32 +=; y, rstd as the
  /// forward left them.
  virtual void residual_rms_norm_backward(Tensor dx, Tensor dlayer, Tensor dweight, Tensor du, Tensor dy,
                                          Tensor y, Tensor rstd, Tensor weight) = 0;

  // --- RAT+ mixer (docs/model.md, section 4) ------------------------------------------------------------
  /// The rotary table, f32 [T, 2, P/2]: cos and sin of t base^(-2i/P).
  virtual void rope_table(Tensor table, double base) = 0;
  /// What the attention sees. projection [B, T, 5, H, P] C holds o, q, k, v, f in this order, or [B, T, 4, H,
  /// P] without f (attention without recurrence). With g = sigmoid(f), k~_t = g_t k~_{t-1} + (1 - g_t) k_t
  /// and the same for v~ (f32, from zero), or k~ = k and v~ = v without f:
  ///     q_rot = RoPE(q), k_rot = RoPE(k~), v_rec = v~,   each [B, T, H, P] C.
  virtual void recurrence_rope_forward(Tensor q_rot, Tensor k_rot, Tensor v_rec, Tensor projection,
                                       Tensor rope) = 0;
  /// Gradient of the above into the parts q, k, v (and f) of dprojection; its part o is left alone. k_rot and
  /// v_rec are the forward's outputs. The reversed scan s_t = e_t + g_{t+1} s_{t+1} of docs/model.md, section 5.
  virtual void recurrence_rope_backward(Tensor dprojection, Tensor dq_rot, Tensor dk_rot, Tensor dv_rec,
                                        Tensor projection, Tensor k_rot, Tensor v_rec, Tensor rope) = 0;
  /// out_t = sum over s in A(t) of softmax_s(q_t . k_s / sqrt(P)) v_s, per sequence and head.
  /// q, k, v, out [B, T, H, P] C; lse [B, H, T] f32 = log sum exp of the scaled scores; patterns: 1 or H of
  /// them. Never holds T x T; its cost follows the number of attended keys. A GPU takes
  /// P <= 256. Throws Error where a query has no
  /// key (cannot happen: every query attends to itself).
  virtual void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                                 HeadPatterns patterns) = 0;
  virtual void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse,
                                  Tensor q, Tensor k, Tensor v, HeadPatterns patterns) = 0;
  /// z = a sigmoid(o), all [N, d] C.
  virtual void output_gate_forward(Tensor z, Tensor a, Tensor o) = 0;
  /// da, dgate [N, d] C from dz; dgate is the gradient of o. da may be dz.
  virtual void output_gate_backward(Tensor da, Tensor dgate, Tensor dz, Tensor a, Tensor o) = 0;

  // --- feed-forward layer (docs/model.md, section 9) ----------------------------------------------------
  /// z = gelu(h) = h (1 + erf(h / sqrt 2)) / 2, exact; [N, F] C.
  virtual void gelu_forward(Tensor z, Tensor h) = 0;
  /// dh = dz gelu'(h); dh may be dz.
  virtual void gelu_backward(Tensor dh, Tensor dz, Tensor h) = 0;

  // --- loss (docs/model.md, section 10) -----------------------------------------------------------------
  /// losses [N] f32 = cross-entropy of logits [N, V] (C or f32) at labels [N] i32, 0 where the label is
  /// negative (a position that is left out). With want_gradient, logits become scale * (softmax(logits) -
  /// onehot), zero rows where left out; else they are left alone.
  virtual void cross_entropy(Tensor losses, Tensor logits, Tensor labels, double scale,
                             bool want_gradient) = 0;
  /// hits [N] i32 = 1 where the label is the largest of its row of logits [N, V] (C or f32), the first of equal ones;
  /// 0 elsewhere: where the label is negative, and where a logit of the row is NaN.
  virtual void hits(Tensor hits, Tensor logits, Tensor labels) = 0;

  // --- reductions and the optimizer ----------------------------------------------------------------------
  /// total [1] f64 += the sum of the elements of x (f32), accumulated in float64. Nothing waits for it.
  virtual void add_sum(Tensor total, Tensor x) = 0;
  /// total [1] f64 += the sum of the squares of x (f32), accumulated in float64.
  virtual void add_sum_of_squares(Tensor total, Tensor x) = 0;
  /// One update of master [n] f32 with moments m, v [n] f32 by gradient [n] f32. weights [n], if not empty
  /// and not master itself, gets the result in its own type.
  virtual void adamw(Tensor master, Tensor m, Tensor v, Tensor weights, Tensor gradient,
                     const AdamW& update) = 0;
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
