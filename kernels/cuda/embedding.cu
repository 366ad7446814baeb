// The token embedding: rows of a table, and their gradient.
//
// Backward: pairs (token, row) are sorted by token, stably, so that the rows of a token lie together in order. A block
// adds up the rows of one token for a range of columns, and is the only one to touch that part of the table: no
// atomics, the same bits every time. Tokens with more than 32 rows go to a second kernel, whose warps share the rows
// out among themselves in a fixed way. Floor: dx read once, the rows of dtable that occur read and written once.
#include <algorithm>
#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/vector.cuh"

namespace ratplus::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;
/// Tokens with at most this many rows are added up by one thread a column.
constexpr int short_run = 32;

// --- forward -----------------------------------------------------------------------------------------------------

/// A block a row. A token outside the vocabulary, which the caller should have found, reads row 0.
template <typename T, int V>
__global__ void __launch_bounds__(threads)
    forward_kernel(float* x, std::int64_t x_stride, const std::int32_t* tokens, const T* table,
                   std::int64_t table_stride, std::int64_t vocab, int width) {
  const std::int64_t row = blockIdx.x;
  std::int64_t token = tokens[row];
  if (token < 0 || token >= vocab) token = 0;
  const T* from = table + token * table_stride;
  float* to = x + row * x_stride;
  for (int c = static_cast<int>(threadIdx.x) * V; c < width; c += threads * V) {
    const Pack<T, V> in = load<V>(from + c);
    Pack<float, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.set(j, in[j]);
    store(to + c, out);
  }
}

// --- backward ----------------------------------------------------------------------------------------------------

/// Tokens outside the vocabulary become `vocab`, which sorts last and is left out.
__global__ void __launch_bounds__(threads)
    pairs_kernel(std::uint32_t* keys, std::uint32_t* rows, const std::int32_t* tokens, std::uint32_t count,
                 std::uint32_t vocab) {
  const std::uint32_t i = blockIdx.x * threads + threadIdx.x;
  if (i >= count) return;
  const auto token = static_cast<std::uint32_t>(tokens[i]);  // a negative one becomes large
  keys[i] = token < vocab ? token : vocab;
  rows[i] = i;
}

struct Backward {
  float* dtable;
  std::int64_t dtable_stride;
  const float* dx;
  std::int64_t dx_stride;
  const std::uint32_t *keys, *rows;  ///< sorted
  std::uint32_t count, vocab;
  int width;
};

/// Runs of at most short_run rows. Blocks: [positions, ranges of threads * V columns]; the block of a position where
/// no run begins has nothing to do.
template <int V>
__global__ void __launch_bounds__(threads) short_runs_kernel(const __grid_constant__ Backward a) {
  const std::uint32_t begin = blockIdx.x, key = a.keys[begin];
  if (key == a.vocab || (begin > 0 && a.keys[begin - 1] == key)) return;
  if (begin + short_run < a.count && a.keys[begin + short_run] == key) return;
  // Every warp finds the rows of the run at once, one a lane.
  const std::uint32_t position = begin + threadIdx.x % 32;
  const bool belongs = position < a.count && a.keys[position] == key;
  const std::uint32_t row_of_lane = belongs ? a.rows[position] : 0;
  const int length = __popc(__ballot_sync(~0u, belongs));
  const int c = static_cast<int>(blockIdx.y * threads + threadIdx.x) * V;
  const bool active = c < a.width;
  float* to = a.dtable + key * a.dtable_stride + c;
  Pack<float, V> sum;
  if (active) sum = load<V>(static_cast<const float*>(to));
  constexpr int ahead = 4;
  for (int i = 0; i < length; i += ahead) {
    Pack<float, V> rows[ahead];
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const std::int64_t row = __shfl_sync(~0u, row_of_lane, min(i + u, short_run - 1));
      if (active && i + u < length) rows[u] = load<V>(a.dx + row * a.dx_stride + c);
    }
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      if (!active || i + u >= length) continue;
#pragma unroll
      for (int j = 0; j < V; ++j) sum.set(j, sum[j] + rows[u][j]);
    }
  }
  if (active) store(to, sum);
}

/// The end of the run of `key` that goes on at position `at`: the first later position with another key. By a whole
/// warp, which cuts the range into 32 at each step.
__device__ __forceinline__ std::uint32_t run_end(const std::uint32_t* keys, std::uint32_t at,
                                                 std::uint32_t count, std::uint32_t key) {
  std::uint32_t low = at, high = count;  // keys[low] is key; high is count, or keys[high] is another
  while (high - low > 1) {
    const std::uint32_t step = (high - low + 31) / 32;
    const std::uint32_t probe = low + (threadIdx.x % 32 + 1) * step;
    const unsigned same = __ballot_sync(~0u, probe < high && keys[probe] == key);
    const std::uint32_t last_same =
        low + static_cast<std::uint32_t>(__popc(same)) * step;  // sorted: a prefix
    high = min(high, last_same + step);
    low = last_same;
  }
  return high;
}

/// Runs of more than short_run rows. Blocks: [tiles of short_run positions, ranges of 32 V columns]. At most one such
/// run begins in a tile. Warp w adds up the rows w, w + warps, ... of the run; then the warps' sums are added in order.
template <int V>
__global__ void __launch_bounds__(threads) long_runs_kernel(const __grid_constant__ Backward a) {
  static_assert(short_run == 32);
  __shared__ Pack<float, V> sums[warps][32];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  // Every warp finds the run for itself.
  const std::uint32_t position = blockIdx.x * short_run + static_cast<std::uint32_t>(lane);
  bool begins = position + short_run < a.count;
  if (begins) {
    const std::uint32_t key = a.keys[position];
    begins = key != a.vocab && a.keys[position + short_run] == key &&
             (position == 0 || a.keys[position - 1] != key);
  }
  const unsigned found = __ballot_sync(~0u, begins);
  if (found == 0) return;
  const std::uint32_t begin =
      blockIdx.x * short_run + static_cast<std::uint32_t>(__ffs(static_cast<int>(found)) - 1);
  const std::uint32_t key = a.keys[begin], end = run_end(a.keys, begin + short_run, a.count, key);

  const int c = static_cast<int>(blockIdx.y * 32 + static_cast<unsigned>(lane)) * V;
  Pack<float, V> sum;
#pragma unroll
  for (int j = 0; j < V; ++j) sum.set(j, 0.0f);
  if (c < a.width) {
    constexpr std::uint32_t ahead = 8;
    for (std::uint32_t i = begin + static_cast<std::uint32_t>(warp); i < end; i += ahead * warps) {
      Pack<float, V> rows[ahead];
#pragma unroll
      for (std::uint32_t u = 0; u < ahead; ++u) {
        if (i + u * warps < end) rows[u] = load<V>(a.dx + a.rows[i + u * warps] * a.dx_stride + c);
      }
#pragma unroll
      for (std::uint32_t u = 0; u < ahead; ++u) {
        if (i + u * warps >= end) continue;
#pragma unroll
        for (int j = 0; j < V; ++j) sum.set(j, sum[j] + rows[u][j]);
      }
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || c >= a.width) return;
  float* to = a.dtable + key * a.dtable_stride + c;
  Pack<float, V> total = load<V>(static_cast<const float*>(to));
#pragma unroll
  for (int j = 0; j < V; ++j) {
    float run = 0.0f;
#pragma unroll
    for (int w = 0; w < warps; ++w) run += sums[w][lane][j];
    total.set(j, total[j] + run);
  }
  store(to, total);
}

// --- host --------------------------------------------------------------------------------------------------------

/// Whether vectors of V elements can be loaded from every row.
template <int V>
bool in_vectors(const Tensor& tensor) {
  const auto alignment = static_cast<std::uintptr_t>(std::min<std::int64_t>(16, V * size_of(tensor.dtype())));
  return reinterpret_cast<std::uintptr_t>(tensor.raw()) % alignment == 0 && tensor.size(1) % V == 0 &&
         (tensor.size(0) == 1 || tensor.stride(0) % V == 0);
}

/// Scratch: keys, rows, sorted keys, sorted rows, each [N] and 256-byte aligned; then CUB's own.
struct SortMemory {
  explicit SortMemory(std::int64_t rows) : array(blocks_of(rows * 4, 256) * 256) {
    const std::uint32_t* in = nullptr;
    std::uint32_t* out = nullptr;
    check_cuda(cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, in, out, in, out, static_cast<int>(rows)),
               "asking for the size of a sort");
  }
  std::int64_t bytes() const { return 4 * array + static_cast<std::int64_t>(sort_bytes); }

  std::int64_t array;
  std::size_t sort_bytes = 0;
};

template <int V>
void launch_backward(const Backward& a, cudaStream_t stream) {
  const dim3 short_grid(a.count, static_cast<unsigned>(blocks_of(a.width, threads * V)));
  short_runs_kernel<V><<<short_grid, threads, 0, stream>>>(a);
  const dim3 long_grid(static_cast<unsigned>(blocks_of(a.count, short_run)),
                       static_cast<unsigned>(blocks_of(a.width, 32 * V)));
  long_runs_kernel<V><<<long_grid, threads, 0, stream>>>(a);
  check_launch("embedding_backward");
}

}  // namespace

std::int64_t embedding_scratch(std::int64_t rows) {
  return SortMemory(rows).bytes();
}

void CudaOps::compute(const operation::EmbeddingForward& call) {
  const Tensor &x = call.x, &tokens = call.tokens, &table = call.table;
  const char* op = "embedding_forward";
  const std::int64_t rows = x.size(0), width = x.size(1), vocab = table.size(0);
  if (rows * width == 0) return;
  require(vocab > 0, "{}: the table is empty", op);
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    // Begins once the kernels before have ended, and ends before the next one: MixerStep::at_rest relies on it.
    const auto launch = [&](auto vector) {
      forward_kernel<T, vector><<<static_cast<unsigned>(rows), threads, 0, stream_>>>(
          x.as<float>(), x.stride(0), tokens.as<std::int32_t>(), elements<T>(table), table.stride(0), vocab,
          static_cast<int>(width));
    };
    if (in_vectors<8>(x) && in_vectors<8>(table)) {
      launch(std::integral_constant<int, 8>{});
    } else {
      launch(std::integral_constant<int, 1>{});
    }
  });
  check_launch(op);
}

void CudaOps::compute(const operation::EmbeddingBackward& call) {
  const Tensor &dtable = call.dtable, &dx = call.dx, &tokens = call.tokens;
  const char* op = "embedding_backward";
  const std::int64_t rows = dx.size(0), width = dx.size(1), vocab = dtable.size(0);
  if (rows * width == 0 || vocab == 0) return;

  SortMemory memory(rows);
  auto* base = static_cast<char*>(scratch(memory.bytes(), op));
  const auto array = [&](int i) { return reinterpret_cast<std::uint32_t*>(base + i * memory.array); };
  std::uint32_t *keys = array(0), *ids = array(1), *sorted_keys = array(2), *sorted_ids = array(3);
  const auto count = static_cast<std::uint32_t>(rows);
  pairs_kernel<<<static_cast<unsigned>(blocks_of(rows, threads)), threads, 0, stream_>>>(
      keys, ids, tokens.as<std::int32_t>(), count, static_cast<std::uint32_t>(vocab));
  const int bits = std::bit_width(static_cast<std::uint32_t>(vocab));
  check_cuda(cub::DeviceRadixSort::SortPairs(base + 4 * memory.array, memory.sort_bytes, keys, sorted_keys,
                                             ids, sorted_ids, static_cast<int>(rows), 0, bits, stream_),
             "sorting tokens");
  const Backward backward{dtable.as<float>(),
                          dtable.stride(0),
                          dx.as<float>(),
                          dx.stride(0),
                          sorted_keys,
                          sorted_ids,
                          count,
                          static_cast<std::uint32_t>(vocab),
                          static_cast<int>(width)};
  if (in_vectors<4>(dtable) && in_vectors<4>(dx)) {
    launch_backward<4>(backward, stream_);
  } else {
    launch_backward<1>(backward, stream_);
  }
}

}  // namespace ratplus::cuda
