#include "lib/plan/modelled_ops.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "lib/plan/speeds.h"

namespace ratplus::plan {
ModelledOps::ModelledOps(const Gpu& gpu, DType compute, bool deterministic, double pace, ModelledTime& time)
    : gpu_(gpu), compute_(compute), deterministic_(deterministic), pace_(pace), time_(time) {
  observe(this);
}

bool ModelledOps::fuses_norm(std::int64_t rows, std::int64_t width) const {
  return compute_ == DType::bf16 && gpu_.own_products && operation::RowProduct::norm_fits(rows, width);
}

std::unique_ptr<Stopwatch> ModelledOps::make_stopwatch() {
  require(false, "a stopwatch of operations that are only counted");
  return nullptr;
}

/// Seconds of a call: the larger of what its bytes and its operations take; under a pattern, attention's kernels take the
/// sum. As kernels/cuda/attention.cpp chooses: cuDNN where all heads are dense or attend to many chunks, our own kernels else; plain
/// ones without tensor cores.
double ModelledOps::seconds_of(const Cost& cost) const {
  const double copy = gpu_.bandwidth * speeds::copy_share;
  const auto bytes_at = [&](double share) { return cost.bytes / (copy * share); };
  switch (cost.pace) {
    case Pace::copy:
      return bytes_at(1);
    case Pace::norm:
      return bytes_at(speeds::norm_share);
    case Pace::recurrence:
      return bytes_at(speeds::recurrence_share);
    case Pace::gate:
      return bytes_at(speeds::gate_share);
    case Pace::gelu:
      return bytes_at(speeds::gelu_share);
    case Pace::loss:
      return bytes_at(speeds::loss_share);
    case Pace::sum:
      return bytes_at(speeds::sum_share);
    case Pace::adamw:
      return bytes_at(speeds::adamw_share);
    case Pace::product: {
      const double rate = cost.tensor_cores ? gpu_.bf16_rate * gpu_.pace * speeds::product_share
                                            : gpu_.f32_rate * speeds::f32_product_share;
      return std::max(cost.operations / rate, bytes_at(1));
    }
    case Pace::row_product:
    case Pace::product_chain: {
      Cost product = cost;
      product.pace = Pace::product;
      double wait = cost.links * (cost.pace == Pace::product_chain ? speeds::chained_product_wait
                                                                   : speeds::row_product_wait);
      // Most bytes are the weights', of two each, so that this is nearly the number of rows.
      const double rows = cost.operations / cost.bytes;
      if (rows > 31 && rows < 64) wait = std::max(wait, cost.bytes * speeds::row_product_wait_a_byte);
      return seconds_of(product) + wait;
    }
    case Pace::mixer_step:
      return bytes_at(speeds::mixer_step_share) + speeds::mixer_step_wait;
    case Pace::attention_forward:
    case Pace::attention_backward:
      break;
  }
  if (!cost.tensor_cores) {
    if (compute_ != DType::f32) {
      return bytes_at(1) + cost.operations / (gpu_.f32_rate * speeds::plain_attention_share);
    }
    const auto& kernel = speeds::float32_attention;
    const double with_blocks = cost.operations * (1 + kernel.block / cost.keys_a_query);
    return bytes_at(1) + with_blocks / (gpu_.f32_rate * kernel.share);
  }
  const bool forward = cost.pace == Pace::attention_forward;
  if (cost.part == Part::dense_attention || cost.dense_over_chunks) {
    const auto& kernel = forward          ? speeds::dense_forward
                         : deterministic_ ? speeds::dense_backward
                                          : speeds::dense_backward_any_order;
    const double with_blocks = cost.operations * (1 + kernel.block / cost.keys_a_query);
    const double of_pairs = with_blocks / (gpu_.bf16_rate * gpu_.pace * kernel.share);
    if (cost.dense_over_chunks) return bytes_at(1) + of_pairs;  // the own keys are a pass of their own
    return std::max(bytes_at(1), of_pairs);
  }
  const double share = forward ? speeds::pattern_forward_share : speeds::pattern_backward_share;
  return bytes_at(forward ? speeds::pattern_forward_bytes : speeds::pattern_backward_bytes) +
         cost.operations / (gpu_.bf16_rate * gpu_.pace * share);
}

/// Inputs and labels are small and travel while the GPU computes: they take nothing.
void ModelledOps::ended(const OpCall& call) {
  const Cost cost = call.cost();
  if (cost.part == Part::transfer) return;
  auto& work = work_[static_cast<std::size_t>(cost.part)];
  work.operations += cost.operations;
  work.bytes += cost.bytes;
  const double taken = (seconds_of(cost) + speeds::between_operations) / pace_;
  work.seconds += taken;
  time_.compute(taken);
}

void ModelledOps::compute(const operation::Download& x) {
  std::memset(x.host, 0, static_cast<std::size_t>(x.src.bytes()));
}

/// Of what kernels/cuda asks for, those that decide: attention under patterns (pattern_attention_scratch, which its form over
/// chunks stays within), and cuDNN's deterministic gradient of dense attention, which was seen to take 2 T bytes a query and head
/// (cuDNN 9.14, T = 4096, heads of 128).
std::int64_t ModelledOps::scratch_bytes(const OpShapes& shapes) const {
  const std::int64_t queries = shapes.batch * shapes.heads * shapes.tokens;
  if (shapes.forward_only) {  // of products, of cuDNN's forward, and of attention over chunks
    return (std::int64_t{64} << 20) + queries * size_of(DType::f32);
  }
  const std::int64_t of_heads = shapes.shares_keys() ? 4 : 2;  // dk and dv, and again before their sums
  const std::int64_t patterns = queries * (1 + of_heads * shapes.head_dim) * size_of(DType::f32);
  const bool by_cudnn = operation::attention_on_tensor_cores(compute_, shapes.head_dim);
  const std::int64_t dense = by_cudnn && deterministic_ && shapes.dense ? queries * 2 * shapes.tokens : 0;
  return std::max(patterns, dense);
}

}  // namespace ratplus::plan
