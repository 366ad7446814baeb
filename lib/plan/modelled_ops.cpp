#include "lib/plan/modelled_ops.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "lib/model/attended_pairs.h"
#include "lib/plan/speeds.h"

namespace ratplus::plan {
namespace {

/// Sum of the bytes of those that are there. A tensor that is read and written stands twice.
double bytes_of(std::initializer_list<Tensor> tensors) {
  double bytes = 0;
  for (const auto& x : tensors) bytes += x ? static_cast<double>(x.bytes()) : 0;
  return bytes;
}

bool all_dense(HeadPatterns patterns) {
  return std::ranges::all_of(patterns, &Pattern::dense);
}

}  // namespace

const char* to_string(Part part) {
  switch (part) {
    case Part::products:
      return "products";
    case Part::dense_attention:
      return "dense attention";
    case Part::pattern_attention:
      return "sparse attention";
    case Part::recurrence:
      return "recurrence, RoPE";
    case Part::norms:
      return "norms";
    case Part::gelu:
      return "GELU";
    case Part::gate:
      return "output gate";
    case Part::loss:
      return "loss, embedding";
    case Part::sums:
      return "sums of gradients";
    case Part::update:
      return "AdamW, norm";
  }
  return "?";
}

ModelledOps::ModelledOps(const Gpu& gpu, DType compute, bool deterministic, double pace, ModelledTime& time)
    : gpu_(gpu), compute_(compute), deterministic_(deterministic), pace_(pace), time_(time) {}

std::unique_ptr<Stopwatch> ModelledOps::make_stopwatch() {
  require(false, "a stopwatch of operations that are only counted");
  return nullptr;
}

// --- what an operation takes --------------------------------------------------------------------------------------

void ModelledOps::spend(Part part, double operations, double bytes, double seconds) {
  auto& work = work_[static_cast<std::size_t>(part)];
  work.operations += operations;
  work.bytes += bytes;
  const double taken = (seconds + speeds::between_operations) / pace_;
  work.seconds += taken;
  time_.compute(taken);
}

/// One pass over memory, at this share of a copy's bandwidth.
void ModelledOps::pass(Part part, double share, double bytes) {
  spend(part, 0, bytes, bytes / (gpu_.bandwidth * speeds::copy_share * share));
}

double ModelledOps::pairs(const Pattern& pattern, std::int64_t tokens) {
  const auto [place, fresh] =
      pairs_.try_emplace({pattern.dilation, pattern.window, pattern.sinks, tokens}, 0);
  if (fresh) place->second = model::attended_pairs(pattern, tokens);
  return place->second;
}

/// As kernels/cuda/attention.cpp chooses: cuDNN where all heads are dense, our own kernels else; plain ones without
/// tensor cores.
void ModelledOps::attend(const Tensor& q, HeadPatterns patterns, double operations_a_pair, double bytes,
                         const AttentionRates& rates) {
  const auto batch = q.size(0), tokens = q.size(1), heads = q.size(2), channels = q.size(3);
  double pairs_of_heads = 0;
  for (const auto& pattern : patterns) pairs_of_heads += pairs(pattern, tokens);
  const double heads_each = static_cast<double>(heads) / static_cast<double>(patterns.size());
  const double operations =
      operations_a_pair * static_cast<double>(batch * channels) * heads_each * pairs_of_heads;
  const double copy = gpu_.bandwidth * speeds::copy_share;
  const bool dense = all_dense(patterns);
  const Part part = dense ? Part::dense_attention : Part::pattern_attention;
  if (compute_ == DType::f32 || channels % 8 != 0 || channels > 128) {
    spend(part, operations, bytes,
          bytes / copy + operations / (gpu_.f32_rate * speeds::plain_attention_share));
  } else if (dense) {
    spend(part, operations, bytes, std::max(bytes / copy, operations / rates.dense));
  } else {
    spend(part, operations, bytes, bytes / (copy * rates.pattern_bytes) + operations / rates.pattern);
  }
}

// --- operations ---------------------------------------------------------------------------------------------------

/// Of what kernels/cuda asks for, the two that decide: attention under patterns (pattern_attention_scratch), and cuDNN's
/// deterministic gradient of dense attention, which was seen to take 2 T bytes a query and head (cuDNN 9.14, T = 4096,
/// heads of 128).
std::int64_t ModelledOps::scratch_bytes(const OpShapes& shapes) const {
  const std::int64_t queries = shapes.batch * shapes.heads * shapes.tokens;
  const std::int64_t patterns = queries * (1 + 2 * shapes.head_dim) * size_of(DType::f32);
  const bool by_cudnn = compute_ == DType::bf16 && shapes.head_dim % 8 == 0 && shapes.head_dim <= 128;
  const std::int64_t dense = by_cudnn && deterministic_ ? queries * 2 * shapes.tokens : 0;
  return std::max(patterns, dense);
}

void ModelledOps::copy(Tensor dst, Tensor src) {
  pass(Part::sums, 1, bytes_of({dst, src}));
}

void ModelledOps::fill(Tensor x, float) {
  pass(Part::sums, 1, bytes_of({x}));
}

void ModelledOps::add(Tensor y, Tensor x) {
  pass(Part::sums, 1, bytes_of({y, y, x}));
}

/// Inputs and labels, which are small and travel while the GPU computes.
void ModelledOps::upload(Tensor, const void*) {}

void ModelledOps::download(void* host, Tensor src) {
  std::memset(host, 0, static_cast<std::size_t>(src.bytes()));
}

void ModelledOps::matmul(Tensor c, Tensor a, Tensor b, MatmulOptions options) {
  const double inner = static_cast<double>(options.transpose_a ? a.size(0) : a.size(1));
  const double operations = 2 * static_cast<double>(c.numel()) * inner;
  const double bytes = bytes_of({a, b, c}) + (options.accumulate ? bytes_of({c}) : 0);
  const double rate = compute_ == DType::bf16 ? gpu_.bf16_rate * speeds::product_share
                                              : gpu_.f32_rate * speeds::f32_product_share;
  spend(Part::products, operations, bytes,
        std::max(operations / rate, bytes / (gpu_.bandwidth * speeds::copy_share)));
}

void ModelledOps::embedding_forward(Tensor x, Tensor, Tensor table) {
  pass(Part::loss, speeds::loss_share,
       bytes_of({x}) + static_cast<double>(x.numel() * size_of(table.dtype())));
}

/// Rows of the table that occur, at most one a row of dx, are read and written.
void ModelledOps::embedding_backward(Tensor, Tensor dx, Tensor) {
  pass(Part::loss, speeds::loss_share, bytes_of({dx, dx, dx}));
}

void ModelledOps::residual_rms_norm_forward(Tensor y, Tensor u, Tensor, Tensor x, Tensor delta, Tensor,
                                            double) {
  pass(Part::norms, speeds::norm_share, bytes_of({y, u, x, delta}));
}

void ModelledOps::residual_rms_norm_backward(Tensor dx, Tensor dlayer, Tensor, Tensor du, Tensor dy, Tensor y,
                                             Tensor, Tensor) {
  pass(Part::norms, speeds::norm_share, bytes_of({dx, dlayer, du, dy, y}));
}

void ModelledOps::rope_table(Tensor table, double) {
  pass(Part::recurrence, 1, bytes_of({table}));
}

/// Reads q, k, v and f of the projection, not o.
void ModelledOps::recurrence_rope_forward(Tensor q_rot, Tensor k_rot, Tensor v_rec, Tensor projection,
                                          Tensor) {
  const double part = bytes_of({projection}) / static_cast<double>(projection.size(2));
  pass(Part::recurrence, speeds::recurrence_share,
       bytes_of({q_rot, k_rot, v_rec}) + bytes_of({projection}) - part);
}

/// With recurrence, also k, v and f of the projection, k~ and v~; the gradients of all but o.
void ModelledOps::recurrence_rope_backward(Tensor dprojection, Tensor dq_rot, Tensor dk_rot, Tensor dv_rec,
                                           Tensor projection, Tensor k_rot, Tensor v_rec, Tensor) {
  const bool recurrence = projection.size(2) == 5;
  const double part = bytes_of({projection}) / static_cast<double>(projection.size(2));
  const double read = recurrence ? 3 * part + bytes_of({k_rot, v_rec}) : 0;
  pass(Part::recurrence, speeds::recurrence_share,
       bytes_of({dq_rot, dk_rot, dv_rec}) + read + bytes_of({dprojection}) - part);
}

/// Two products: scores, and weighted sums of values.
void ModelledOps::attention_forward(Tensor out, Tensor, Tensor q, Tensor k, Tensor v, HeadPatterns patterns) {
  attend(q, patterns, 4, bytes_of({out, q, k, v}),
         {.dense = gpu_.bf16_rate * speeds::dense_forward_share,
          .pattern = gpu_.bf16_rate * speeds::pattern_forward_share,
          .pattern_bytes = speeds::pattern_forward_bytes});
}

/// Five: scores again, and the gradients of weights, queries, keys and values.
void ModelledOps::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor,
                                     Tensor q, Tensor k, Tensor v, HeadPatterns patterns) {
  const double dense_share =
      deterministic_ ? speeds::dense_backward_share : speeds::dense_backward_any_order_share;
  attend(q, patterns, 10, bytes_of({dq, dk, dv, dout, out, q, k, v}),
         {.dense = gpu_.bf16_rate * dense_share,
          .pattern = gpu_.bf16_rate * speeds::pattern_backward_share,
          .pattern_bytes = speeds::pattern_backward_bytes});
}

void ModelledOps::output_gate_forward(Tensor z, Tensor a, Tensor o) {
  pass(Part::gate, speeds::gate_share, bytes_of({z, a, o}));
}

void ModelledOps::output_gate_backward(Tensor da, Tensor dgate, Tensor dz, Tensor a, Tensor o) {
  pass(Part::gate, speeds::gate_share, bytes_of({da, dgate, dz, a, o}));
}

void ModelledOps::gelu_forward(Tensor z, Tensor h) {
  pass(Part::gelu, speeds::gelu_share, bytes_of({z, h}));
}

void ModelledOps::gelu_backward(Tensor dh, Tensor dz, Tensor h) {
  pass(Part::gelu, speeds::gelu_share, bytes_of({dh, dz, h}));
}

void ModelledOps::cross_entropy(Tensor losses, Tensor logits, Tensor, double, bool want_gradient) {
  pass(Part::loss, speeds::loss_share, bytes_of({losses, logits}) + (want_gradient ? bytes_of({logits}) : 0));
}

void ModelledOps::hits(Tensor hits, Tensor logits, Tensor) {
  pass(Part::loss, speeds::loss_share, bytes_of({hits, logits}));
}

void ModelledOps::add_sum(Tensor, Tensor x) {
  pass(Part::loss, speeds::sum_share, bytes_of({x}));
}

void ModelledOps::add_sum_of_squares(Tensor, Tensor x) {
  pass(Part::update, speeds::sum_share, bytes_of({x}));
}

void ModelledOps::adamw(Tensor master, Tensor m, Tensor v, Tensor weights, Tensor gradient, const AdamW&) {
  const bool copies = weights && weights.raw() != master.raw();
  pass(Part::update, speeds::adamw_share,
       bytes_of({master, master, m, m, v, v, gradient}) + (copies ? bytes_of({weights}) : 0));
}

}  // namespace ratplus::plan
