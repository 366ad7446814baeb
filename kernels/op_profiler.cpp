#include "kernels/op_profiler.h"

#include <algorithm>

namespace ratplus {

OpProfiler::OpProfiler(Ops& ops) : ops_(ops), stopwatch_(ops.make_stopwatch()) {
  ops_.observe(this);
}

OpProfiler::~OpProfiler() {
  ops_.observe(nullptr);
}

void OpProfiler::began(const OpCall& call) {
  calls_.push_back({call.kind(), stopwatch_->mark(), 0});
}

void OpProfiler::ended(const OpCall&) {
  calls_.back().ended = stopwatch_->mark();
}

std::vector<OpProfile> OpProfiler::stop() {
  ops_.observe(nullptr);
  std::vector<OpProfile> kinds;
  for (const Call& call : calls_) {
    auto kind = std::ranges::find(kinds, call.kind, &OpProfile::kind);
    if (kind == kinds.end()) kind = kinds.insert(kinds.end(), OpProfile{.kind = call.kind});
    kind->seconds += stopwatch_->seconds(call.began, call.ended);
    ++kind->calls;
  }
  calls_.clear();
  return kinds;
}

}  // namespace ratplus
