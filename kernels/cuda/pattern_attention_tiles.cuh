// What the kernels of pattern attention by tiles share: tiles of 64 rows in shared memory, and, on tensor cores, their
// products by warps of 16 or 32 rows each (mma.sync m16n8k16, bf16 in, float32 accumulated).
//
// A row in shared memory is DP channels, 16 bytes apart from the next, so that the eight rows that ldmatrix
// reads at once lie in different banks. P <= DP channels are real; the rest are zeros, and so are rows that
// do not exist.
#pragma once

#include <cuda_runtime_api.h>

#include <climits>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/pattern_attention.h"
#include "kernels/cuda/vector.cuh"

namespace ratplus::cuda {

/// Rows [B, T, H, P] of the positions `first` .. on, as a kernel takes them; row(t) is position t.
template <typename T>
struct Rows {
  Rows() = default;
  explicit Rows(const Tensor& tensor, std::int64_t first = 0)
      : data(elements<T>(tensor) - first * tensor.stride(1)),
        batch(tensor.stride(0)),
        head(tensor.stride(2)),
        token(static_cast<int>(tensor.stride(1))) {}

  T* data = nullptr;
  std::int64_t batch = 0, head = 0;  ///< strides
  int token = 0;                     ///< stride, some H P: 32 bits make the kernels' addresses cheap
};

/// Rows [T, P] of one head.
template <typename T>
struct HeadRows {
  __device__ HeadRows(const Rows<T>& rows, int b, int h)
      : data(rows.data + b * rows.batch + h * rows.head), stride(rows.token) {}
  __device__ T* row(int t) const { return data + static_cast<std::int64_t>(t) * stride; }

  T* data;
  int stride;
};

namespace tiles {

inline constexpr int tile_rows = 64;  ///< of what a block walks over
inline constexpr int warps = 4, threads = 32 * warps;
static_assert(tile_rows == 16 * warps && tile_rows == KeptSplits::tile);

template <int DP, typename T = bf16>
inline constexpr int row_bytes = DP* static_cast<int>(sizeof(T)) + 16;  ///< from row to row
template <int DP>
inline constexpr int pitch = row_bytes<DP> / 2;  ///< the same in elements of bf16
template <int DP>
inline constexpr int tile_elements = tile_rows* pitch<DP>;

/// Whether this GPU gives a block as much shared memory as these kernels ask for: A100, H100 and their like for heads
/// of more than 64 channels; the others (compute capability 8.6, 8.9, 12.x) give less.
inline bool has_shared_memory(std::int64_t bytes) {
  int device = 0, most = 0;
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
             "asking for shared memory");
  return bytes <= most;
}

/// Whether all rows of the tensor begin at multiples of 16 bytes.
inline bool is_aligned(const Tensor& x) {
  const std::int64_t each = 16 / size_of(x.dtype());
  if (reinterpret_cast<std::uintptr_t>(x.raw()) % 16 != 0) return false;
  return x.stride(0) % each == 0 && x.stride(1) % each == 0 && x.stride(2) % each == 0;
}
/// Whether the tensor-core kernels take this tensor: 16-byte loads, whole chunks of 8 channels.
inline bool takes(const Tensor& x) {
  return operation::attention_on_tensor_cores(x.dtype(), x.size(3)) && is_aligned(x);
}

/// Calls f(std::integral_constant<int, DP>) with the smallest DP that holds P <= 128 channels.
template <typename F>
void with_padded_dim(std::int64_t p, F&& f) {
  if (p <= 16) {
    f(std::integral_constant<int, 16>{});
  } else if (p <= 64) {
    f(std::integral_constant<int, 64>{});
  } else {
    f(std::integral_constant<int, 128>{});
  }
}

// --- instructions --------------------------------------------------------------------------------------

/// A 16 x 16 factor, or two 16 x 8 ones (registers 0, 1 and 2, 3), as the tensor cores take them.
struct Fragment {
  std::uint32_t x[4];
};

/// 16 bytes, or zeros if not valid, without waiting.
__device__ __forceinline__ void copy_async_16(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copy_async_4(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(to), "l"(from), "r"(valid ? 4 : 0)
               : "memory");
}
/// Waits for all of this thread's copies.
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;\n" ::: "memory");
}

__device__ __forceinline__ Fragment load_matrices(std::uint32_t address) {
  Fragment f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
               : "r"(address)
               : "memory");
  return f;
}
__device__ __forceinline__ Fragment load_matrices_transposed(std::uint32_t address) {
  Fragment f;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(f.x[0]), "=r"(f.x[1]), "=r"(f.x[2]), "=r"(f.x[3])
               : "r"(address)
               : "memory");
  return f;
}

/// c [16, 8] += a [16, 16] b [16, 8].
__device__ __forceinline__ void multiply_add(float (&c)[4], const Fragment& a, std::uint32_t b0,
                                             std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}
__device__ __forceinline__ float2 unpack(std::uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

/// Sum and maximum over the four lanes that hold one row of an accumulator.
__device__ __forceinline__ float sum_of_row(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float max_of_row(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// --- where a lane's data lie ---------------------------------------------------------------------------
// An accumulator c [16, 8] has c[0], c[1] in row lane / 4 and c[2], c[3] in row lane / 4 + 8, columns
// 2 (lane % 4) and the next.

/// The first of the rows of a warp that has M times 16. The shuffle tells the compiler that the warp agrees.
template <int M = 1>
__device__ __forceinline__ int warp_row() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0) * (16 * M);
}
/// This lane's rows, from the warp's first.
__device__ __forceinline__ int upper_row() {
  return threadIdx.x % 32 / 4;
}
__device__ __forceinline__ int first_column() {
  return threadIdx.x % 4 * 2;
}
/// Byte offset of the row that this lane gives to ldmatrix for a left factor [16, 16], or, transposed, for a
/// right factor whose 16 rows in memory are its rows.
template <int DP>
__device__ __forceinline__ std::uint32_t lane_of_rows() {
  const std::uint32_t lane = threadIdx.x % 32;
  return (lane % 16 * pitch<DP> + lane / 16 * 8) * 2;
}
/// The same for a right factor whose 16 rows in memory are its columns.
template <int DP>
__device__ __forceinline__ std::uint32_t lane_of_columns() {
  const std::uint32_t lane = threadIdx.x % 32;
  return ((lane % 8 + lane / 16 * 8) * pitch<DP> + lane / 8 % 2 * 8) * 2;
}

// --- rows between global and shared memory -------------------------------------------------------------

/// The rows of a tile: row r is entry first + r of a list, if that is in [begin, end). An entry's position is
/// itself below `plain`, and entry * step + base, modulo 2^32, from there on.
struct TileRows {
  int first, begin, end;
  int plain = INT_MAX;
  unsigned step = 1, base = 0;
};

/// Begins to copy the rows of a to the tile at to_a, and those of b to to_b. Rows that do not exist give
/// zeros. Few instructions a copy, and no branches: they count as much as the products do.
template <int DP, bool two = true, int M = 1, typename T>
__device__ __forceinline__ void load_rows(std::uint32_t to_a, const HeadRows<T>& a, std::uint32_t to_b,
                                          const HeadRows<T>& b, int p, const TileRows& rows) {
  constexpr int each = 16 / sizeof(T), chunks = DP / each, bytes = row_bytes<DP, T>;
  const int row = static_cast<int>(threadIdx.x) / chunks,
            chunk = static_cast<int>(threadIdx.x) % chunks * each;
  const int channel = chunk < p ? chunk : 0;
  const unsigned count = chunk < p ? static_cast<unsigned>(max(rows.end - rows.begin, 0)) : 0;
  const T *const from_a = a.data + channel, *const from_b = b.data + channel;
  const std::uint32_t to = row * bytes + chunk * static_cast<int>(sizeof(T));
#pragma unroll
  for (int i = 0; i < tile_rows * M; i += threads / chunks) {
    const int entry = rows.first + row + i;
    const bool valid = static_cast<unsigned>(entry - rows.begin) < count;
    const unsigned position = entry < rows.plain ? static_cast<unsigned>(entry)
                                                 : static_cast<unsigned>(entry) * rows.step + rows.base;
    const std::uint64_t s = valid ? position : 0;
    copy_async_16(to_a + to + i * bytes, from_a + s * static_cast<unsigned>(a.stride), valid);
    if constexpr (two) {
      copy_async_16(to_b + to + i * bytes, from_b + s * static_cast<unsigned>(b.stride), valid);
    }
  }
}
/// The same of one tile, of 64 M rows.
template <int DP, int M = 1, typename T>
__device__ __forceinline__ void load_rows(std::uint32_t to, const HeadRows<T>& from, int p,
                                          const TileRows& rows) {
  load_rows<DP, false, M>(to, from, to, from, p, rows);
}

/// A warp's 16 rows, each times its factor, rounded into its shared memory. c: accumulators.
template <int DP>
__device__ __forceinline__ void stage_rows(bf16* rows, const float (&c)[DP / 8][4], float upper,
                                           float lower) {
  bf16* to = rows + upper_row() * pitch<DP> + first_column();
#pragma unroll
  for (int n = 0; n < DP / 8; ++n) {
    *reinterpret_cast<std::uint32_t*>(to + n * 8) = pack(c[n][0] * upper, c[n][1] * upper);
    *reinterpret_cast<std::uint32_t*>(to + n * 8 + 8 * pitch<DP>) = pack(c[n][2] * lower, c[n][3] * lower);
  }
}
/// The same of a left factor.
template <int DP>
__device__ __forceinline__ void stage_rows(bf16* rows, const Fragment (&a)[DP / 16], float upper,
                                           float lower) {
  bf16* to = rows + upper_row() * pitch<DP> + first_column();
#pragma unroll
  for (int k = 0; k < DP / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      std::uint32_t pair = a[k].x[i];
      asm volatile("" : "+r"(pair));  // else all are unpacked ahead, and held while the tiles go by
      const float2 x = unpack(pair);
      const float factor = i % 2 == 0 ? upper : lower;
      *reinterpret_cast<std::uint32_t*>(to + k * 16 + i / 2 * 8 + i % 2 * 8 * pitch<DP>) =
          pack(x.x * factor, x.y * factor);
    }
  }
}
/// Bit r: whether(r), for the warp's 16 rows.
template <typename Whether>
__device__ __forceinline__ unsigned rows_where(Whether whether) {
  return __ballot_sync(0xffffffffu, threadIdx.x % 32 < 16 && whether(static_cast<int>(threadIdx.x) % 32));
}
/// What a warp staged goes to rows position(r), r < 16, where bit r of `wanted` is set. All lanes call it;
/// waits for the staging, and until the memory may be staged into again.
template <int DP, typename Position>
__device__ __forceinline__ void store_rows(const bf16* rows, const HeadRows<bf16>& to, int p, unsigned wanted,
                                           Position position) {
  constexpr int chunks = DP / 8;
  const int lane = static_cast<int>(threadIdx.x) % 32, channel = lane % chunks * 8;
  constexpr int step = 32 / chunks, together = 16 / step < 4 ? 16 / step : 4;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 16; i += together * step) {
    Pack<bf16, 8> packs[together];
#pragma unroll
    for (int j = 0; j < together; ++j) {
      packs[j] = load<8>(rows + (i + j * step + lane / chunks) * pitch<DP> + channel);
    }
#pragma unroll
    for (int j = 0; j < together; ++j) {
      const int r = i + j * step + lane / chunks;
      if ((wanted >> r & 1) != 0 && channel < p) store(to.row(position(r)) + channel, packs[j]);
    }
  }
  __syncwarp();
}

// --- products ------------------------------------------------------------------------------------------

/// The left factor of a warp: its 16 rows.
template <int DP>
__device__ __forceinline__ void load_left(Fragment (&a)[DP / 16], std::uint32_t rows) {
#pragma unroll
  for (int k = 0; k < DP / 16; ++k) a[k] = load_matrices(rows + lane_of_rows<DP>() + k * 32);
}

/// c [16 M, 16 N] += (16 M rows at `left`) (16 N rows at `rows`)^T.
template <int DP, int M, int N>
__device__ __forceinline__ void multiply_transposed(float (&c)[M][2 * N][4], std::uint32_t left,
                                                    std::uint32_t rows) {
  left += lane_of_rows<DP>(), rows += lane_of_columns<DP>();
#pragma unroll
  for (int k = 0; k < DP / 16; ++k) {
    Fragment a[M];
#pragma unroll
    for (int m = 0; m < M; ++m) a[m] = load_matrices(left + (m * 16 * pitch<DP> + k * 16) * 2);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const Fragment b = load_matrices(rows + (n * 16 * pitch<DP> + k * 16) * 2);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply_add(c[m][2 * n], a[m], b.x[0], b.x[1]);
        multiply_add(c[m][2 * n + 1], a[m], b.x[2], b.x[3]);
      }
    }
  }
}
/// c [16, 16 N] += a [16, DP] (16 N rows at `rows`)^T.
template <int DP, int N>
__device__ __forceinline__ void multiply_transposed(float (&c)[2 * N][4], const Fragment (&a)[DP / 16],
                                                    std::uint32_t rows) {
  rows += lane_of_columns<DP>();
#pragma unroll
  for (int k = 0; k < DP / 16; ++k) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const Fragment b = load_matrices(rows + (n * 16 * pitch<DP> + k * 16) * 2);
      multiply_add(c[2 * n], a[k], b.x[0], b.x[1]);
      multiply_add(c[2 * n + 1], a[k], b.x[2], b.x[3]);
    }
  }
}
/// Channels 16 k .. of a left factor in registers, or of the 16 rows in shared memory.
template <int DP>
__device__ __forceinline__ Fragment left_fragment(const Fragment (&a)[DP / 16], int k) {
  return a[k];
}
template <int DP>
__device__ __forceinline__ Fragment left_fragment(std::uint32_t rows, int k) {
  return load_matrices(rows + lane_of_rows<DP>() + k * 32);
}
/// Two such products at once, so that twice as many chains of sums are under way.
template <int DP, int N, typename Left>
__device__ __forceinline__ void multiply_transposed(float (&c)[2 * N][4], const Left& a, std::uint32_t rows,
                                                    float (&c2)[2 * N][4], const Left& a2,
                                                    std::uint32_t rows2) {
  rows += lane_of_columns<DP>(), rows2 += lane_of_columns<DP>();
#pragma unroll
  for (int k = 0; k < DP / 16; ++k) {
    const Fragment left = left_fragment<DP>(a, k), left2 = left_fragment<DP>(a2, k);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int offset = (n * 16 * pitch<DP> + k * 16) * 2;
      const Fragment b = load_matrices(rows + offset), b2 = load_matrices(rows2 + offset);
      multiply_add(c[2 * n], left, b.x[0], b.x[1]);
      multiply_add(c2[2 * n], left2, b2.x[0], b2.x[1]);
      multiply_add(c[2 * n + 1], left, b.x[2], b.x[3]);
      multiply_add(c2[2 * n + 1], left2, b2.x[2], b2.x[3]);
    }
  }
}
/// c [16 M, DP] += a [16 M, 16 N] (16 N rows at `rows`). a: accumulators, rounded here.
template <int DP, int M, int N>
__device__ __forceinline__ void multiply(float (&c)[M][DP / 8][4], const float (&a)[M][2 * N][4],
                                         std::uint32_t rows) {
  rows += lane_of_rows<DP>();
#pragma unroll
  for (int n = 0; n < N; ++n) {
    Fragment left[M];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      left[m] = {{pack(a[m][2 * n][0], a[m][2 * n][1]), pack(a[m][2 * n][2], a[m][2 * n][3]),
                  pack(a[m][2 * n + 1][0], a[m][2 * n + 1][1]),
                  pack(a[m][2 * n + 1][2], a[m][2 * n + 1][3])}};
    }
#pragma unroll
    for (int d = 0; d < DP / 16; ++d) {
      const Fragment b = load_matrices_transposed(rows + (n * 16 * pitch<DP> + d * 16) * 2);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply_add(c[m][2 * d], left[m], b.x[0], b.x[1]);
        multiply_add(c[m][2 * d + 1], left[m], b.x[2], b.x[3]);
      }
    }
  }
}

// --- which columns count -------------------------------------------------------------------------------

struct Range {
  int begin, end;

  __device__ bool has(int column) const { return column >= begin && column < end; }
};

/// The columns of a list that count for a warp's rows. Both ends ascend from row to row.
template <int M = 1>
struct RowRanges {
  Range of_row[2 * M];  ///< of this lane's rows, eight apart
  Range first, last;    ///< of the warp's first and last row

  /// Whether a row has columns of [c, c + 16), and whether all rows have all of them.
  __device__ bool meets(int c) const { return c < last.end && c + 15 >= first.begin; }
  __device__ bool covers(int c) const { return c >= last.begin && c + 16 <= first.end; }
};

/// of(row): the range of the warp's row, 0 .. 16 M - 1.
template <int M, typename Of>
__device__ __forceinline__ RowRanges<M> row_ranges(Of of) {
  RowRanges<M> ranges;
#pragma unroll
  for (int i = 0; i < 2 * M; ++i) ranges.of_row[i] = of(upper_row() + 8 * i);
  ranges.first = of(0), ranges.last = of(16 * M - 1);
  return ranges;
}

/// Scores [16 M, 16 N] from column c on that do not count become -inf.
template <int N, int M>
__device__ __forceinline__ void mask(float (&scores)[M][2 * N][4], const RowRanges<M>& ranges, int c) {
  if (ranges.covers(c) && ranges.covers(c + 16 * (N - 1))) return;
  c += first_column();
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < 2 * N; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (!ranges.of_row[2 * m + e / 2].has(c + n * 8 + e % 2)) scores[m][n][e] = -INFINITY;
      }
    }
  }
}

/// Calls visit(integral_constant<int, N>, r) for the sub-tiles of 16 N rows r .. of the tile at column c that
/// the warp needs.
template <int M, typename Visit>
__device__ __forceinline__ void for_sub_tiles(const RowRanges<M>& ranges, int c, Visit visit) {
#pragma unroll 1
  for (int r = 0; r < tile_rows; r += 32) {
    const bool left = ranges.meets(c + r), right = ranges.meets(c + r + 16);
    if (left && right) {
      visit(std::integral_constant<int, 2>{}, r);
    } else if (left || right) {
      visit(std::integral_constant<int, 1>{}, left ? r : r + 16);
    }
  }
}

// --- a block of queries --------------------------------------------------------------------------------

/// The keys of 64 M queries, tile by tile: first the window's, from the last down, so that each row begins
/// with a tile that has its own key; then the kept ones.
template <int M>
struct QueryBlock {
  static constexpr int queries = 64 * M;

  /// Block `index` of the sequence; its queries below first_query are not there.
  __device__ QueryBlock(const KeyLists& key_lists, int index, int first_query)
      : lists(key_lists),
        begin(index * queries),
        end(min(begin + queries, key_lists.tokens)),
        first(first_query) {
    if (!lists.dense()) {
      window_begin = max(begin - lists.window, 0);
      last_window_tile = (end - 1) / tile_rows;
      window_tiles = last_window_tile - window_begin / tile_rows + 1;
    }
    kept = lists.kept_of(end - 1);
    tiles = window_tiles + (kept + tile_rows - 1) / tile_rows;
  }

  __device__ bool is_window(int tile) const { return tile < window_tiles; }
  /// Column of the tile's first key in its list: its position, or its number among the kept.
  __device__ int column(int tile) const {
    return (tile < window_tiles ? last_window_tile - tile : tile - window_tiles) * tile_rows;
  }
  template <int DP, typename T>
  __device__ __forceinline__ void load(int tile, std::uint32_t to_k, const HeadRows<T>& k, std::uint32_t to_v,
                                       const HeadRows<T>& v, int p) const {
    const TileRows rows =
        is_window(tile)
            ? TileRows{column(tile), window_begin, end}
            : TileRows{column(tile),      0, kept, lists.sinks, static_cast<unsigned>(lists.dilation),
                       lists.dilated_base};
    load_rows<DP>(to_k, k, to_v, v, p, rows);
  }
  /// The queries.
  __device__ TileRows own() const { return {begin, max(begin, first), end}; }
  __device__ bool has(int t) const { return t >= first && t < lists.tokens; }
  /// A query of the warp; past the end, the last one's position, so that its ranges are sound.
  __device__ int query(int row) const { return min(begin + warp_row<M>() + row, lists.tokens - 1); }
  __device__ RowRanges<M> window_ranges() const {
    return row_ranges<M>([&](int row) { return Range{query(row) - lists.window, query(row) + 1}; });
  }
  __device__ RowRanges<M> kept_ranges() const {
    return row_ranges<M>([&](int row) { return Range{0, lists.kept_of(query(row))}; });
  }

  const KeyLists& lists;
  int begin, end;  ///< the queries
  int first;       ///< of all blocks
  int window_begin = 0, last_window_tile = 0, window_tiles = 0;
  int kept, tiles;
};

}  // namespace tiles
}  // namespace ratplus::cuda
