// OpProfiler: the times of a backend's calls, kind by kind, while it observes them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ratplus {

/// What the calls of one kind took together.
struct OpProfile {
  std::string kind;    ///< "matmul", "attention_forward 64,0,0", ...
  double seconds = 0;  ///< on the device
  std::int64_t calls = 0;
};

/// From its making until stop() or its end, notes when each call of the backend begins and ends on the device, without
/// waiting for it.
class OpProfiler final : public OpObserver {
 public:
  explicit OpProfiler(Ops& ops);
  ~OpProfiler() override;
  OpProfiler(const OpProfiler&) = delete;
  OpProfiler& operator=(const OpProfiler&) = delete;

  /// Waits, and returns the kinds in the order of their first call.
  std::vector<OpProfile> stop();

  void began(const OpCall& call) override;
  void ended(const OpCall& call) override;

 private:
  struct Call {
    std::string kind;
    int began, ended;
  };

  Ops& ops_;
  std::unique_ptr<Stopwatch> stopwatch_;
  std::vector<Call> calls_;
};

}  // namespace ratplus
