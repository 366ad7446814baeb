// ModelledOps: a backend that computes nothing. It counts what each operation would do on a GPU and how long that would
// take, so that a step of the program's own code can be gone through without a GPU and without memory.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "kernels/ops.h"
#include "lib/plan/cluster.h"
#include "lib/plan/modelled_time.h"

namespace ratplus::plan {

/// What operations do: of one part, or all.
struct Work {
  double operations = 0;  ///< that are carried out, what is made again included
  double bytes = 0;       ///< read from memory and written
  double seconds = 0;     ///< without collectives beside it
};

class ModelledOps final : public Ops, private OpObserver {
 public:
  /// pace: 1, or less for a GPU that is slower than others of its kind.
  ModelledOps(const Gpu& gpu, DType compute, bool deterministic, double pace, ModelledTime& time);

  /// Since the beginning.
  const std::array<Work, part_count>& work() const { return work_; }

  Device device() const override { return {DeviceKind::cuda, 0}; }
  std::string device_name() const override { return std::string(gpu_.title); }
  DType compute_type() const override { return compute_; }
  void synchronize() override {}
  std::unique_ptr<Stopwatch> make_stopwatch() override;
  std::int64_t scratch_bytes(const OpShapes& shapes) const override;
  bool fuses_norm(std::int64_t rows, std::int64_t width) const override;
  void use_scratch(Tensor) override {}

 private:
#define RATPLUS_DECLARE(Operation) \
  void compute(const operation::Operation&) override {}
  RATPLUS_DEVICE_OPERATIONS(RATPLUS_DECLARE)
#undef RATPLUS_DECLARE
  /// The host reads zeros.
  void compute(const operation::Download& x) override;

  void began(const OpCall&) override {}
  void ended(const OpCall& call) override;
  double seconds_of(const Cost& cost) const;

  const Gpu& gpu_;
  DType compute_;
  bool deterministic_;
  double pace_;
  ModelledTime& time_;
  std::array<Work, part_count> work_{};
};

}  // namespace ratplus::plan
