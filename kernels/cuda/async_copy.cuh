// Copies from global to shared memory that run beside the computation: by every thread (from sm_80 on), and of whole runs by
// one thread, whose bytes a barrier in shared memory counts (from sm_90 on).
#pragma once

#include <cstdint>

namespace ratplus::cuda {

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Copies 4, 8 or a multiple of 16 bytes; both addresses are multiples of min(16, bytes).
template <int bytes>
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  if constexpr (bytes < 16) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(shared_address(to)), "l"(from),
                 "n"(bytes)
                 : "memory");
  } else {
#pragma unroll
    for (int i = 0; i < bytes; i += 16) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(to) + i),
                   "l"(static_cast<const char*>(from) + i)
                   : "memory");
    }
  }
}
/// Closes a group of this thread's copies.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
/// Waits for this thread's groups but the last `pending`.
template <int pending>
__device__ __forceinline__ void wait_for_copies_but() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
}

// Barriers of 8 bytes in shared memory, by their address there.

/// Prepares a barrier whose phases take this many arrivals, of which expect_bytes is one. Every thread that uses it
/// synchronizes with this one first.
__device__ __forceinline__ void init_barrier(std::uint32_t barrier, int arrivals = 1) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(barrier), "r"(arrivals) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}
/// Arrives; the barrier's phase ends once all have and copies have brought this many bytes.
__device__ __forceinline__ void expect_bytes(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(barrier), "r"(bytes)
               : "memory");
}
/// Copies a multiple of 16 bytes between addresses that are multiples of 16, and counts them at the barrier.
__device__ __forceinline__ void copy_bulk(void* to, const void* from, int bytes, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}
#define RATPLUS_ASK_PHASE(question, ended, barrier, parity) \
  asm volatile(                                             \
      "{\n"                                                 \
      ".reg .pred ended;\n"                                 \
      "mbarrier." question                                  \
      ".parity.shared::cta.b64 ended, [%1], %2;\n"          \
      "selp.u32 %0, 1, 0, ended;\n"                         \
      "}\n"                                                 \
      : "=r"(ended)                                         \
      : "r"(barrier), "r"(parity)                           \
      : "memory")

/// Waits for the end of a phase: of even ones (the first is 0) with parity 0, of odd ones with 1.
__device__ __forceinline__ void wait_for_phase(std::uint32_t barrier, int parity) {
  std::uint32_t ended;
  do {
    RATPLUS_ASK_PHASE("try_wait", ended, barrier, parity);
  } while (ended == 0);
}
/// Whether it has ended, without waiting.
__device__ __forceinline__ bool phase_ended(std::uint32_t barrier, int parity) {
  std::uint32_t ended;
  RATPLUS_ASK_PHASE("test_wait", ended, barrier, parity);
  return ended != 0;
}

}  // namespace ratplus::cuda
