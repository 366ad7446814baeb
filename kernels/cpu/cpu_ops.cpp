#include "kernels/cpu/cpu_ops.h"

#include <omp.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace ratplus {

namespace {

/// Starts this many threads at once and ends them. OpenMP ends the whole process where one of its own does not start.
void check_threads_start(int threads) {
  std::latch done(1);
  std::vector<std::jthread> others;
  std::string reason;
  try {
    for (int i = 1; i < threads; ++i) others.emplace_back([&done] { done.wait(); });
  } catch (const std::exception& error) {
    reason = error.what();
  }
  done.count_down();
  if (reason.empty()) return;
  fail(
      "only {} of {} CPU threads start ({}); ask for fewer (job.threads or --threads, OMP_NUM_THREADS), or "
      "raise the "
      "limit of processes (ulimit -u, pids.max of the control group) or of address space (ulimit -v)",
      others.size() + 1, threads, reason);
}

/// Has OpenBLAS map its buffers, one a thread, which it keeps. Where an address-space limit leaves no room for them it
/// would try again for ever.
void map_blas_buffers(int threads) {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  constexpr std::size_t buffer = std::size_t{128}
                                 << 20;  // bytes; OpenBLAS's on x86-64, the largest of its sizes
  const std::size_t bytes = buffer * static_cast<std::size_t>(threads + 1);
  void* room = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) {
    fail(
        "the address-space limit (ulimit -v {}) leaves no room for matrix products by {} CPU threads, whose "
        "buffers "
        "take {} MiB; raise it (ulimit -v unlimited), or ask for fewer threads (job.threads or --threads)",
        limit.rlim_cur / 1024, threads, bytes >> 20);
  }
  munmap(room, bytes);
  constexpr std::int64_t n = 512;  // large enough for all threads
  std::vector<float> a(n * n, 1.0f), c(n * n);
  const auto matrix = [](std::vector<float>& values) { return Tensor(values.data(), DType::f32, {n, n}); };
  cpu::CpuOps(threads).matmul(matrix(c), matrix(a), matrix(a), {});
}

/// The threads that OpenMP gives where so many are asked for.
int granted_threads(int threads) {
  int granted = 1;
#pragma omp parallel num_threads(threads)
#pragma omp single
  granted = omp_get_num_threads();
  return granted;
}

}  // namespace

std::unique_ptr<Ops> make_cpu_ops(int threads) {
  if (threads < 0) fail("the number of threads is {}; it is at least 1, or 0 for OpenMP's choice", threads);
  // With fewer threads than it has asked for, OpenBLAS would wait for the others for ever.
  omp_set_dynamic(0);
  omp_set_max_active_levels(std::max(1, omp_get_max_active_levels()));
  const int wanted = threads == 0 ? std::min(omp_get_max_threads(), omp_get_thread_limit()) : threads;
  if (wanted > omp_get_thread_limit()) {
    fail(
        "{} CPU threads are asked for (job.threads or --threads), and OMP_THREAD_LIMIT allows {}; ask for at "
        "most "
        "that many, or unset OMP_THREAD_LIMIT",
        wanted, omp_get_thread_limit());
  }
  check_threads_start(wanted);
  if (const int granted = granted_threads(wanted); granted < wanted) {
    fail(
        "{} CPU threads are asked for, and OpenMP gives {}; ask for at most that many (job.threads or "
        "--threads)",
        wanted, granted);
  }
  map_blas_buffers(wanted);
  return std::make_unique<cpu::CpuOps>(wanted);
}

namespace cpu {

CpuOps::CpuOps(int threads) : threads_(threads) {}

std::int64_t CpuOps::scratch_bytes(const OpShapes& shapes) const {
  const std::int64_t floats =
      std::max({attention_scratch(shapes, threads_), recurrence_scratch(shapes, threads_),
                norm_scratch(shapes.heads * shapes.head_dim), mixer_step_scratch(shapes, threads_)});
  return floats * size_of(DType::f32);
}

namespace {

/// Operations of this backend are done when they return.
class ClockStopwatch final : public Stopwatch {
 public:
  int mark() override {
    points_.push_back(std::chrono::steady_clock::now());
    return static_cast<int>(points_.size()) - 1;
  }
  double seconds(int from, int to) override {
    return std::chrono::duration<double>(points_[static_cast<std::size_t>(to)] -
                                         points_[static_cast<std::size_t>(from)])
        .count();
  }

 private:
  std::vector<std::chrono::steady_clock::time_point> points_;
};

}  // namespace

std::unique_ptr<Stopwatch> CpuOps::make_stopwatch() {
  return std::make_unique<ClockStopwatch>();
}

void CpuOps::use_scratch(Tensor scratch) {
  require(scratch.dtype() == DType::u8 && scratch.contiguous() && scratch.device() == device(),
          "scratch is contiguous u8 memory of the host");
  require(reinterpret_cast<std::uintptr_t>(scratch.raw()) % 64 == 0, "scratch is not 64-byte aligned");
  scratch_ = scratch;
}

float* CpuOps::scratch(std::int64_t floats, const char* op) const {
  const std::int64_t bytes = floats * size_of(DType::f32);
  require(bytes <= scratch_.bytes(), "{} needs {} bytes of scratch, and {} are lent", op, bytes,
          scratch_.bytes());
  return static_cast<float*>(scratch_.raw());
}

}  // namespace cpu
}  // namespace ratplus
