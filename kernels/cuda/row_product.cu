// RowProduct on Hopper's tensor cores: y [N, out] = x [N, in] w [out, in]^T in bf16.
//
// The weights are the 64-row operand of wgmma and the rows of x its columns, so that few rows cost little. An element of y
// is one chain of products of 16 along `in`, begun at zero and never cut: its bits are the same in every tile size, hence
// for every N. A block has R rows of w and N of x; below 64 rows the rest of the operand is whatever lies behind in shared
// memory, and its results are dropped: so a matrix of few rows still occupies every processor. One thread fetches by TMA
// ahead of the products, beginning with the weights while the kernel before is still running. Of at most 8 rows every block
// normalises all of them itself where a norm comes before: its bits are kernels/cuda/norm.cu's.
// Floor: w read once where N is small, 2 N in out operations where it is large.
#include "kernels/cuda/row_product.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "base/error.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/row_product.cuh"
#include "kernels/cuda/row_stride.h"
#include "kernels/cuda/tensor_maps.h"

namespace ratplus::cuda {
namespace {

/// Sizes of a block.
template <int R_, int N_, int slabs_, int stages_>
struct Tile {
  static constexpr int R = R_, N = N_, slabs = slabs_, stages = stages_;
  static constexpr int groups = R > operand_rows ? R / operand_rows : 1;  // of 128 threads that multiply
  static constexpr int threads = groups * 128 + 32;
  static constexpr int w_bytes = R * 128, x_bytes = N * 128;  // of a slab
  static constexpr int stage_bytes = slabs * (w_bytes + x_bytes), w_stage_bytes = slabs * w_bytes;
  static constexpr int barriers = 1024;  // bytes, which keep the alignment of the swizzle
  static constexpr int shared_bytes = barriers + stages * stage_bytes + 1024;
  static_assert(R >= operand_rows ||
                stages * slabs * x_bytes >= (operand_rows - R) * 128);  // read past the weights
};

[[maybe_unused]] constexpr int row_tiles_together =
    8;  // whose blocks follow each other before the next outputs

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

template <typename Shape>
__device__ __forceinline__ void init_stages(std::uint32_t base) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < Shape::stages; ++stage) {
      init_barrier(full_barrier(base, stage));
      init_barrier(empty_barrier(base, stage), Shape::groups);
    }
  }
  __syncthreads();
}

struct TilePlace {
  int outputs, rows;
};

/// The place of a block's tile: a wave of blocks takes a few tiles of rows by a few of outputs, whose operands the second-level
/// cache holds.
__device__ __forceinline__ TilePlace place_of(int x, int y, int output_tiles, int row_tiles) {
  const int first = y / row_tiles_together * row_tiles_together;
  const int here = min(row_tiles_together, row_tiles - first), index = (y - first) * output_tiles + x;
  return {index / here, first + index % here};
}

/// Accumulators of N rows into shared memory [N, R + 8], finished.
template <int N, typename Shape>
__device__ __forceinline__ void put_rows(const ProductArguments& a, const float* d, bf16* shared) {
  constexpr int pitch = Shape::R + 8;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  // Lane l gives the address of row l mod 8 of matrix l / 8; the matrices are output halves 0, 1 of two column tiles.
  const std::uint32_t to =
      shared_address(shared + (lane / 16 * 8 + lane % 8) * pitch + warp * 16 + lane / 8 % 2 * 8);
#pragma unroll
  for (int j = 0; j < N / 8; j += 2) {
    std::uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* pair_of = d + (j + i / 2) * 4 + i % 2 * 2;
      const __nv_bfloat162 pair(finished<bf16>(pair_of[0], a.gelu), finished<bf16>(pair_of[1], a.gelu));
      packed[i] = reinterpret_cast<const std::uint32_t&>(pair);
    }
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(
                     to + j * 8 * pitch * 2),
                 "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3])
                 : "memory");
  }
}

/// Rows of y from there, whole 16 bytes at a time, by all threads that multiply.
template <int N, typename Shape>
__device__ __forceinline__ void copy_rows(const ProductArguments& a, const bf16* shared, int first_output,
                                          int first_row) {
  constexpr int pitch = Shape::R + 8, chunks = Shape::R / 8, count = Shape::groups * 128;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < N * chunks; i += count) {
    const int row = i / chunks, output = i % chunks * 8;
    if (first_row + row < a.rows && first_output + output < a.outputs) {
      store(row_of<bf16>(a, first_row + row) + first_output + output, load<8>(shared + row * pitch + output));
    }
  }
}

/// write_elements by way of shared memory [N, R + 8], by all threads that multiply.
template <int N, typename Shape>
__device__ __forceinline__ void write_rows(const ProductArguments& a, const float (&d)[N / 2], bf16* shared,
                                           int first_output, int first_row) {
  put_rows<N, Shape>(a, d, shared);
  asm volatile("bar.sync 1, %0;\n" ::"n"(Shape::groups * 128) : "memory");
  copy_rows<N, Shape>(a, shared, first_output, first_row);
}

#endif

/// Block (tile of outputs, tile of rows). Of a norm, x is not read by TMA, and lies behind the weights as a whole.
template <typename Shape, typename T, bool normed>
__global__ void __launch_bounds__(Shape::threads)
    row_product_kernel(const __grid_constant__ CUtensorMap w, const __grid_constant__ CUtensorMap x,
                       ProductArguments a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char memory[];
  const std::uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const std::uint32_t tiles = base + Shape::barriers;
  const auto full = [&](int stage) { return full_barrier(base, stage); };
  const auto empty = [&](int stage) { return empty_barrier(base, stage); };
  // All weights first, so that an operand that reads past a tile's rows stays in what is allocated.
  const auto weights_of = [&](int stage) { return tiles + stage * (Shape::slabs * Shape::w_bytes); };
  const auto rows_of = [&](int stage) {
    return tiles + Shape::stages * Shape::slabs * Shape::w_bytes + stage * (Shape::slabs * Shape::x_bytes);
  };
  const TilePlace place = place_of(static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),
                                   static_cast<int>(gridDim.x), static_cast<int>(gridDim.y));
  const int first_output = place.outputs * Shape::R, first_row = place.rows * Shape::N;
  let_next_kernel_begin();
  init_stages<Shape>(base);
  if (static_cast<int>(threadIdx.x) == Shape::groups * 128) {
    const auto fetch_weights = [&](int step) {
      const int stage = step % Shape::stages;
      expect_bytes(full(stage), normed ? Shape::w_stage_bytes : Shape::stage_bytes);
      for (int i = 0; i < Shape::slabs; ++i)
        fetch(w, weights_of(stage) + i * Shape::w_bytes, full(stage), (step * Shape::slabs + i) * slab,
              first_output);
    };
    const auto fetch_rows = [&](int step) {
      if (normed) return;
      const int stage = step % Shape::stages;
      for (int i = 0; i < Shape::slabs; ++i)
        fetch(x, rows_of(stage) + i * Shape::x_bytes, full(stage), (step * Shape::slabs + i) * slab,
              first_row);
    };
    const int ahead = min(Shape::stages, a.steps);
    for (int step = 0; step < ahead; ++step) fetch_weights(step);
    if (!normed) wait_for_kernels_before();
    for (int step = 0; step < ahead; ++step) fetch_rows(step);
    for (int step = ahead; step < a.steps; ++step) {
      wait_for_phase(empty(step % Shape::stages), (step / Shape::stages - 1) & 1);
      fetch_weights(step);
      fetch_rows(step);
    }
  }
  if (static_cast<int>(threadIdx.x) >= Shape::groups * 128) return;
  const int group = static_cast<int>(threadIdx.x) / 128;
  const int thread = static_cast<int>(threadIdx.x) % 128;
  const int group_output = first_output + group * operand_rows,
            end_output = min(first_output + Shape::R, a.outputs);
  float before[4] = {};
  if constexpr (normed) {
    static_assert(Shape::N == most_normed_rows && Shape::groups == 1 && Shape::stages * 16 <= 512);
    // As TMA would lay out rows of 128 bytes, slab after slab of 8 rows.
    char* const to = memory + (rows_of(0) - shared_address(memory));
    normalise(
        a, reinterpret_cast<float*>(memory + (base + 512 - shared_address(memory))),
        [] { wait_for_kernels_before(); }, [&](int row, auto& y) { load_row_of(a, row, y); },
        [&](int row, int c, const Pack<bf16, norm_vector>& u) {
          store(reinterpret_cast<bf16*>(to + c / 8 * 1024 + row * 128 + (c % 8 ^ row) * 16), u);
        });
  } else if (Shape::N == most_normed_rows && a.residual) {
    wait_for_kernels_before();
    read_residual(a, before, group_output, end_output, first_row);
  }
  float d[Shape::N / 2] = {};
  for (int step = 0; step < a.steps; ++step) {
    const int stage = step % Shape::stages;
    wait_for_phase(full(stage), step / Shape::stages & 1);
    begin_products();
    const std::uint64_t of_w = describe(of_warp(weights_of(stage) + group * (operand_rows * 128))),
                        of_x = describe(of_warp(normed ? rows_of(0) + step * (Shape::slabs * Shape::x_bytes)
                                                       : rows_of(stage)));
#pragma unroll
    for (int i = 0; i < Shape::slabs; ++i) {
#pragma unroll
      for (int k = 0; k < slab / operand_k; ++k) {
        multiply<Shape::N>(d, further(of_w, i * Shape::w_bytes + k * (operand_k * 2)),
                           further(of_x, i * Shape::x_bytes + k * (operand_k * 2)));
      }
    }
    commit_products();
    wait_for_products_but<1>();
    if (step > 0) arrive(empty((step - 1) % Shape::stages), thread);
  }
  wait_for_products_but<0>();
  take_sums(d);
  if constexpr (std::is_same_v<T, bf16> && Shape::R >= operand_rows && Shape::N >= 16) {
    static_assert(Shape::N * (Shape::R + 8) * 2 <= Shape::stages * Shape::stage_bytes);
    asm volatile("bar.sync 1, %0;\n" ::"n"(Shape::groups * 128) : "memory");
    write_rows<Shape::N, Shape>(a, d, reinterpret_cast<bf16*>(memory + (tiles - shared_address(memory))),
                                first_output, first_row);
  } else {
    write_elements<Shape::N, T>(a, d, group_output, end_output, first_row, before);
  }
#else
  __trap();  // RowProducts::built() is false
#endif
}

/// The large tile of many rows, one after the other by as many blocks as there are processors: the next tile's operands come
/// while a tile is finished.
template <typename Shape>
struct Persistent {
  static constexpr int piece = 32;  // rows of y that are finished at a time, in two places by turns
  static constexpr int place_bytes = piece * (Shape::R + 8) * 2,
                       shared_bytes = Shape::shared_bytes + 2 * place_bytes;
};

template <typename Shape>
__global__ void __launch_bounds__(Shape::threads)
    persistent_product_kernel(const __grid_constant__ CUtensorMap w, const __grid_constant__ CUtensorMap x,
                              ProductArguments a, int output_tiles, int row_tiles) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  static_assert(Shape::slabs == 1 && Shape::R >= operand_rows);
  extern __shared__ char memory[];
  const std::uint32_t base = (shared_address(memory) + 1023) & ~1023u;
  const std::uint32_t tiles = base + Shape::barriers;
  const auto full = [&](int stage) { return full_barrier(base, stage); };
  const auto empty = [&](int stage) { return empty_barrier(base, stage); };
  const auto weights_of = [&](int stage) { return tiles + stage * Shape::stage_bytes; };
  const auto rows_of = [&](int stage) { return weights_of(stage) + Shape::w_bytes; };
  const int all_tiles = output_tiles * row_tiles;
  const auto place = [&](int tile) {
    return place_of(tile % output_tiles, tile / output_tiles, output_tiles, row_tiles);
  };
  let_next_kernel_begin();
  init_stages<Shape>(base);
  wait_for_kernels_before();
  int stage = 0, turn = 0;  // of the stages, and how often they were all used
  const auto next_stage = [&] {
    if (++stage == Shape::stages) stage = 0, turn ^= 1;
  };
  if (static_cast<int>(threadIdx.x) >= Shape::groups * 128) {
    if (static_cast<int>(threadIdx.x) > Shape::groups * 128) return;
    bool used = false;
    for (int tile = static_cast<int>(blockIdx.x); tile < all_tiles; tile += static_cast<int>(gridDim.x)) {
      const TilePlace here = place(tile);
      for (int step = 0; step < a.steps; ++step) {
        if (used) wait_for_phase(empty(stage), turn ^ 1);
        expect_bytes(full(stage), Shape::stage_bytes);
        fetch(w, weights_of(stage), full(stage), step * slab, here.outputs * Shape::R);
        fetch(x, rows_of(stage), full(stage), step * slab, here.rows * Shape::N);
        next_stage();
        used = used || stage == 0;
      }
    }
    return;
  }
  const int group = static_cast<int>(threadIdx.x) / 128, thread = static_cast<int>(threadIdx.x) % 128;
  using Places = Persistent<Shape>;
  char* const places = memory + (tiles + Shape::stages * Shape::stage_bytes - shared_address(memory));
  for (int tile = static_cast<int>(blockIdx.x); tile < all_tiles; tile += static_cast<int>(gridDim.x)) {
    const TilePlace here = place(tile);
    float d[Shape::N / 2] = {};
    int before = 0;
    for (int step = 0; step < a.steps; ++step) {
      wait_for_phase(full(stage), turn);
      begin_products();
      const std::uint64_t of_w = describe(of_warp(weights_of(stage) + group * (operand_rows * 128))),
                          of_x = describe(of_warp(rows_of(stage)));
#pragma unroll
      for (int k = 0; k < slab / operand_k; ++k)
        multiply<Shape::N>(d, further(of_w, k * (operand_k * 2)), further(of_x, k * (operand_k * 2)));
      commit_products();
      wait_for_products_but<1>();
      if (step > 0) arrive(empty(before), thread);
      before = stage;
      next_stage();
    }
    wait_for_products_but<0>();
    take_sums(d);
    arrive(empty(before), thread);
#pragma unroll
    for (int n = 0; n < Shape::N; n += Places::piece) {
      auto* const rows = reinterpret_cast<bf16*>(places + n / Places::piece % 2 * Places::place_bytes);
      put_rows<Places::piece, Shape>(a, d + n / 2, rows);
      asm volatile("bar.sync 1, %0;\n" ::"n"(Shape::groups * 128) : "memory");
      copy_rows<Places::piece, Shape>(a, rows, here.outputs * Shape::R, here.rows * Shape::N + n);
    }
  }
#else
  __trap();  // RowProducts::built() is false
#endif
}

bool takes(const Tensor& x) {
  return x.dtype() == DType::bf16 && reinterpret_cast<std::uintptr_t>(x.raw()) % 16 == 0 &&
         x.size(1) % 8 == 0 && row_stride(x) % 8 == 0;
}

}  // namespace

RowProducts::RowProducts() : maps_(std::make_unique<TensorMaps>()) {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  check_cuda(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device),
             "asking for the GPU");
  prepare_chains(device);
}
bool RowProducts::built() {
  return built_for_hopper(row_product_kernel<Tile<64, 64, 1, 6>, float, false>);
}

bool RowProducts::takes(const operation::RowProduct& call) {
  if (call.norm_weight) {
    const auto whole = [](const Tensor& x) { return reinterpret_cast<std::uintptr_t>(x.raw()) % 16 == 0; };
    return operation::RowProduct::norm_fits(call.x.size(0), call.x.size(1)) && cuda::takes(call.w) &&
           call.w.size(0) % 8 == 0 && whole(call.x) && row_stride(call.x) % 4 == 0 && whole(call.norm_weight);
  }
  return cuda::takes(call.x) && cuda::takes(call.w) && call.w.size(0) % 8 == 0 &&
         row_stride(call.y) % 8 == 0 && reinterpret_cast<std::uintptr_t>(call.y.raw()) % 16 == 0;
}

template <typename Shape, bool normed>
void RowProducts::launch(const operation::RowProduct& call, cudaStream_t stream) {
  const Tensor& y = call.y;
  const auto run = [&](auto type) {
    using T = decltype(type);
    const auto kernel = row_product_kernel<Shape, T, normed>;
    // Of a norm: weights, and x as a whole.
    constexpr int most_shared = normed ? Shape::barriers + Shape::stages * Shape::w_stage_bytes +
                                             most_normed / slab * Shape::x_bytes + 1024
                                       : Shape::shared_bytes;
    const auto shared =
        normed ? most_shared - (most_normed - static_cast<int>(call.x.size(1))) / slab * Shape::x_bytes
               : most_shared;
    static const bool ready = [&] {
      check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most_shared),
                 call.name);
      return true;
    }();
    static_cast<void>(ready);
    const ProductArguments arguments{y.raw(),
                                     row_stride(y),
                                     static_cast<int>(y.size(0)),
                                     static_cast<int>(y.size(1)),
                                     static_cast<int>(blocks_of(call.x.size(1), slab * Shape::slabs)),
                                     call.gelu,
                                     call.residual ? call.residual.as<float>() : nullptr,
                                     call.residual ? row_stride(call.residual) : 0,
                                     normed ? call.x.as<float>() : nullptr,
                                     normed ? row_stride(call.x) : 0,
                                     normed ? elements<bf16>(call.norm_weight) : nullptr,
                                     static_cast<int>(call.x.size(1)),
                                     static_cast<float>(call.eps)};
    launch_overlapped(kernel,
                      dim3(static_cast<unsigned>(blocks_of(y.size(1), Shape::R)),
                           static_cast<unsigned>(blocks_of(y.size(0), Shape::N))),
                      dim3(Shape::threads), shared, stream, call.name, maps_->of(call.w, Shape::R),
                      normed ? maps_->of(call.w, Shape::R) : maps_->of(call.x, Shape::N), arguments);
  };
  if (y.dtype() == DType::bf16) {
    run(bf16{});
  } else {
    run(float{});
  }
}

template <typename Shape>
void RowProducts::launch_persistent(const operation::RowProduct& call, cudaStream_t stream) {
  constexpr int shared = Persistent<Shape>::shared_bytes;
  const auto kernel = persistent_product_kernel<Shape>;
  static const bool ready = [&] {
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), call.name);
    return true;
  }();
  static_cast<void>(ready);
  const Tensor& y = call.y;
  ProductArguments arguments{};
  arguments.y = y.raw(), arguments.y_row = row_stride(y);
  arguments.rows = static_cast<int>(y.size(0)), arguments.outputs = static_cast<int>(y.size(1));
  arguments.steps = static_cast<int>(blocks_of(call.x.size(1), slab));
  arguments.gelu = call.gelu;
  const int output_tiles = static_cast<int>(blocks_of(y.size(1), Shape::R)),
            row_tiles = static_cast<int>(blocks_of(y.size(0), Shape::N));
  launch_overlapped(kernel, dim3(static_cast<unsigned>(std::min(output_tiles * row_tiles, multiprocessors_))),
                    dim3(Shape::threads), shared, stream, call.name, maps_->of(call.w, Shape::R),
                    maps_->of(call.x, Shape::N), arguments, output_tiles, row_tiles);
}

/// Which tile is the fastest: the bits do not depend on it. Few rows want all processors at the weights; some, larger tiles,
/// since each block reads all of x from the second-level cache.
void RowProducts::run(const operation::RowProduct& call, cudaStream_t stream) {
  const std::int64_t rows = call.y.size(0), outputs = call.y.size(1);
  constexpr std::int64_t occupied = 120;  // blocks, of 132 processors
  const bool wide = outputs >= 64 * occupied, middling = outputs >= 32 * occupied;
  if (call.norm_weight) return launch<Tile<64, 8, 2, 4>, true>(call, stream);
  if (rows <= 8) {
    if (wide) return launch<Tile<64, 8, 2, 5>>(call, stream);
    if (middling) return launch<Tile<32, 8, 2, 8>>(call, stream);
    return launch<Tile<16, 8, 8, 4>>(call, stream);
  }
  if (rows <= 32) {
    if (middling) return launch<Tile<64, 32, 1, 8>>(call, stream);
    return launch<Tile<32, 32, 2, 6>>(call, stream);
  }
  if (rows <= 64) {
    if (middling) return launch<Tile<64, 64, 1, 6>>(call, stream);
    return launch<Tile<32, 64, 2, 6>>(call, stream);
  }
  // Times of a round of blocks over all processors, in those of the large tile.
  const auto rounds = [&](std::int64_t r, std::int64_t n, std::int64_t resident) {
    return blocks_of(blocks_of(outputs, r) * blocks_of(rows, n), multiprocessors_ * resident);
  };
  if (10 * rounds(128, 256, 1) <= 6 * rounds(64, 128, 2)) {
    using Large = Tile<128, 256, 1, 4>;
    if (call.y.dtype() == DType::bf16) return launch_persistent<Large>(call, stream);
    return launch<Large>(call, stream);
  }
  launch<Tile<64, 128, 1, 4>>(call, stream);
}

}  // namespace ratplus::cuda
