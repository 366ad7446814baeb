// CpuOps: the CPU backend of Ops. Each file of this folder implements one subject; ops.h says what each does.
#pragma once

#include "kernels/ops.h"

namespace ratplus::cpu {

class CpuOps final : public Ops {
 public:
  explicit CpuOps(int threads);

  Device device() const override { return {}; }
  std::string device_name() const override { return "CPU"; }
  DType compute_type() const override { return DType::f32; }
  void synchronize() override {}
  std::unique_ptr<Stopwatch> make_stopwatch() override;

  std::int64_t scratch_bytes(const OpShapes& shapes) const override;
  void use_scratch(Tensor scratch) override;

 private:
#define RATPLUS_DECLARE(Operation) void compute(const operation::Operation& x) override;
  RATPLUS_OPERATIONS(RATPLUS_DECLARE)
#undef RATPLUS_DECLARE

  /// `floats` of scratch, 64-byte aligned; std::logic_error if less was lent.
  float* scratch(std::int64_t floats, const char* op) const;

  int threads_;
  Tensor scratch_;
};

// Scratch of the operations that need some, in floats over all threads.
std::int64_t attention_scratch(const OpShapes& shapes, int threads);
std::int64_t recurrence_scratch(const OpShapes& shapes, int threads);
std::int64_t norm_scratch(std::int64_t width);
std::int64_t mixer_step_scratch(const OpShapes& shapes, int threads);

}  // namespace ratplus::cpu
