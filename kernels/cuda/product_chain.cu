// ProductChain on Hopper's tensor cores: products of one row one after the other, in one kernel.
//
// A block on each multiprocessor. One of its threads fetches the block's part of all weights by TMA, from the first product to
// the last, as soon as a place in shared memory is free: while the rows of the next product are still being made elsewhere,
// and, under the kernel before, while that still runs. The other threads wait until all blocks have written the product before,
// bring its row into shared memory (normalised, where a norm comes first), and multiply. The sums of an element are
// kernels/cuda/row_product.cu's, in the same order.
// Floor: the weights once. Above it, a product of one row waits some 20 ns for each 16 of its columns, and some 3 us for the
// row before it; two rows and more took no less time in one kernel than in one each.
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
constexpr int least_stages = 4;
constexpr int head_bytes = 1024;  // barriers, and the sums of a norm from half of it on
constexpr int pitch = 16;         // bytes of 8 columns of the row in shared memory
constexpr int multipliers = 128;  // threads; one more warp fetches
// Bytes of shared memory, which leave room for the mixer's step: it begins beside the chain and fetches its keys.
constexpr int chain_bytes = 144 << 10;
// Read behind the last stage's weights and behind the row, for rows that do not count.
constexpr int reach_bytes = 6144, row_reach_bytes = 7 * pitch;
// Counters of a kernel: blocks that have ended each of its products but the last, and blocks that will look at them no more.
constexpr int counters_of_chain = most_links;

/// One product. Each block takes 64 rows of its weights a round, and `last_rows` of the remaining ones in a last round.
struct Link {
  void* y;
  float* residual;
  const void* x;
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
  unsigned* counters;
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

/// d [64, 8] += R rows of weights, of a stage, by as many columns of x as it has.
template <int R>
__device__ __forceinline__ void multiply_stage(float (&d)[4], std::uint32_t weights, std::uint32_t x) {
#pragma unroll
  for (int i = 0; i < stage_bytes / (R * 128); ++i) {
#pragma unroll
    for (int k = 0; k < slab / operand_k; ++k) {
      multiply<8>(d, describe(weights + i * (R * 128) + k * (operand_k * 2)),
                  describe_row(x + (i * (slab / 8) + k * (operand_k / 8)) * pitch));
    }
  }
}

__device__ __forceinline__ unsigned read_counter(const unsigned* counter) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n" : "=r"(value) : "l"(counter) : "memory");
  return value;
}
__device__ __forceinline__ void count_block(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;\n" ::"l"(counter) : "memory");
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
    if (thread > multipliers) return;
    bool used = false;
    for (int l = 0; l < a.count; ++l) {
      const Link& link = a.links[l];
      for (int round = 0; round <= link.whole_rounds; ++round) {
        const Portion portion = portion_of(link, round);
        if (portion.rows == 0) continue;
        const CUtensorMap& map = portion.rows == operand_rows ? maps.whole[l] : maps.last[l];
        const int slab_bytes = portion.rows * 128;
        for (int column = 0; column < link.inner;) {
          if (used) wait_for_phase(empty_barrier(base, stage), turn ^ 1);
          expect_bytes(full_barrier(base, stage), stage_bytes);
          for (int at = 0; at < stage_bytes; at += slab_bytes, column += slab)
            fetch(map, weights + stage * stage_bytes + at, full_barrier(base, stage), column, portion.first);
          next_stage();
          used = used || stage == 0;
        }
      }
    }
    return;
  }
  const auto synchronize = [] { asm volatile("bar.sync 1, %0;\n" ::"n"(multipliers) : "memory"); };
  char* const x = memory + (row - shared_address(memory));
  for (int l = 0; l < a.count; ++l) {
    const Link& link = a.links[l];
    ProductArguments product{};
    product.y = link.y, product.rows = 1, product.outputs = link.outputs, product.gelu = link.gelu;
    product.residual = link.residual;
    // The whole row that the product before has written.
    const auto ready = [&] {
      if (l == 0) return wait_for_kernels_before();
      if (thread == 0) {
        while (read_counter(a.counters + l - 1) < gridDim.x) {
        }
      }
      synchronize();
    };
    // Zero where the last stage has more columns than x.
    const int columns = (link.inner + columns_of_stage - 1) / columns_of_stage * columns_of_stage;
    const auto put = [&](int /*row*/, int c, const Pack<bf16, 8>& u) {
      store(reinterpret_cast<bf16*>(x + c * pitch), u);
    };
    for (int c = link.inner / 8 + thread; c < columns / 8; c += multipliers) put(0, c, {});
    if (link.norm_weight) {
      product.x = static_cast<const float*>(link.x);
      product.norm_weight = link.norm_weight, product.inner = link.inner, product.eps = link.eps;
      normalise(product, reinterpret_cast<float*>(memory + (base + head_bytes / 2 - shared_address(memory))),
                ready, put);
    } else {
      ready();
#pragma unroll 8
      for (int c = thread; c < link.inner / 8; c += multipliers)
        put(0, c, load<8>(static_cast<const bf16*>(link.x) + c * 8));
      asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
      synchronize();
    }
    if (l == a.count - 1 && l > 0 && thread == 0) {
      // The last block that will look at the counters leaves them as it found them.
      unsigned* const left = a.counters + counters_of_chain - 1;
      if (atomicAdd(left, 1) == gridDim.x - 1) {
        __threadfence();
        for (int i = 0; i < counters_of_chain; ++i) a.counters[i] = 0;
      }
    }
    const auto multiply_portion = [&](auto height, int first) {
      constexpr int R = decltype(height)::value, columns_a_stage = stage_bytes / (R * 2);
      const int end = min(first + R, link.outputs);
      float before[4] = {};
      if (link.residual) read_residual(product, before, first, end, 0);
      float d[4] = {};
      int last = -1;
      for (int column = 0; column < link.inner; column += columns_a_stage) {
        wait_for_phase(full_barrier(base, stage), turn);
        begin_products();
        multiply_stage<R>(d, weights + stage * stage_bytes, row + column / 8 * pitch);
        commit_products();
        wait_for_products_but<1>();
        if (last >= 0) arrive(empty_barrier(base, last), thread);
        last = stage;
        next_stage();
      }
      wait_for_products_but<0>();
      take_sums(d);
      arrive(empty_barrier(base, last), thread);
      write_elements<8, bf16>(product, d, first, end, 0, before);
    };
    for (int round = 0; round <= link.whole_rounds; ++round) {
      const Portion portion = portion_of(link, round);
      if (portion.rows == 16) multiply_portion(std::integral_constant<int, 16>{}, portion.first);
      if (portion.rows == 32) multiply_portion(std::integral_constant<int, 32>{}, portion.first);
      if (portion.rows == 64) multiply_portion(std::integral_constant<int, 64>{}, portion.first);
    }
    if (l < a.count - 1) {
      synchronize();
      if (thread == 0) count_block(a.counters + l);
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
  Buffer counters({DeviceKind::cuda, device},
                  counters_of_chain * static_cast<std::int64_t>(sizeof(unsigned)));
  if (taken.insert(device)) chain_counters_ = std::move(counters);
}

RowProducts::~RowProducts() {
  if (chain_counters_.data()) taken.erase(chain_counters_.device().index);
}

bool RowProducts::takes(const operation::ProductChain& call) const {
  const auto count = std::ssize(call.products);
  if (!chain_counters_.data() || count < 2 || count > most_links) return false;
  for (const auto& link : call.products) {
    if (!takes(link) || link.y.dtype() != DType::bf16 || link.y.size(0) != 1) return false;
  }
  return stages_of(call) >= least_stages;
}

void RowProducts::run(const operation::ProductChain& call, cudaStream_t stream) {
  LinkMaps maps;
  ChainArguments a{};
  a.count = static_cast<int>(std::ssize(call.products));
  a.stages = static_cast<int>(stages_of(call));
  a.counters = static_cast<unsigned*>(chain_counters_.data());
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
    maps.whole[l] = maps_->of(product.w, operand_rows);
    maps.last[l] = maps_->of(product.w, rest > 0 ? link.last_rows : operand_rows);
  }
  const auto shared = 1024 + head_bytes + a.stages * stage_bytes + static_cast<int>(bytes_of_row(call));
  launch_overlapped(product_chain_kernel, dim3(static_cast<unsigned>(multiprocessors_)),
                    dim3(multipliers + 32), static_cast<std::size_t>(shared), stream, call.name, maps, a);
}

}  // namespace ratplus::cuda
