// RoPE of queries and keys where there is no recurrence, and its table of cosines and sines.
//
// Floor: N d elements of 6 tensors (q, k, v; q_rot, k_rot and a copy of v), forward and backward each.
#include "kernels/cuda/rotary.cuh"

namespace ratplus::cuda {
namespace rotary {
namespace {

constexpr int turn_steps = 4;  // of a warp

/// Blocks: [steps / (warps turn_steps), groups of channels], the groups fastest.
template <typename T, int pairs>
__global__ void __launch_bounds__(threads) turn_kernel(const __grid_constant__ Turn<T> a) {
  constexpr int steps = turn_steps, n = 2 * pairs;
  const Lane lane = lane_of_group<pairs>(a.sizes, static_cast<int>(blockIdx.x) % a.groups);
  const int half = a.sizes.head_dim / 2;
  const int first =
      (static_cast<int>(blockIdx.x) / a.groups * warps + static_cast<int>(threadIdx.x) / 32) * steps;
  const int end = lane.active ? a.sizes.tokens : 0;
  const LaneRows q_rows(a.q, lane), k_rows(a.k, lane), v_rows(a.v, lane);
  const LaneRows q_out(a.q_out, lane), k_out(a.k_out, lane), v_out(a.v_out, lane);
  const LaneRows rope(a.rope, lane);
  Pairs<T, pairs> q[steps], k[steps], v[steps];
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int there = min(first + i, a.sizes.tokens - 1);
    q[i] = load_pairs<pairs>(q_rows[there], half);
    k[i] = load_pairs<pairs>(k_rows[there], half);
    v[i] = load_pairs<pairs>(v_rows[there], half);
  }
#pragma unroll
  for (int i = 0; i < steps; ++i) {
    const int t = first + i;
    if (t >= end) break;
    const Rotation<pairs> rotation(rope[t], half);
    float q_turned[n], k_turned[n], v_same[n];
    if (a.back) {
      rotation.turn_back(q_turned, q[i]);
      rotation.turn_back(k_turned, k[i]);
    } else {
      rotation.turn(q_turned, q[i]);
      rotation.turn(k_turned, k[i]);
    }
#pragma unroll
    for (int j = 0; j < n; ++j) v_same[j] = v[i][j];
    store_pairs<pairs>(q_out[t], half, q_turned);
    store_pairs<pairs>(k_out[t], half, k_turned);
    store_pairs<pairs>(v_out[t], half, v_same);
  }
}

}  // namespace

template <typename T>
void launch_turn(Turn<T> turn, cudaStream_t stream, const char* op) {
  const Sizes& s = turn.sizes;
  const bool twos = all_in_twos(s, turn.rope, turn.q, turn.k, turn.v, turn.q_out, turn.k_out, turn.v_out);
  with_form(twos, 0, [&](auto pairs, auto) {
    turn.groups = static_cast<int>(groups_of(s.batch, s.heads, s.head_dim, pairs));
    const std::int64_t blocks = blocks_of(s.tokens, warps * turn_steps) * turn.groups;
    turn_kernel<T, pairs><<<static_cast<unsigned>(blocks), threads, 0, stream>>>(turn);
  });
  check_launch(op);
}

template void launch_turn(Turn<float>, cudaStream_t, const char*);
template void launch_turn(Turn<bf16>, cudaStream_t, const char*);

}  // namespace rotary

namespace {

using rotary::threads;

/// table [T, 2, P/2].
__global__ void __launch_bounds__(threads)
    rope_table_kernel(float* table, std::int64_t tokens, std::int64_t half, double base, std::int64_t chunk,
                      double scale) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (index >= tokens * half) return;
  const std::int64_t t = index / half, i = index % half;
  const double angle =
      static_cast<double>(t / chunk) / scale * pow(base, -static_cast<double>(i) / static_cast<double>(half));
  table[2 * t * half + i] = static_cast<float>(cos(angle));
  table[(2 * t + 1) * half + i] = static_cast<float>(sin(angle));
}

}  // namespace

void CudaOps::compute(const operation::RopeTable& call) {
  const Tensor& table = call.table;
  const double base = call.base;
  const std::int64_t tokens = table.size(0), half = table.size(2);
  if (tokens * half == 0) return;
  rope_table_kernel<<<static_cast<unsigned>(blocks_of(tokens * half, threads)), threads, 0, stream_>>>(
      table.as<float>(), tokens, half, base, call.chunk, call.scale);
  check_launch("rope_table");
}

}  // namespace ratplus::cuda
