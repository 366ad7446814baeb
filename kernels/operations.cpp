#include "kernels/operations.h"

#include <algorithm>
#include <array>

#include "kernels/checks.h"
#include "kernels/sampling_operations.h"

namespace ratplus {

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
    case Part::transfer:
      return "transfers";
  }
  return "?";
}

namespace operation {
namespace {

bool same_shape(const Tensor& a, const Tensor& b) {
  return std::ranges::equal(a.shape(), b.shape());
}

void check_there(const Target& target, const Tensor& tensor, const char* op) {
  require(tensor.device().kind == target.kind && (!tensor.empty() || tensor.numel() == 0),
          "{}: a tensor is missing, or not on {}", op, target.kind == DeviceKind::cpu ? "cpu" : "cuda");
}

/// Tensors of one shape in C.
void check_alike(const Target& target, std::initializer_list<Tensor> tensors, const char* op) {
  const Tensor& first = *tensors.begin();
  for (const Tensor& tensor : tensors) {
    require(tensor.dtype() == target.compute, "{}: a tensor is not {}", op, to_string(target.compute));
    require(same_shape(tensor, first), "{}: tensors differ in shape", op);
    check_there(target, tensor, op);
  }
}

struct Checker {
  const Target& target;
  const char* op;

  void f32(const Tensor& x, CheckedShape shape, const char* name) const {
    check_tensor(x, target.kind, DType::f32, shape, op, name);
  }
  void i32(const Tensor& x, CheckedShape shape, const char* name) const {
    check_tensor(x, target.kind, DType::i32, shape, op, name);
  }
  void compute(const Tensor& x, CheckedShape shape, const char* name) const {
    check_tensor(x, target.kind, target.compute, shape, op, name);
  }
  void rank(const Tensor& x, DType type, int rank, const char* name) const {
    check_rank(x, target.kind, type, rank, op, name);
  }
};

void check_sum(const Target& target, const Tensor& total, const Tensor& x, const char* op) {
  check_tensor(total, target.kind, DType::f64, {1}, op, "total");
  require(x.dtype() == DType::f32, "{}: x is not f32", op);
  check_there(target, x, op);
  check_contiguous(x, op, "x");
}

void check_logits(const Target& target, const Tensor& logits, const Tensor& labels, const char* op) {
  const Checker check{target, op};
  check.rank(logits, logits.dtype() == DType::f32 ? DType::f32 : target.compute, 2, "logits");
  check.i32(labels, {logits.size(0)}, "labels");
}

/// The sizes of a call of the recurrence, and its rotary table: f32 [at least first_position + T, 2, P/2].
void check_rope(const Checker& check, const Tensor& rope, std::int64_t first, std::int64_t tokens,
                std::int64_t head_dim) {
  require(head_dim % 2 == 0, "{}: the head dimension {} is odd", check.op, head_dim);
  require(first >= 0 && rope.rank() == 3 && rope.size(0) >= first + tokens,
          "{}: the rotary table has too few positions", check.op);
  check.f32(rope, {rope.size(0), 2, head_dim / 2}, "rope");
  check_contiguous(rope, check.op, "rope");
}

/// Heads' tensors [B, T, any heads, P] of one call.
struct HeadSizes {
  HeadSizes(const Checker& checker, const Tensor& one)
      : check_(checker), batch(one.size(0)), tokens(one.size(1)), head_dim(one.size(3)) {
    check_.rank(one, check_.target.compute, 4, "a tensor of heads");
  }
  void check(const Tensor& x, std::int64_t heads, const char* which) const {
    check_.compute(x, {batch, tokens, heads, head_dim}, which);
  }

  const Checker& check_;
  std::int64_t batch, tokens, head_dim;
};

Tensor first_of(std::initializer_list<Tensor> tensors) {
  for (const Tensor& x : tensors) {
    if (x) return x;
  }
  return {};
}

/// The heads of x, which `heads` share.
std::int64_t shared_heads(const Tensor& x, std::int64_t heads, const char* op) {
  const auto shared = x.rank() == 4 ? x.size(2) : 0;
  require(shared > 0 && heads % shared == 0, "{}: {} heads share {}", op, heads, shared);
  return shared;
}

void check_bias(const Checker& check, const Tensor& bias, const Tensor& like) {
  if (!bias) return;
  check.f32(bias, {like.size(2), like.size(3)}, "gate_bias");
  check_contiguous(bias, check.op, "gate_bias");
}

void check_state(const Checker& check, const Tensor& state, const Tensor& like, const char* name) {
  if (!state) return;
  check.f32(state, {like.size(0), 2, like.size(2), like.size(3)}, name);
  check_contiguous(state, check.op, name);
}

void check_patterns(HeadPatterns patterns, std::int64_t heads, const char* op) {
  require(patterns.size() == 1 || std::ssize(patterns) == heads, "{}: {} patterns for {} heads", op,
          patterns.size(), heads);
  for (const Pattern& pattern : patterns) validate(pattern, op);
}

/// What both directions of attention have.
void check_attention(const Checker& check, const Tensor& out, const Tensor& lse, const Tensor& q,
                     const Tensor& k, const Tensor& v, HeadPatterns patterns, std::int64_t first_query) {
  check.rank(out, check.target.compute, 4, "out");
  const auto batch = out.size(0), queries = out.size(1), heads = out.size(2), head_dim = out.size(3);
  check_patterns(patterns, heads, check.op);
  require(first_query >= 0, "{}: the first query is at {}", check.op, first_query);
  const auto key_heads = shared_heads(k, heads, check.op);
  check.compute(q, {batch, queries, shared_heads(q, heads, check.op), head_dim}, "q");
  check.compute(k, {batch, first_query + queries, key_heads, head_dim}, "k");
  check.compute(v, {batch, first_query + queries, key_heads, head_dim}, "v");
  check.f32(lse, {batch, heads, queries}, "lse");
  check_contiguous(lse, check.op, "lse");
}

/// D of (D, 0, 0) under which all heads of a whole sequence attend to enough chunks for dense_chunk; else 0.
std::int64_t dense_chunk_of(DType compute, const Tensor& out, const Tensor& k, HeadPatterns patterns,
                            std::int64_t first_query) {
  const std::int64_t tokens = k.size(1), head_dim = out.size(3), chunk = patterns.front().dilation;
  const bool whole = first_query == 0 && k.size(2) == out.size(2);
  const bool sizes = compute == DType::bf16 && (head_dim == 64 || head_dim == 128);
  const bool alike = chunk > 1 && std::ranges::all_of(patterns, [&](const Pattern& pattern) {
                       return pattern == Pattern{chunk, 0, 0};
                     });
  if (!whole || !sizes || !alike || tokens % chunk != 0) return 0;
  return tokens / chunk >= AttentionForward::least_dense_chunks ? chunk : 0;
}

Cost attention_cost(const Target& target, const Tensor& out, HeadPatterns patterns, std::int64_t first_query,
                    std::int64_t dense_chunk, double operations_a_pair, double bytes, Pace pace) {
  double pairs = 0;
  for (const auto& pattern : patterns) {
    pairs += attended_pairs(pattern, first_query + out.size(1)) - attended_pairs(pattern, first_query);
  }
  const double heads_each = static_cast<double>(out.size(2)) / static_cast<double>(patterns.size());
  return {
      .part = all_dense(patterns) ? Part::dense_attention : Part::pattern_attention,
      .pace = pace,
      .operations = operations_a_pair * static_cast<double>(out.size(0) * out.size(3)) * heads_each * pairs,
      .bytes = bytes,
      .keys_a_query = pairs / static_cast<double>(patterns.size()) / static_cast<double>(out.size(1)),
      .dense_over_chunks = dense_chunk > 0,
      .tensor_cores = attention_on_tensor_cores(target.compute, out.size(3))};
}

}  // namespace

bool all_dense(HeadPatterns patterns) {
  return std::ranges::all_of(patterns, &Pattern::dense);
}

std::string profile_kind(const char* name, HeadPatterns patterns) {
  const bool one = std::ranges::all_of(patterns, [&](const Pattern& p) { return p == patterns.front(); });
  return std::string(name) + " " + (one ? ratplus::to_string(patterns.front()) : "by heads");
}

// --- memory ------------------------------------------------------------------------------------------------------

void Copy::check(const Target& target) const {
  require(same_shape(dst, src), "copy: dst and src differ in shape");
  const auto converts = [](DType a, DType b) { return a == DType::f32 && b == DType::bf16; };
  require(
      dst.dtype() == src.dtype() || converts(dst.dtype(), src.dtype()) || converts(src.dtype(), dst.dtype()),
      "copy: no conversion from {} to {}", ratplus::to_string(src.dtype()), ratplus::to_string(dst.dtype()));
  check_there(target, dst, name);
  check_there(target, src, name);
}
Cost Copy::cost(const Target&) const {
  return {.bytes = bytes_of({dst, src})};
}

void Fill::check(const Target& target) const {
  const DType type = x.dtype();
  require(type == DType::f32 || type == DType::f64 || type == DType::i32 || type == target.compute,
          "fill: {} is none of f32, f64, {}, i32", ratplus::to_string(type),
          ratplus::to_string(target.compute));
  check_there(target, x, name);
}
Cost Fill::cost(const Target&) const {
  return {.bytes = bytes_of({x})};
}

void Add::check(const Target& target) const {
  require(same_shape(y, x), "add: y and x differ in shape");
  require(y.dtype() == DType::f32 && x.dtype() == DType::f32, "add: y and x are f32");
  check_there(target, y, name);
  check_there(target, x, name);
}
Cost Add::cost(const Target&) const {
  return {.bytes = bytes_of({y, y, x})};
}

void Upload::check(const Target& target) const {
  check_contiguous(dst, name, "dst");
  check_there(target, dst, name);
}
Cost Upload::cost(const Target&) const {
  return {.part = Part::transfer, .bytes = bytes_of({dst})};
}

void Download::check(const Target& target) const {
  check_contiguous(src, name, "src");
  check_there(target, src, name);
}
Cost Download::cost(const Target&) const {
  return {.part = Part::transfer, .bytes = bytes_of({src})};
}

// --- products and embedding --------------------------------------------------------------------------------------

void Matmul::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(c, c.dtype() == DType::f32 ? DType::f32 : target.compute, 2, "c");
  checker.rank(a, target.compute, 2, "a");
  const auto m = c.size(0), n = c.size(1), k = a.size(options.transpose_a ? 0 : 1);
  checker.compute(a, options.transpose_a ? CheckedShape{k, m} : CheckedShape{m, k}, "a");
  checker.compute(b, options.transpose_b ? CheckedShape{n, k} : CheckedShape{k, n}, "b");
  for (const Tensor* matrix : {&c, &a, &b}) {
    require(matrix->size(0) <= 1 || matrix->stride(0) >= matrix->size(1), "matmul: rows overlap");
  }
}
Cost Matmul::cost(const Target& target) const {
  const double inner = static_cast<double>(a.size(options.transpose_a ? 0 : 1));
  return {.part = Part::products,
          .pace = Pace::product,
          .operations = 2 * static_cast<double>(c.numel()) * inner,
          .bytes = bytes_of({a, b, c}) + (options.accumulate ? bytes_of({c}) : 0),
          .tensor_cores = target.compute == DType::bf16};
}

void EmbeddingForward::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(x, DType::f32, 2, "x");
  const DType type = target.type_of_weights(table);
  checker.rank(table, type, 2, "table");
  checker.i32(tokens, {x.size(0)}, "tokens");
  check_tensor(table, target.kind, type, {table.size(0), x.size(1)}, name, "table");
}
Cost EmbeddingForward::cost(const Target&) const {
  return {.part = Part::loss,
          .pace = Pace::loss,
          .bytes = bytes_of({x}) + static_cast<double>(x.numel() * size_of(table.dtype()))};
}

void EmbeddingBackward::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(dx, DType::f32, 2, "dx");
  checker.rank(dtable, DType::f32, 2, "dtable");
  checker.i32(tokens, {dx.size(0)}, "tokens");
  checker.f32(dtable, {dtable.size(0), dx.size(1)}, "dtable");
}
/// Rows of the table that occur, at most one a row of dx, are read and written.
Cost EmbeddingBackward::cost(const Target&) const {
  return {.part = Part::loss, .pace = Pace::loss, .bytes = bytes_of({dx, dx, dx})};
}

// --- residual + RMSNorm ------------------------------------------------------------------------------------------

void NormForward::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(x, DType::f32, 2, "x");
  const auto rows = x.size(0), width = x.size(1);
  checker.compute(u, {rows, width}, "u");
  checker.f32(rstd, {rows}, "rstd");
  checker.compute(weight, {width}, "weight");
  if (delta) checker.compute(delta, {rows, width}, "delta");
  if (y || delta) checker.f32(y, {rows, width}, "y");
}
Cost NormForward::cost(const Target&) const {
  return {.part = Part::norms, .pace = Pace::norm, .bytes = bytes_of({y, u, x, delta})};
}

void NormBackward::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(du, target.compute, 2, "du");
  const auto rows = du.size(0), width = du.size(1);
  checker.f32(dx, {rows, width}, "dx");
  if (dlayer) checker.compute(dlayer, {rows, width}, "dlayer");
  checker.f32(dweight, {width}, "dweight");
  if (dy) checker.f32(dy, {rows, width}, "dy");
  checker.f32(y, {rows, width}, "y");
  checker.f32(rstd, {rows}, "rstd");
  checker.compute(weight, {width}, "weight");
}
Cost NormBackward::cost(const Target&) const {
  return {.part = Part::norms, .pace = Pace::norm, .bytes = bytes_of({dx, dlayer, du, dy, y})};
}

// --- mixers ------------------------------------------------------------------------------------------------------

void RopeTable::check(const Target& target) const {
  require(table.rank() == 3, "rope_table: the table has {} dimensions, not 3", table.rank());
  check_tensor(table, target.kind, DType::f32, {table.size(0), 2, table.size(2)}, name, "table");
  check_contiguous(table, name, "table");
  require(chunk >= 1 && scale > 0, "{}: chunks of {}, a scale of {}", name, chunk, scale);
}
Cost RopeTable::cost(const Target&) const {
  return {.part = Part::recurrence, .bytes = bytes_of({table})};
}

bool RecurrenceForward::plain() const {
  return q && k && v && q.size(2) == v.size(2) && k.size(2) == v.size(2) && gate_bias.empty() && chunk == 0;
}

void RecurrenceForward::check(const Target& target) const {
  const Checker checker{target, name};
  const HeadSizes sizes(checker, first_of({v, k, q}));
  require(chunk >= 0, "{}: chunks of {}", name, chunk);
  require(q.empty() == q_rot.empty() && k.empty() == k_rot.empty() && v.empty() == v_rec.empty(),
          "{}: an output without its input, or the reverse", name);
  if (q) sizes.check(q, q.size(2), "q"), sizes.check(q_rot, q.size(2), "q_rot");
  const auto heads = gated() ? f.size(2) : k ? k.size(2) : 0;
  if (k) {
    sizes.check(k, gated() ? shared_heads(k, heads, name) : heads, "k");
    sizes.check(k_rot, heads, "k_rot");
  }
  if (v) sizes.check(v, gated() ? heads : v.size(2), "v"), sizes.check(v_rec, v.size(2), "v_rec");
  if (q || k) check_rope(checker, rope, first_position, sizes.tokens, sizes.head_dim);
  if (!gated()) {
    require(state_in.empty() && state_out.empty(), "{}: a state without a gate", name);
    require(gate_bias.empty() && chunk == 0, "{}: a bias or chunks without a gate", name);
    return;
  }
  sizes.check(f, heads, "f");
  require(!v.empty(), "{}: a gate without values", name);
  check_bias(checker, gate_bias, f);
  check_state(checker, state_in, f, "state_in");
  check_state(checker, state_out, f, "state_out");
}
Cost RecurrenceForward::cost(const Target&) const {
  return {.part = Part::recurrence,
          .pace = Pace::recurrence,
          .bytes = bytes_of({q_rot, k_rot, v_rec, q, k, v, f, state_in, state_out})};
}

bool RecurrenceBackward::plain() const {
  return dq && dk && dv && dq.size(2) == dv.size(2) && dk.size(2) == dv.size(2) &&
         dq_rot.size(2) == dq.size(2) && gate_bias.empty() && chunk == 0;
}

void RecurrenceBackward::check(const Target& target) const {
  const Checker checker{target, name};
  const HeadSizes sizes(checker, first_of({dv, dk, dq}));
  require(chunk >= 0, "{}: chunks of {}", name, chunk);
  require(dq.empty() == dq_rot.empty() && dk.empty() == dk_rot.empty() && dv.empty() == dv_rec.empty(),
          "{}: a gradient without the one that it comes from, or the reverse", name);
  if (dq) {
    sizes.check(dq_rot, dq_rot.size(2), "dq_rot");
    sizes.check(dq, shared_heads(dq, dq_rot.size(2), name), "dq");
  }
  const auto heads = gated() ? f.size(2) : dk ? dk.size(2) : 0;
  if (dk) {
    sizes.check(dk, gated() ? shared_heads(dk, heads, name) : heads, "dk");
    sizes.check(dk_rot, heads, "dk_rot");
  }
  if (dv) sizes.check(dv, gated() ? heads : dv.size(2), "dv"), sizes.check(dv_rec, dv.size(2), "dv_rec");
  if (dq || dk) check_rope(checker, rope, first_position, sizes.tokens, sizes.head_dim);
  const auto states = {dstate_in, dstate_out, k_rot_before, v_rec_before};
  require(gated() || std::ranges::all_of(states, &Tensor::empty), "{}: a state without a gate", name);
  if (!gated()) {
    require(gate_bias.empty() && chunk == 0, "{}: a bias or chunks without a gate", name);
    return;
  }
  sizes.check(df, heads, "df"), sizes.check(v, heads, "v"), sizes.check(f, heads, "f");
  sizes.check(v_rec, heads, "v_rec");
  if (dk) sizes.check(k, dk.size(2), "k"), sizes.check(k_rot, heads, "k_rot");
  check_bias(checker, gate_bias, f);
  require(v_rec_before || k_rot_before.empty(), "{}: k_rot_before or v_rec_before is missing", name);
  if (v_rec_before) {
    require(dk.empty() == k_rot_before.empty(), "{}: k_rot_before or v_rec_before is missing", name);
    if (dk) checker.compute(k_rot_before, {sizes.batch, 1, heads, sizes.head_dim}, "k_rot_before");
    checker.compute(v_rec_before, {sizes.batch, 1, heads, sizes.head_dim}, "v_rec_before");
    require(first_position > 0, "{}: a token before position 0", name);
  }
  check_state(checker, dstate_in, f, "dstate_in");
  check_state(checker, dstate_out, f, "dstate_out");
}
/// Without the gate, k, v, k~ and v~ are not read.
Cost RecurrenceBackward::cost(const Target&) const {
  return {.part = Part::recurrence,
          .pace = Pace::recurrence,
          .bytes = bytes_of({dq, dk, dv, df, dq_rot, dk_rot, dv_rec, dstate_in, dstate_out}) +
                   (gated() ? bytes_of({k, v, f, k_rot, v_rec}) : 0)};
}

void AddColumnSums::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(x, target.compute, 2, "x");
  checker.f32(sums, {x.size(1)}, "sums");
}
Cost AddColumnSums::cost(const Target&) const {
  return {.part = Part::recurrence, .pace = Pace::sum, .bytes = bytes_of({x})};
}

std::int64_t AttentionForward::dense_chunk(DType compute) const {
  return in_pieces ? 0 : dense_chunk_of(compute, out, k, patterns, first_query);
}
void AttentionForward::check(const Target& target) const {
  check_attention({target, name}, out, lse, q, k, v, patterns, first_query);
}
Cost AttentionForward::cost(const Target& target) const {
  return attention_cost(target, out, patterns, first_query, dense_chunk(target.compute), operations_a_pair,
                        bytes_of({out, q, k, v}), Pace::attention_forward);
}

std::int64_t AttentionBackward::dense_chunk(DType compute) const {
  return key_sums ? 0 : dense_chunk_of(compute, out, k, patterns, first_query);
}
void AttentionBackward::check(const Target& target) const {
  const Checker checker{target, name};
  check_attention(checker, out, lse, q, k, v, patterns, first_query);
  const auto batch = out.size(0), heads = out.size(2), head_dim = out.size(3), keys = k.size(1);
  checker.compute(dout, {batch, out.size(1), heads, head_dim}, "dout");
  checker.compute(dq, {batch, out.size(1), heads, head_dim}, "dq");
  checker.compute(dk, {batch, keys, k.size(2), head_dim}, "dk");
  checker.compute(dv, {batch, keys, k.size(2), head_dim}, "dv");
  if (!key_sums) return;
  checker.f32(key_sums, {batch, keys, 2, heads, head_dim}, "key_sums");
}
Cost AttentionBackward::cost(const Target& target) const {
  return attention_cost(target, out, patterns, first_query, dense_chunk(target.compute), operations_a_pair,
                        bytes_of({dq, dk, dv, dout, out, q, k, v, key_sums, key_sums}),
                        Pace::attention_backward);
}

void OutputGateForward::check(const Target& target) const {
  check_alike(target, {z, a, o}, name);
}
Cost OutputGateForward::cost(const Target&) const {
  return {.part = Part::gate, .pace = Pace::gate, .bytes = bytes_of({z, a, o})};
}

void OutputGateBackward::check(const Target& target) const {
  check_alike(target, {da, dgate, dz, a, o}, name);
}
Cost OutputGateBackward::cost(const Target&) const {
  return {.part = Part::gate, .pace = Pace::gate, .bytes = bytes_of({da, dgate, dz, a, o})};
}

// --- feed-forward layer ------------------------------------------------------------------------------------------

void GeluForward::check(const Target& target) const {
  check_alike(target, {z, h}, name);
}
Cost GeluForward::cost(const Target&) const {
  return {.part = Part::gelu, .pace = Pace::gelu, .bytes = bytes_of({z, h})};
}

void GeluBackward::check(const Target& target) const {
  check_alike(target, {dh, dz, h}, name);
}
Cost GeluBackward::cost(const Target&) const {
  return {.part = Part::gelu, .pace = Pace::gelu, .bytes = bytes_of({dh, dz, h})};
}

// --- loss --------------------------------------------------------------------------------------------------------

void CrossEntropy::check(const Target& target) const {
  check_logits(target, logits, labels, name);
  check_tensor(losses, target.kind, DType::f32, {logits.size(0)}, name, "losses");
}
Cost CrossEntropy::cost(const Target&) const {
  return {.part = Part::loss,
          .pace = Pace::loss,
          .bytes = bytes_of({losses, logits}) + (want_gradient ? bytes_of({logits}) : 0)};
}

void Hits::check(const Target& target) const {
  check_logits(target, logits, labels, name);
  check_tensor(hits, target.kind, DType::i32, {logits.size(0)}, name, "hits");
}
Cost Hits::cost(const Target&) const {
  return {.part = Part::loss, .pace = Pace::loss, .bytes = bytes_of({hits, logits})};
}

// --- reductions and the optimizer --------------------------------------------------------------------------------

void AddSum::check(const Target& target) const {
  check_sum(target, total, x, name);
}
Cost AddSum::cost(const Target&) const {
  return {.part = Part::loss, .pace = Pace::sum, .bytes = bytes_of({x})};
}

void AddSumOfSquares::check(const Target& target) const {
  check_sum(target, total, x, name);
}
Cost AddSumOfSquares::cost(const Target&) const {
  return {.part = Part::update, .pace = Pace::sum, .bytes = bytes_of({x})};
}

void AddDigest::check(const Target& target) const {
  check_tensor(digest, target.kind, DType::i32, {2}, name, "digest");
  require(x.rank() == 1 && x.contiguous() && x.device().kind == target.kind,
          "add_digest: x is {}, not one contiguous row on the device", x.describe());
  require(x.dtype() == DType::f32 || x.dtype() == DType::bf16 || x.dtype() == DType::i32,
          "add_digest: x is {}, not f32, bf16 or i32", x.describe());
  require(x.numel() < (std::int64_t{1} << 32), "add_digest: {} elements are more than 2^32 - 1", x.numel());
}
Cost AddDigest::cost(const Target&) const {
  return {.part = Part::sums, .pace = Pace::sum, .bytes = bytes_of({x})};
}

void AdamWUpdate::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(master, DType::f32, 1, "master");
  const auto n = master.size(0);
  checker.f32(m, {n}, "m");
  checker.f32(v, {n}, "v");
  checker.f32(gradient, {n}, "gradient");
  const auto type = weights.dtype() == DType::bf16 ? DType::bf16 : DType::f32;
  if (copies()) check_tensor(weights, target.kind, type, {n}, name, "weights");
  require(update.step >= 1, "adamw: step {} is not counted from 1", update.step);
}
Cost AdamWUpdate::cost(const Target&) const {
  return {.part = Part::update,
          .pace = Pace::adamw,
          .bytes = bytes_of({master, master, m, m, v, v, gradient}) + (copies() ? bytes_of({weights}) : 0)};
}

// --- generation --------------------------------------------------------------------------------------------------

void AdjustLogits::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(logits, DType::f32, 2, "logits");
  checker.rank(row, DType::i32, 1, "row");
  const auto entries = row.size(0);
  checker.i32(token, {entries}, "token");
  checker.f32(factor, {entries}, "factor");
  checker.f32(addend, {entries}, "addend");
}
Cost AdjustLogits::cost(const Target&) const {
  return {.part = Part::loss,
          .pace = Pace::loss,
          .bytes = 3 * bytes_of({factor, addend})};  // an entry's 16 bytes, and a logit, read and written
}

void SampleTokens::check(const Target& target) const {
  const Checker checker{target, name};
  checker.rank(logits, DType::f32, 2, "logits");
  const auto rows = logits.size(0), vocab = logits.size(1);
  require(vocab > 0 && vocab <= most_vocab, "sample_tokens: {} logits a row, not from 1 to {}", vocab,
          most_vocab);
  checker.i32(tokens, {rows}, "tokens");
  checker.f32(temperature, {rows}, "temperature");
  checker.i32(top_k, {rows}, "top_k");
  checker.f32(top_p, {rows}, "top_p");
  checker.f32(min_p, {rows}, "min_p");
  checker.f32(uniform, {rows}, "uniform");
}
Cost SampleTokens::cost(const Target&) const {
  // Without top_k and top_p: the largest, the sum of the weights, and the running sum.
  return {.part = Part::loss, .pace = Pace::loss, .bytes = bytes_of({tokens, logits, logits, logits})};
}

void ScoreTokens::check(const Target& target) const {
  check_logits(target, logits, labels, name);
  const Checker checker{target, name};
  const auto rows = logits.size(0), vocab = logits.size(1);
  require(vocab > 0, "score_tokens: a row has no logits");
  checker.f32(log_probability, {rows}, "log_probability");
  if (!top_tokens) return require(!top_log_probability, "score_tokens: top_tokens is absent");
  checker.rank(top_tokens, DType::i32, 2, "top_tokens");
  require(tops() <= vocab, "score_tokens: the {} largest of {} logits", tops(), vocab);
  checker.i32(top_tokens, {rows, tops()}, "top_tokens");
  checker.f32(top_log_probability, {rows, tops()}, "top_log_probability");
}
Cost ScoreTokens::cost(const Target&) const {
  return {.part = Part::loss,
          .pace = Pace::loss,
          .bytes = bytes_of({log_probability, top_tokens, top_log_probability, logits, logits, labels}) +
                   (tops() > 1 ? bytes_of({logits}) : 0)};
}

}  // namespace operation
}  // namespace ratplus
