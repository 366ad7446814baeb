// Every constant of the model of a step's time, in one place. docs/performance.md, "Predictions for many GPUs",
// explains the model; tests/plan compares it with measured runs.
//
// An operation takes the larger of its bytes over the bandwidth that it reaches and its operations over the rate that it
// reaches (patterns' attention: their sum). What is reached is a share of the datasheet's figure, measured on an H100
// (docs/performance.md, "Operations of a layer") and taken to be the same on every kind.
#pragma once

namespace ratplus::plan::speeds {

// --- shares of the memory's bandwidth ---------------------------------------------------------------------------
/// A large copy: 3.00 of 3.35 TB/s. What follows are shares of that.
inline constexpr double copy_share = 3.00 / 3.35;
inline constexpr double norm_share = 0.156 / 0.178;        ///< residual + RMSNorm
inline constexpr double recurrence_share = 0.212 / 0.255;  ///< gate, recurrence, RoPE
inline constexpr double gate_share = 0.089 / 0.099;
inline constexpr double gelu_share = 0.223 / 0.229;
inline constexpr double loss_share = 0.175 / 0.181;
inline constexpr double adamw_share = 0.209 / 0.213;
inline constexpr double sum_share = 0.028 / 0.034;  ///< sums of squares
/// Attention under a pattern, apart from its products: 1.23 and 1.40 of its tensors' floor.
inline constexpr double pattern_forward_bytes = 1 / 1.23;
inline constexpr double pattern_backward_bytes = 1 / 1.40;

// --- shares of the rate of bfloat16 products --------------------------------------------------------------------
// Of 989 TFLOP/s, in a step of 1b at micro-batch 4, whose power limits the clock.
inline constexpr double product_share = 687e12 / 989e12;
/// A large product by itself, as `ratplus bench ops` and `ratplus check` measure it.
inline constexpr double product_alone_share = 720e12 / 989e12;
/// Dense attention by cuDNN, forward (4 d a pair) and backward (10 d). Its kernels take a block of queries (or of keys) at
/// a time through all tiles of its keys. Besides its pairs a block costs the half of the tile on the diagonal that causal
/// attention leaves out, the filling and emptying of its pipeline, and reads and writes of its own rows: as much as
/// so many more keys for each of its queries. A sequence of T tokens has T / 2 keys a query, so that this is a quarter of
/// the time at T = 4096 and a fiftieth at 64K. In a step an H100 reaches 477 (forward), 396 (backward in any order) and 338
/// (deterministic) TFLOP/s at T = 4096; 630 and 552 at 64K.
struct DenseAttention {
  double share;  ///< of the rate of products, with endless sequences
  double block;  ///< keys a query that a block costs besides its pairs
};
inline constexpr DenseAttention dense_forward = {644e12 / 989e12, 716};
inline constexpr DenseAttention dense_backward = {463e12 / 989e12, 760};
inline constexpr DenseAttention dense_backward_any_order = {567e12 / 989e12, 883};
/// Attention under a pattern: how its time grows with the pairs, from (64, 0, 0), (16, 0, 4) and (16, 256, 4).
inline constexpr double pattern_forward_share = 320e12 / 989e12;
inline constexpr double pattern_backward_share = 198e12 / 989e12;
/// Attention in float32, forward and backward alike, dense and under patterns, from dense, (64, 0, 0), (16, 0, 4) and (16, 256, 4)
/// of heads of 64 (docs/performance.md, "Attention in float32"); heads of 128 take a quarter longer.
inline constexpr DenseAttention float32_attention = {25e12 / 67e12, 110};

// --- shares of the rate of float32 without tensor cores --------------------------------------------------------
// 50.9 of 67 TFLOP/s on an H200.
inline constexpr double f32_product_share = 0.75;
/// Attention's plain kernels: heads above 128 channels, or of no multiple of 8 (bf16) or 4 (float32); not measured.
inline constexpr double plain_attention_share = 0.15;

// --- steps of inference, from an H100 and an H200 (docs/performance.md, "Generation") ------------------------------
/// The caches' bytes, of what a copy reaches.
inline constexpr double mixer_step_share = 0.93;
/// Seconds that a kernel of inference waits for its rows and for its sums, beside its bytes, whatever the rows: a product, one of
/// several in one kernel, a mixer's step.
inline constexpr double row_product_wait = 5.5e-6;
inline constexpr double chained_product_wait = 3e-6;
/// Seconds a byte of weights that a product of 33 to 64 rows waits in the place of row_product_wait where that is longer: from 7b,
/// 120 MB a product, on an H100 and an H200 alike.
inline constexpr double row_product_wait_a_byte = 1 / 7e12;
inline constexpr double mixer_step_wait = 4e-6;

/// Seconds from the end of an operation to the begin of the next: 0.4 % of a step of 1b, of some 7000 operations.
inline constexpr double between_operations = 1.3e-6;

// --- collectives ------------------------------------------------------------------------------------------------
/// Of NVLink's rate in one direction, by NCCL's all-gathers and reduce-scatters of a block; not measured here.
inline constexpr double link_share = 0.6;
/// Bytes a second and GPU between nodes: 400 Gbit/s, of which large messages reach 80 %; not measured here.
inline constexpr double network = 40e9;
/// Seconds that a collective takes for each rank that its data pass through, within a node and between nodes; not
/// measured here.
inline constexpr double link_latency = 2e-6;
inline constexpr double network_latency = 8e-6;
/// By how much computation slows down while a collective runs at the full rate of the link; in proportion where it
/// runs at less. NCCL's kernels take processors and bandwidth that products would have. From 1b with shard = "full" on
/// two H200.
inline constexpr double interference = 0.54;
/// Several GPUs wait for the slowest, which is this share as fast as one alone is on average: from one machine to the
/// next, steps differ by 2 %.
inline constexpr double slowest = 0.99;

}  // namespace ratplus::plan::speeds
