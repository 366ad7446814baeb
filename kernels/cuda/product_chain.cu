// ProductChain on Hopper's tensor cores: products of one row one after the other, in one kernel.
//
// A block on each multiprocessor. One of its threads fetches the block's part of all weights by TMA, from the first product to
// the last, a few stages at a time, as soon as a place in shared memory is free: while the rows of the next product are still being
// made elsewhere, and, under the kernel before, while that still runs. The other threads bring the row that the product before has
// made into shared memory (normalised, where a norm comes first), and multiply. A row goes from block to block in memory whose
// elements say themselves whether they are written: a thread reads its own until they are, and waits for no count of blocks. The
// sums of an element are kernels/cuda/row_product.cu's, in the same order.
// Floor: the weights once. Above it, a product of one row waits some 15 ns for each 16 of its columns, and 1 to 1.5 us for the row
// before it.
#include <algorithm>
#include <cstdint>
#include <mutex>
#include <set>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/overlap.cuh"
#include "kernels/cuda/row_product.cuh"
#include "kernels/cuda/row_product.h"
#include "kernels/cuda/tensor_maps.h"

namespace ratplus::cuda {
namespace {

constexpr int most_links = 4;          // products of a chain
constexpr int stage_bytes = 16384;     // of weights: 64 rows of 2 slabs, or 16 of 8
constexpr int columns_of_stage = 512;  // of 16 rows of weights, the most
RATPLUS_HOST_AND_DEVICE constexpr int slabs_of_stage(int rows) {
  return stage_bytes / (rows * 128);
}
constexpr int least_stages = 4;
// Stages that a block fetches at once: enough to keep memory busy. Behind more of them, what others read meanwhile waits longer, as
// rows between blocks and keys of the mixer's step.
constexpr int most_in_flight = 4;
static_assert(most_in_flight <= least_stages);
constexpr int head_bytes = 1024;  // barriers, and the sums of a norm from half of it on
constexpr int pitch = 16;         // bytes of 8 columns of the row in shared memory
constexpr int multipliers = 128;  // threads; one more warp fetches
// Bytes of shared memory, which leave room for the mixer's step: it begins beside the chain and fetches its keys.
constexpr int chain_bytes = 144 << 10;
// Read behind the last stage's weights and behind the row, for rows that do not count.
constexpr int reach_bytes = 6144, row_reach_bytes = 7 * pitch;
static_assert(chain_bytes / stage_bytes * 16 <= head_bytes / 2);
static_assert(reach_bytes >= (operand_rows - 16) * 128);
// Memory of all chains: whose turn it is, and how many blocks have asked; then two sets of rows, by turns, with a row of each
// product but the last.
constexpr int chain_head_bytes = 256, most_row_bytes = 16384, set_bytes = (most_links - 1) * most_row_bytes;

/// One product. Each block takes 64 rows of its weights a round, and `last_rows` of the remaining ones in a last round.
struct Link {
  void* y;
  float* residual;
  const void* x;  ///< of the first; others take the row of the product before
  const bf16* norm_weight;
  int inner, outputs, whole_rounds, last_rows;
  float eps;
  bool gelu;
};

struct LinkMaps {
  CUtensorMap whole[most_links], last[most_links];  ///< boxes of 64 rows, and of last_rows
};

struct ChainArguments {
  Link links[most_links];
  int count, stages;
  char* memory;  ///< of all chains
};

/// Portion: rows [first, first + rows) of a product's weights that a block multiplies in one go.
struct Portion {
  int first, rows;
};

[[maybe_unused]] __device__ __forceinline__ Portion portion_of(const Link& link, int round) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  if (round < link.whole_rounds) return {(round * blocks + block) * operand_rows, operand_rows};
  const int first = link.whole_rounds * blocks * operand_rows + block * link.last_rows;
  return {first, link.last_rows > 0 && first < link.outputs ? link.last_rows : 0};
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Describes a row of x without swizzle as the first of eight rows; the others are arbitrary bytes.
__device__ __forceinline__ std::uint64_t describe_row(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | (std::uint64_t{pitch >> 4} << 16) |
         (std::uint64_t{128 >> 4} << 32);
}

/// d [64, 8] += R rows of weights by columns of x: half a stage, the first (0) or the second (1).
template <int R, int half>
__device__ __forceinline__ void multiply_half(float (&d)[4], std::uint64_t weights, std::uint64_t x) {
  constexpr int of_slab = slab / operand_k, products = slabs_of_stage(R) * of_slab;
#pragma unroll
  for (int n = half * products / 2; n < (half + 1) * products / 2; ++n) {
    const int i = n / of_slab, k = n % of_slab;
    multiply<8>(d, further(weights, i * (R * 128) + k * (operand_k * 2)),
                further(x, (i * (slab / 8) + k * (operand_k / 8)) * pitch));
  }
}

/// Bits of elements that are not written yet, of a float32 as of two bf16: of a NaN that no operation of this GPU gives. Should
/// one, it is written as the usual NaN.
constexpr std::uint32_t unwritten = 0xffffffff, usual_nan = 0x7fffffff;

/// Whether none of the elements, float32 or bf16, is unwritten.
template <typename T>
__device__ __forceinline__ bool written(const uint4& x) {
  if constexpr (sizeof(T) == 4) {
    return x.x != unwritten && x.y != unwritten && x.z != unwritten && x.w != unwritten;
  } else {
    return (__vcmpeq2(x.x, unwritten) | __vcmpeq2(x.y, unwritten) | __vcmpeq2(x.z, unwritten) |
            __vcmpeq2(x.w, unwritten)) == 0;
  }
}

/// 16 bytes from each place(i) >= 0 on, once their elements of T are written.
template <typename T, int count, typename Place>
__device__ __forceinline__ void read_written(uint4 (&read)[count], const char* row, const Place& place) {
  unsigned missing = 0;
#pragma unroll
  for (int i = 0; i < count; ++i) missing |= place(i) >= 0 ? 1u << i : 0u;
  while (missing != 0) {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if ((missing >> i & 1) == 0) continue;
      asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];\n"
                   : "=r"(read[i].x), "=r"(read[i].y), "=r"(read[i].z), "=r"(read[i].w)
                   : "l"(row + place(i))
                   : "memory");
    }
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if ((missing >> i & 1) != 0 && written<T>(read[i])) missing &= ~(1u << i);
    }
  }
}

/// Where the row between blocks has element `output` of `columns`: bf16 in their order; float32 in two planes, by turns four
/// elements in each, so that threads that read eight read whole lines.
template <typename T>
__device__ __forceinline__ int place_in_row(int output, int columns) {
  if constexpr (sizeof(T) == 2) return output * 2;
  return output / 4 % 2 * (columns * 2) + output / 8 * 16 + output % 4 * 4;
}

/// As write_elements of one row, and into the row between blocks, unless that is null: four bytes at a time, as they are read.
__device__ __forceinline__ void write_row(const ProductArguments& a, const float (&d)[4], int first, int end,
                                          const float (&before)[4], char* row) {
  const auto share = [](char* place, std::uint32_t bits) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;\n" ::"l"(place), "r"(bits) : "memory");
  };
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int e = 0; e < 4; e += 2) {
    const int output = first + warp * 16 + lane / 4 + e / 2 * 8;
    const bf16 y = finished<bf16>(d[e], a.gelu);
    const std::uint32_t bits = __bfloat16_as_ushort(y),
                        kept = bits == (unwritten >> 16) ? usual_nan >> 16 : bits;
    const std::uint32_t next = __shfl_down_sync(~0u, kept, 4);  // of the next output
    if (lane % 4 != 0 || output >= end) continue;
    if (a.residual) {
      const float sum = before[e] + to_float(y);
      a.residual[output] = sum;
      const std::uint32_t of_sum = __float_as_uint(sum);
      if (row) share(row + place_in_row<float>(output, a.outputs), of_sum == unwritten ? usual_nan : of_sum);
    } else {
      static_cast<bf16*>(a.y)[output] = y;
      if (row && lane % 8 == 0) share(row + place_in_row<bf16>(output, a.outputs), kept | next << 16);
    }
  }
}

#endif

__global__ void __launch_bounds__(multipliers + 32, 1)
    product_chain_kernel(const __grid_constant__ LinkMaps maps, const __grid_constant__ ChainArguments a) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char memory[];
  const std::uint32_t base = (shared_address(memory) + 1023) & ~1023u, weights = base + head_bytes,
                      row = weights + a.stages * stage_bytes;
  const int thread = static_cast<int>(threadIdx.x);
  let_next_kernel_begin();
  if (thread == 0) {
    for (int stage = 0; stage < a.stages; ++stage) {
      init_barrier(full_barrier(base, stage));
      init_barrier(empty_barrier(base, stage));
    }
  }
  __syncthreads();
  int stage = 0, turn = 0;  // of the stages, and how often they were all used, modulo 2
  const auto next_stage = [&] {
    if (++stage == a.stages) stage = 0, turn ^= 1;
  };
  if (thread >= multipliers) {
    if (const int i = thread - multipliers; i > 0) {
      if (i <= a.count) prefetch_description(maps.whole[i - 1]), prefetch_description(maps.last[i - 1]);
      return;
    }
    int fetched = 0, oldest = 0, oldest_turn = 0;
    for (int l = 0; l < a.count; ++l) {
      const Link& link = a.links[l];
      const int slabs = link.inner / slab;
      for (int round = 0; round <= link.whole_rounds; ++round) {
        const Portion portion = portion_of(link, round);
        if (portion.rows == 0) continue;
        const CUtensorMap& map = portion.rows == operand_rows ? maps.whole[l] : maps.last[l];
        const int of_stage = slabs_of_stage(portion.rows);
        for (int first = 0; first < slabs; first += of_stage, ++fetched) {
          if (fetched >= most_in_flight) {
            wait_for_phase(full_barrier(base, oldest), oldest_turn);
            if (++oldest == a.stages) oldest = 0, oldest_turn ^= 1;
          }
          if (fetched >= a.stages) wait_for_phase(empty_barrier(base, stage), turn ^ 1);
          expect_bytes(full_barrier(base, stage), stage_bytes);
          fetch_slabs(map, weights + stage * stage_bytes, full_barrier(base, stage), first, portion.first);
          next_stage();
        }
      }
    }
    return;
  }
  const auto synchronize = [] { asm volatile("bar.sync 1, %0;\n" ::"n"(multipliers) : "memory"); };
  char* const x = memory + (row - shared_address(memory));
  auto* const head = reinterpret_cast<unsigned*>(a.memory);
  unsigned number = 0;  // of the chain
  const auto row_of_link = [&](int l) {
    return a.memory + chain_head_bytes + number % 2 * set_bytes + l * most_row_bytes;
  };
  for (int l = 0; l < a.count; ++l) {
    const Link& link = a.links[l];
    ProductArguments product{};
    product.y = link.y, product.rows = 1, product.outputs = link.outputs, product.gelu = link.gelu;
    product.residual = link.residual;
    if (l == 0) {
      wait_for_kernels_before();
      number = *const_cast<const volatile unsigned*>(head);
    } else {
      synchronize();  // the row before is done with
    }
    // Zero where the last stage has more columns than x.
    const int columns = (link.inner + columns_of_stage - 1) / columns_of_stage * columns_of_stage;
    const auto put = [&](int /*row*/, int c, const Pack<bf16, 8>& u) {
      store(reinterpret_cast<bf16*>(x + c * pitch), u);
    };
    for (int c = link.inner / 8 + thread; c < columns / 8; c += multipliers) put(0, c, {});
    if (link.norm_weight) {
      product.x = static_cast<const float*>(link.x);
      product.norm_weight = link.norm_weight, product.inner = link.inner, product.eps = link.eps;
      const auto load_row = [&](int row, auto& y) {
        if (l == 0) return load_row_of(product, row, y);
        uint4 read[2 * most_vectors] = {};
        read_written<float>(read, row_of_link(l - 1), [&](int i) {
          const int c = thread + i / 2 * norm_threads;
          return c < link.inner / norm_vector ? i % 2 * (link.inner * 2) + c * 16 : -1;
        });
#pragma unroll
        for (int i = 0; i < 2 * most_vectors; ++i) {
          y[i / 2].set(i % 2 * 4, __uint_as_float(read[i].x));
          y[i / 2].set(i % 2 * 4 + 1, __uint_as_float(read[i].y));
          y[i / 2].set(i % 2 * 4 + 2, __uint_as_float(read[i].z));
          y[i / 2].set(i % 2 * 4 + 3, __uint_as_float(read[i].w));
        }
      };
      normalise(
          product, reinterpret_cast<float*>(memory + (base + head_bytes / 2 - shared_address(memory))), [] {},
          load_row, put);
    } else {
      if (l == 0) {
#pragma unroll 8
        for (int c = thread; c < link.inner / 8; c += multipliers)
          put(0, c, load<8>(static_cast<const bf16*>(link.x) + c * 8));
      } else {
        constexpr int vectors = 8;
        for (int begin = 0; begin < link.inner / 8; begin += vectors * multipliers) {
          const auto vector = [&](int i) { return begin + i * multipliers + thread; };
          uint4 read[vectors] = {};
          read_written<bf16>(read, row_of_link(l - 1),
                             [&](int i) { return vector(i) < link.inner / 8 ? vector(i) * 16 : -1; });
#pragma unroll
          for (int i = 0; i < vectors; ++i) {
            if (vector(i) < link.inner / 8) *reinterpret_cast<uint4*>(x + vector(i) * pitch) = read[i];
          }
        }
      }
      asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
      synchronize();
    }
    if (l == 0) {
      // The rows of the next chain, which the chain before this one was the last to read.
      const uint4 none = {unwritten, unwritten, unwritten, unwritten};
      auto* const next = reinterpret_cast<uint4*>(a.memory + chain_head_bytes + (number + 1) % 2 * set_bytes);
      for (int i = static_cast<int>(blockIdx.x) * multipliers + thread; i < set_bytes / 16;
           i += static_cast<int>(gridDim.x) * multipliers)
        next[i] = none;
    }
    // The last block that has asked whose turn it is gives it to the next chain.
    if (l == a.count - 1 && thread == 0 && atomicAdd(head + 1, 1) == gridDim.x - 1) {
      head[1] = 0;
      head[0] = number + 1;
    }
    const auto multiply_portion = [&](auto height, int first) {
      constexpr int R = decltype(height)::value, columns_a_stage = slabs_of_stage(R) * slab;
      const int end = min(first + R, link.outputs);
      float before[4] = {};
      if (link.residual) read_residual(product, before, first, end, 0);
      float d[4] = {};
      int last = -1;
      const int inner = link.inner;
      bool there = false;
      for (int column = 0; column < inner; column += columns_a_stage) {
        if (!there) wait_for_phase(full_barrier(base, stage), turn);
        const std::uint64_t of_w = describe(of_warp(weights + stage * stage_bytes)),
                            of_x = describe_row(of_warp(row + column / 8 * pitch));
        begin_products();
        multiply_half<R, 0>(d, of_w, of_x);
        // Asked while products are under way, the next stage costs them no time.
        const int now = stage;
        next_stage();
        there = column + columns_a_stage < inner && phase_ended(full_barrier(base, stage), turn);
        multiply_half<R, 1>(d, of_w, of_x);
        commit_products();
        wait_for_products_but<1>();
        if (last >= 0) arrive(empty_barrier(base, last), thread);
        last = now;
      }
      wait_for_products_but<0>();
      take_sums(d);
      arrive(empty_barrier(base, last), thread);
      write_row(product, d, first, end, before, l < a.count - 1 ? row_of_link(l) : nullptr);
    };
    for (int round = 0; round <= link.whole_rounds; ++round) {
      const Portion portion = portion_of(link, round);
      if (portion.rows == 16) multiply_portion(std::integral_constant<int, 16>{}, portion.first);
      if (portion.rows == 32) multiply_portion(std::integral_constant<int, 32>{}, portion.first);
      if (portion.rows == 64) multiply_portion(std::integral_constant<int, 64>{}, portion.first);
    }
  }
#else
  __trap();  // RowProducts::built() is false
#endif
}

/// Bytes of shared memory for the longest row.
std::int64_t bytes_of_row(const operation::ProductChain& call) {
  std::int64_t stages = 0;
  for (const auto& link : call.products)
    stages = std::max(stages, blocks_of(link.x.size(1), columns_of_stage));
  return std::max<std::int64_t>(stages * columns_of_stage / 8 * pitch + row_reach_bytes, reach_bytes);
}

std::int64_t stages_of(const operation::ProductChain& call) {
  return (chain_bytes - 1024 - head_bytes - bytes_of_row(call)) / stage_bytes;
}

/// GPUs of this process whose chains somebody makes.
class TakenGpus {
 public:
  bool insert(int device) {
    const std::lock_guard guard(mutex_);
    return devices_.insert(device).second;
  }
  void erase(int device) {
    const std::lock_guard guard(mutex_);
    devices_.erase(device);
  }

 private:
  std::mutex mutex_;
  std::set<int> devices_;
};
TakenGpus taken;

}  // namespace

void RowProducts::prepare_chains(int device) {
  int shared_by_processes = 0;
  if (cudaDeviceGetAttribute(&shared_by_processes, cudaDevAttrMpsEnabled, device) != cudaSuccess) {
    cudaGetLastError();  // an older driver does not know
    return;
  }
  if (shared_by_processes != 0) return;
  check_cuda(
      cudaFuncSetAttribute(product_chain_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, chain_bytes),
      "preparing chains of products");
  Buffer memory({DeviceKind::cuda, device}, chain_head_bytes + 2 * set_bytes);
  check_cuda(cudaMemset(static_cast<char*>(memory.data()) + chain_head_bytes, 0xff, 2 * set_bytes),
             "preparing chains of products");
  // Other streams do not wait for this one.
  check_cuda(cudaDeviceSynchronize(), "preparing chains of products");
  if (taken.insert(device)) chain_memory_ = std::move(memory);
}

RowProducts::~RowProducts() {
  if (chain_memory_.data()) taken.erase(chain_memory_.device().index);
}

bool RowProducts::takes(const operation::ProductChain& call) const {
  const auto count = std::ssize(call.products);
  if (!chain_memory_.data() || count < 2 || count > most_links) return false;
  for (const auto& link : call.products) {
    if (!takes(link) || link.y.dtype() != DType::bf16 || link.y.size(0) != 1 || link.x.size(1) % slab != 0)
      return false;
  }
  // Blocks hand each other the row of the product before, and nothing else: a residual's elements stay with their thread.
  const Tensor* residual = nullptr;
  for (const auto& link : call.products) {
    if (!link.residual) continue;
    if (residual && (link.residual.raw() != residual->raw() || link.residual.size(1) != residual->size(1)))
      return false;
    residual = &link.residual;
  }
  for (std::size_t l = 1; l < call.products.size(); ++l) {
    const auto &before = call.products[l - 1], &link = call.products[l];
    const Tensor& made = before.residual ? before.residual : before.y;
    if (link.x.raw() != made.raw() || link.x.size(1) != made.size(1) ||
        static_cast<bool>(link.norm_weight) != static_cast<bool>(before.residual) ||
        made.size(1) * (before.residual ? 4 : 2) > most_row_bytes)
      return false;
  }
  return stages_of(call) >= least_stages;
}

void RowProducts::run(const operation::ProductChain& call, cudaStream_t stream) {
  LinkMaps maps;
  ChainArguments a{};
  a.count = static_cast<int>(std::ssize(call.products));
  a.stages = static_cast<int>(stages_of(call));
  a.memory = static_cast<char*>(chain_memory_.data());
  for (int l = 0; l < a.count; ++l) {
    const auto& product = call.products[static_cast<std::size_t>(l)];
    Link& link = a.links[l];
    link.y = product.y.raw(), link.x = product.x.raw();
    if (product.residual) link.residual = product.residual.as<float>();
    if (product.norm_weight) link.norm_weight = elements<bf16>(product.norm_weight);
    link.eps = static_cast<float>(product.eps), link.gelu = product.gelu;
    link.inner = static_cast<int>(product.x.size(1)), link.outputs = static_cast<int>(product.y.size(1));
    const int of_round = multiprocessors_ * operand_rows;
    link.whole_rounds = link.outputs / of_round;
    const int rest = link.outputs % of_round;
    if (rest > 0) {
      link.last_rows = 16;
      while (link.last_rows * multiprocessors_ < rest) link.last_rows *= 2;
    }
    const auto map_of = [&](int rows) { return maps_->of_slabs(product.w, rows, slabs_of_stage(rows)); };
    maps.whole[l] = map_of(operand_rows);
    maps.last[l] = map_of(rest > 0 ? link.last_rows : operand_rows);
  }
  const auto shared = 1024 + head_bytes + a.stages * stage_bytes + static_cast<int>(bytes_of_row(call));
  launch_overlapped(product_chain_kernel, dim3(static_cast<unsigned>(multiprocessors_)),
                    dim3(multipliers + 32), static_cast<std::size_t>(shared), stream, call.name, maps, a);
}

}  // namespace ratplus::cuda
