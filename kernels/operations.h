// Operations: the arguments of every numerical operation as a struct of named tensors, with its checks, its name and its
// cost. Ops runs them; a new operation is a struct here, a line in RATPLUS_OPERATIONS, one `compute` a backend
// (kernels/cpu, kernels/cuda), and its test.
//
// Conventions
// - Outputs first. "x" is overwritten; "x +=" is added to.
// - B sequences of T tokens, N = B T rows, d model width, H heads of P channels (d = H P), V vocabulary entries.
// - A backend computes products in its compute type C: float32 on the CPU; bfloat16, or float32 for checking, on a GPU.
//   "f32" marks what is float32 everywhere: the residual stream, norms' statistics, gradients of parameters, losses,
//   optimizer state, carried states.
// - Rows may be strided (a slice of a wider matrix); the last dimension is contiguous.
// - An empty tensor stands for "absent"; a tensor that may be absent has a default here, and its comment says what that
//   means. All others must be named.
// - check() compares shapes and types; a mismatch is std::logic_error, since only this program can cause it.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cost.h"
#include "kernels/device.h"
#include "kernels/pattern.h"
#include "kernels/tensor.h"

namespace ratplus {

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

/// The backend that a call is checked for.
struct Target {
  DeviceKind kind = DeviceKind::cpu;
  DType compute = DType::f32;  ///< C

  /// The type that the weights of an operation of inference must have: on the CPU they may be bf16, too.
  DType type_of_weights(const Tensor& w) const {
    return kind == DeviceKind::cpu && w.dtype() == DType::bf16 ? DType::bf16 : compute;
  }
};

namespace operation {

// --- memory ------------------------------------------------------------------------------------------------------

/// dst = src, converting between f32 and bf16 where the types differ. Equal shapes.
struct Copy {
  static constexpr const char* name = "copy";
  Tensor dst, src;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// x = value (f32, f64, C or i32).
struct Fill {
  static constexpr const char* name = "fill";
  Tensor x;
  float value = 0;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// y += x, f32, equal shapes.
struct Add {
  static constexpr const char* name = "add";
  Tensor y, x;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Host memory to device memory. On return the host's memory may be changed.
struct Upload {
  static constexpr const char* name = "upload";
  Tensor dst;
  const void* host = nullptr;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Device memory to host memory. On return the host's memory holds the result.
struct Download {
  static constexpr const char* name = "download";
  void* host = nullptr;
  Tensor src;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

// --- products and embedding --------------------------------------------------------------------------------------

/// c [M, N] = a [M, K] b [K, N]. a and b in C; c in C or f32.
struct Matmul {
  static constexpr const char* name = "matmul";
  Tensor c, a, b;
  MatmulOptions options;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// x [N, d] f32 = rows of table [V, d] (C, or bf16 on the CPU) at tokens [N] i32.
struct EmbeddingForward {
  static constexpr const char* name = "embedding_forward";
  Tensor x, tokens, table;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// dtable [V, d] f32 += dx [N, d] f32 at tokens [N]; in the order of the rows.
struct EmbeddingBackward {
  static constexpr const char* name = "embedding_backward";
  Tensor dtable, dx, tokens;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

// --- residual + RMSNorm ------------------------------------------------------------------------------------------

/// y = x + delta;  rstd = 1 / sqrt(mean(y^2) + eps);  u = y rstd weight.
struct NormForward {
  static constexpr const char* name = "residual_rms_norm_forward";
  Tensor y = {};      ///< [N, d] f32; may be x; may be absent without delta
  Tensor u;           ///< [N, d] C
  Tensor rstd;        ///< [N] f32
  Tensor x;           ///< [N, d] f32
  Tensor delta = {};  ///< [N, d] C; absent: y = x
  Tensor weight;      ///< [d] C
  double eps = 1e-6;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Gradient of NormForward: dx = dy + d(norm)/dy du, which is also d(delta).
struct NormBackward {
  static constexpr const char* name = "residual_rms_norm_backward";
  Tensor dx;           ///< [N, d] f32; may be dy
  Tensor dlayer = {};  ///< [N, d] C, a copy of dx for products; may be absent
  Tensor dweight;      ///< [d] f32, +=
  Tensor du;           ///< [N, d] C
  Tensor dy = {};      ///< [N, d] f32, the gradient that reaches y past the norm; may be absent
  Tensor y, rstd;      ///< as the forward left them
  Tensor weight;       ///< [d] C

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

// --- mixers (docs/model.md, section 4) ---------------------------------------------------------------------

/// The rotary table, f32 [T, 2, P/2]: cos and sin of floor(t / chunk) / scale base^(-2i/P).
struct RopeTable {
  static constexpr const char* name = "rope_table";
  Tensor table;
  double base = 10000;
  std::int64_t chunk = 1;  ///< L: tokens that share a position
  double scale = 1;        ///< divides positions: more of them within the range of the trained ones

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// The gated recurrence of keys and values and the rotary embedding of queries and keys. With g = sigmoid(f + gate_bias),
///     k~_t = g_t k~_{t-1} + (1 - g_t) k_t,   the same for v~ (in f32),   or k~ = k and v~ = v without f;
///     q_rot = RoPE(q),   k_rot = RoPE(k~),   v_rec = v~.
/// With a chunk of L, k~_{t-1} = v~_{t-1} = 0 where t mod L = 0. H heads have gates; queries may have another number of
/// heads, and G heads of keys may serve all H: head h reads head h mod G.
/// A sequence may come in pieces: first_position is the place of the piece's first token in the sequence, and the state
/// after one piece is the state before the next.
struct RecurrenceForward {
  static constexpr const char* name = "recurrence_rope_forward";
  Tensor q_rot = {}, k_rot = {}, v_rec = {};  ///< [B, T, heads of q, or H, P] C; absent where q, k or v is
  Tensor state_out = {};  ///< [B, 2, H, P] f32, k~ (not rotated) and v~ after the last token; may be absent
  Tensor q = {};          ///< [B, T, any heads, P] C; may be absent
  Tensor k = {};          ///< [B, T, G, P] C, with f, else [B, T, H, P]; may be absent
  Tensor v = {};          ///< [B, T, H, P] C; may be absent without f
  Tensor f = {};          ///< [B, T, H, P] C; absent: no recurrence
  Tensor gate_bias = {};  ///< [H, P] f32; absent: zero
  Tensor rope = {};       ///< f32 [at least first_position + T, 2, P/2]; absent without q and k
  Tensor state_in = {};   ///< [B, 2, H, P] f32, k~ and v~ before the first token; absent: zero
  std::int64_t first_position = 0;  ///< position of the first token
  std::int64_t chunk = 0;           ///< L; 0: the recurrence never restarts

  bool gated() const { return !f.empty(); }
  /// Whether q, k and v are all there with H heads each, and the gate is f alone.
  bool plain() const;
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Gradient of RecurrenceForward: the reversed scan s_t = e_t + g_{t+1} s_{t+1} of docs/model.md, section 5. dq and dk
/// of a head that several share are sums over these, in the order of the heads.
struct RecurrenceBackward {
  static constexpr const char* name = "recurrence_rope_backward";
  Tensor dq = {}, dk = {}, dv = {};  ///< as q, k, v
  Tensor df = {};                    ///< [B, T, H, P] C; absent without f
  Tensor dstate_in = {};             ///< [B, 2, H, P] f32, gradient of state_in; may be absent
  Tensor dq_rot = {};  ///< [B, T, a multiple of the heads of dq, P] C; head h is of head h mod those
  Tensor dk_rot = {}, dv_rec = {};                ///< [B, T, H, P] C; dk_rot is overwritten where G < H
  Tensor dstate_out = {};                         ///< [B, 2, H, P] f32, gradient of state_out; absent: zero
  Tensor k = {}, v = {}, f = {}, gate_bias = {};  ///< as the forward's; read with f only
  Tensor k_rot = {}, v_rec = {};                  ///< the forward's outputs; read with f only
  Tensor k_rot_before = {},
         v_rec_before =
             {};     ///< [B, 1, H, P] C, its outputs at first_position - 1; absent: the state was zero
  Tensor rope = {};  ///< as the forward's
  std::int64_t first_position = 0;
  std::int64_t chunk = 0;

  bool gated() const { return !f.empty(); }
  bool plain() const;
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// sums [columns] f32 += the sum over the rows of x [N, columns] (C), in f32.
struct AddColumnSums {
  static constexpr const char* name = "add_column_sums";
  Tensor sums, x;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// out_t = sum over s in A(t) of softmax_s(q_t . k_s / sqrt(P)) v_s, per sequence and head. Never holds T x T; the cost
/// follows the number of attended keys. Queries may be fewer than keys: the last ones of a sequence, from first_query on.
/// Heads may share: of H heads (those of `out`), head h reads the queries of head h mod Hq, and the keys and values of head
/// floor(h / (H / Hk)).
struct AttentionForward {
  static constexpr const char* name = "attention_forward";
  static constexpr double operations_a_pair = 4;      ///< a channel: scores, and weighted sums of values
  static constexpr std::int64_t most_head_dim = 256;  ///< P of a GPU's kernels, at most
  /// So many keys before a window may be read, with weight zero: they are finite.
  static constexpr std::int64_t most_tile = 256;
  /// Chunks of a sequence from which on a GPU takes (D, 0, 0) as dense attention over the keys that chunks end with.
  static constexpr std::int64_t least_dense_chunks = 1024;

  Tensor out;                    ///< [B, Tq, H, P] C
  Tensor lse;                    ///< [B, H, Tq] f32, log sum exp of the scaled scores
  Tensor q;                      ///< [B, Tq, Hq, P] C; Hq divides H
  Tensor k, v;                   ///< [B, T, Hk, P] C, of positions 0 .. T - 1; Hk divides H
  HeadPatterns patterns;         ///< 1, or one a head
  std::int64_t first_query = 0;  ///< position of the first query: T - Tq
  /// A query's bits do not depend on where its sequence is cut into calls, if that is at multiples of 128.
  bool in_pieces = false;

  /// D of (D, 0, 0), where a GPU takes the call as D heads of dense attention that share the keys that chunks of D end with; else 0.
  std::int64_t dense_chunk(DType compute) const;
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Gradient of AttentionForward. A sequence whose queries come in pieces, first to last, hands key_sums on.
struct AttentionBackward {
  static constexpr const char* name = "attention_backward";
  static constexpr double operations_a_pair =
      10;                                     ///< a channel: scores again, gradients of weights, q, k and v
  static constexpr double needed_a_pair = 8;  ///< without the scores

  Tensor dq;  ///< [B, Tq, H, P] C, of each head's queries; not yet summed where Hq < H
  Tensor dk,
      dv;  ///< [B, T, Hk, P] C: of these queries, and of those in key_sums; sums over the heads that share
  Tensor key_sums =
      {};  ///< [B, T, 2, H, P] f32, sums of dk and dv over the queries of earlier pieces, then of
           ///< these too, in a unit of the backend's own: zero before the first; may be absent
  Tensor dout, out, lse, q;  ///< of the queries, as the forward's
  Tensor k, v;               ///< as the forward's
  HeadPatterns patterns;
  std::int64_t first_query = 0;

  /// As AttentionForward's.
  std::int64_t dense_chunk(DType compute) const;
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// Whether a GPU's kernels of attention take heads of P channels in C by tensor cores (bf16 rows of whole 16 bytes).
constexpr bool attention_on_tensor_cores(DType compute, std::int64_t head_dim) {
  return compute == DType::bf16 && head_dim % 8 == 0 && head_dim <= 128;
}
/// Whether every head attends to every key before it.
bool all_dense(HeadPatterns patterns);
/// "attention_forward 64,0,0", or "attention_forward by heads" where heads differ: the kind of a call in a profile.
std::string profile_kind(const char* name, HeadPatterns patterns);

/// z = a sigmoid(o), all [N, d] C.
struct OutputGateForward {
  static constexpr const char* name = "output_gate_forward";
  Tensor z, a, o;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// da, dgate [N, d] C from dz; dgate is the gradient of o. da may be dz.
struct OutputGateBackward {
  static constexpr const char* name = "output_gate_backward";
  Tensor da, dgate, dz, a, o;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

// --- feed-forward layer (docs/model.md, section 9) ---------------------------------------------------------------

/// z = gelu(h) = h (1 + erf(h / sqrt 2)) / 2, exact; [N, F] C.
struct GeluForward {
  static constexpr const char* name = "gelu_forward";
  Tensor z, h;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// dh = dz gelu'(h); dh may be dz.
struct GeluBackward {
  static constexpr const char* name = "gelu_backward";
  Tensor dh, dz, h;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

// --- loss (docs/model.md, section 10) ----------------------------------------------------------------------------

/// losses [N] f32 = cross-entropy of logits [N, V] (C or f32) at labels [N] i32, 0 where the label is negative (a
/// position that is left out). With want_gradient, logits become scale * (softmax(logits) - onehot), zero rows where
/// left out; else they are left alone.
struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  Tensor losses, logits, labels;
  double scale = 1;
  bool want_gradient = false;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// hits [N] i32 = 1 where the label is the largest of its row of logits [N, V] (C or f32), the first of equal ones; 0
/// elsewhere: where the label is negative, and where a logit of the row is NaN.
struct Hits {
  static constexpr const char* name = "hits";
  Tensor hits, logits, labels;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

// --- reductions and the optimizer --------------------------------------------------------------------------------

/// total [1] f64 += the sum of the elements of x (f32), accumulated in float64. Nothing waits for it.
struct AddSum {
  static constexpr const char* name = "add_sum";
  Tensor total, x;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// total [1] f64 += the sum of the squares of x (f32), accumulated in float64.
struct AddSumOfSquares {
  static constexpr const char* name = "add_sum_of_squares";
  Tensor total, x;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// digest [2] i32, 64 bits with the low half first, += the sum modulo 2^64 of a mix of each element's bits and its index in
/// x [n] (f32, bf16 or i32; n below 2^32). The same for the same bits, in whatever order they are added, and another for a
/// change of one element; for other changes with a chance of 1 - 2^-64.
struct AddDigest {
  static constexpr const char* name = "add_digest";
  Tensor digest, x;

  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

/// One update of master [n] f32 with moments m, v [n] f32 by gradient [n] f32. weights [n] (f32 or bf16), if not empty
/// and not master itself, gets the result in its own type.
struct AdamWUpdate {
  static constexpr const char* name = "adamw";
  Tensor master, m, v, weights, gradient;
  AdamW update;

  bool copies() const { return weights && weights.raw() != master.raw(); }
  void check(const Target& target) const;
  Cost cost(const Target& target) const;
};

}  // namespace operation
}  // namespace ratplus

// clang-format off
/// Calls X(Struct) for every operation, those of kernels/sampling_operations.h included: each backend has a `compute` for each.
#define RATPLUS_OPERATIONS(X) X(Download) RATPLUS_DEVICE_OPERATIONS(X)
/// The same without Download, the only one whose result the host reads.
#define RATPLUS_DEVICE_OPERATIONS(X)                                                         \
  X(Copy) X(Fill) X(Add) X(Upload) X(Matmul) X(EmbeddingForward) X(EmbeddingBackward)         \
  X(NormForward) X(NormBackward) X(RopeTable) X(RecurrenceForward) X(RecurrenceBackward)      \
  X(AddColumnSums) X(AttentionForward) X(AttentionBackward) X(OutputGateForward)              \
  X(OutputGateBackward) X(GeluForward) X(GeluBackward) X(CrossEntropy) X(Hits) X(AddSum)      \
  X(AddSumOfSquares) X(AddDigest) X(AdamWUpdate) X(AdjustLogits) X(SampleTokens) X(ScoreTokens) \
  RATPLUS_INFERENCE_OPERATIONS(X)
// clang-format on
