#include "kernels/cpu/cpu_ops.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/cpu/checks.h"

namespace ratplus {

std::unique_ptr<Ops> make_cpu_ops(int threads) {
  if (threads < 0) fail("the number of threads is {}; it is at least 1, or 0 for OpenMP's choice", threads);
  return std::make_unique<cpu::CpuOps>(threads == 0 ? omp_get_max_threads() : threads);
}

namespace cpu {

CpuOps::CpuOps(int threads) : threads_(threads) {}

std::int64_t CpuOps::scratch_bytes(const OpShapes& shapes) const {
  const std::int64_t floats =
      std::max({attention_scratch(shapes, threads_), recurrence_scratch(shapes, threads_),
                norm_scratch(shapes.heads * shapes.head_dim)});
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
