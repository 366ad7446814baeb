// Hopper's tensor cores (wgmma) and tensor copies (TMA), as this folder's kernels take them: operands of rows of 128 bytes in
// shared memory, swizzled, and float32 sums in the registers of 128 threads.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/checks.h"

namespace ratplus::cuda {

constexpr int slab = 64;                        // bf16 elements in a row of 128 bytes, as TMA swizzles them
constexpr int operand_rows = 64;                // of wgmma
[[maybe_unused]] constexpr int operand_k = 16;  // of wgmma, columns; other GPUs have no such kernel

/// Whether the current GPU is a Hopper and runs the kernel as it was compiled for one.
template <typename Kernel>
bool built_for_hopper(Kernel kernel) {
  cudaFuncAttributes attributes{};
  check_cuda(cudaFuncGetAttributes(&attributes, kernel), "asking for a kernel");
  int device = 0, major = 0;
  check_cuda(cudaGetDevice(&device), "asking for the GPU");
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking for the GPU");
  return major == 9 && attributes.ptxVersion >= 90;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// Copies a box of a matrix that begins there, and counts its bytes at the barrier.
__device__ __forceinline__ void fetch(const CUtensorMap& map, std::uint32_t to, std::uint32_t barrier,
                                      int column, int row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];\n" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

/// The same of slabs (TensorMaps::of_slabs).
__device__ __forceinline__ void fetch_slabs(const CUtensorMap& map, std::uint32_t to, std::uint32_t barrier,
                                            int first_slab, int row) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];\n" ::"r"(to),
      "l"(&map), "r"(0), "r"(row), "r"(first_slab), "r"(barrier)
      : "memory");
}
/// The same of a tensor [B, T, H, P] (TensorMaps::of_heads).
__device__ __forceinline__ void fetch(const CUtensorMap& map, std::uint32_t to, std::uint32_t barrier,
                                      int column, int token, int head, int sequence) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, "
      "%5}], "
      "[%6];\n" ::"r"(to),
      "l"(&map), "r"(column), "r"(token), "r"(head), "r"(sequence), "r"(barrier)
      : "memory");
}

/// Brings a description to where fetches look for it.
__device__ __forceinline__ void prefetch_description(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory");
}

/// The first thread of a group arrives. Without a branch: the products under way go through one badly.
__device__ __forceinline__ void arrive(std::uint32_t barrier, int thread) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.eq.s32 p, %1, 0;\n@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}\n" ::"r"(
          barrier),
      "r"(thread)
      : "memory");
}

/// Of an operand: rows of 128 bytes with TMA's swizzle, eight by eight, whose columns are summed over.
__device__ __forceinline__ std::uint64_t describe(std::uint32_t address) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) | (std::uint64_t{1} << 16) |
         (std::uint64_t{1024 >> 4} << 32) | (std::uint64_t{1} << 62);
}

/// The same where rows are summed over; slabs of 64 columns lie `apart` bytes from each other.
__device__ __forceinline__ std::uint64_t describe_columns(std::uint32_t address, int apart) {
  return static_cast<std::uint64_t>((address & 0x3ffff) >> 4) |
         (static_cast<std::uint64_t>(apart >> 4) << 16) | (std::uint64_t{1024 >> 4} << 32) |
         (std::uint64_t{1} << 62);
}

/// The operand that begins `bytes` further, a multiple of 16.
__device__ __forceinline__ std::uint64_t further(std::uint64_t operand, int bytes) {
  return operand + static_cast<std::uint64_t>(bytes >> 4);
}
/// An address that all 32 lanes, which call it together, have alike: from the first, so that the compiler describes operands in
/// registers of the warp, without which a product begins some 20 ns after the one before.
__device__ __forceinline__ std::uint32_t of_warp(std::uint32_t address) {
  return __shfl_sync(~0u, address, 0);
}

/// Between other uses of registers that products take or give, and the products.
__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
}
/// Closes a group of products.
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
/// Waits for this thread's groups but the last `pending`.
template <int pending>
__device__ __forceinline__ void wait_for_products_but() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(pending) : "memory");
}
/// Sums that products have given are not read before this point.
template <int count>
__device__ __forceinline__ void take_sums(float (&d)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define RATPLUS_F4(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define RATPLUS_F16(d, i) \
  RATPLUS_F4(d, i), RATPLUS_F4(d, (i) + 4), RATPLUS_F4(d, (i) + 8), RATPLUS_F4(d, (i) + 12)
#define RATPLUS_F64(d, i) \
  RATPLUS_F16(d, i), RATPLUS_F16(d, (i) + 16), RATPLUS_F16(d, (i) + 32), RATPLUS_F16(d, (i) + 48)
#define RATPLUS_S4 "%0, %1, %2, %3"
#define RATPLUS_S16 RATPLUS_S4 ", %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define RATPLUS_S32 \
  RATPLUS_S16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RATPLUS_S64                                                                                        \
  RATPLUS_S32                                                                                              \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
  "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define RATPLUS_S128                                                                                         \
  RATPLUS_S64                                                                                                \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, "   \
  "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, " \
  "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, "   \
  "%121, "                                                                                                   \
  "%122, %123, %124, %125, %126, %127"
#define RATPLUS_WGMMA(size, registers, a, b, adds, ...)                                                  \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" size "k16.f32.bf16.bf16 {" registers "}, %" a ", %" b \
               ", " adds ", 1, 1, 0, 0;\n"                                                               \
               : __VA_ARGS__                                                                             \
               : "l"(w), "l"(x))
#define RATPLUS_WGMMA_LEFT(size, registers, a0, a1, a2, a3, b, ...)                                         \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" size "k16.f32.bf16.bf16 {" registers "}, {%" a0 ", %" a1 \
               ", %" a2 ", %" a3 "}, %" b ", 1, 1, 1, 1;\n"                                                 \
               : __VA_ARGS__                                                                                \
               : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "l"(x))

/// d [64, N] += w [64, 16] x [N, 16]^T.
template <int N>
__device__ __forceinline__ void multiply(float (&d)[N / 2], std::uint64_t w, std::uint64_t x) {
  if constexpr (N == 8) {
    RATPLUS_WGMMA("8", RATPLUS_S4, "4", "5", "1", RATPLUS_F4(d, 0));
  } else if constexpr (N == 32) {
    RATPLUS_WGMMA("32", RATPLUS_S16, "16", "17", "1", RATPLUS_F16(d, 0));
  } else if constexpr (N == 64) {
    RATPLUS_WGMMA("64", RATPLUS_S32, "32", "33", "1", RATPLUS_F16(d, 0), RATPLUS_F16(d, 16));
  } else if constexpr (N == 128) {
    RATPLUS_WGMMA("128", RATPLUS_S64, "64", "65", "1", RATPLUS_F64(d, 0));
  } else {
    static_assert(N == 256);
    RATPLUS_WGMMA("256", RATPLUS_S128, "128", "129", "1", RATPLUS_F64(d, 0), RATPLUS_F64(d, 64));
  }
}

/// d [64, 128] = w [64, 16] x [128, 16]^T.
__device__ __forceinline__ void multiply_first(float (&d)[64], std::uint64_t w, std::uint64_t x) {
  RATPLUS_WGMMA("128", RATPLUS_S64, "64", "65", "0", RATPLUS_F64(d, 0));
}

/// d [64, N] += w [64, 16] x [16, N]. w: in registers, as sums are; x by describe_columns.
template <int N>
__device__ __forceinline__ void multiply(float (&d)[N / 2], const std::uint32_t (&w)[4], std::uint64_t x) {
  if constexpr (N == 64) {
    RATPLUS_WGMMA_LEFT("64", RATPLUS_S32, "32", "33", "34", "35", "36", RATPLUS_F16(d, 0),
                       RATPLUS_F16(d, 16));
  } else {
    static_assert(N == 128);
    RATPLUS_WGMMA_LEFT("128", RATPLUS_S64, "64", "65", "66", "67", "68", RATPLUS_F64(d, 0));
  }
}

#endif

}  // namespace ratplus::cuda
