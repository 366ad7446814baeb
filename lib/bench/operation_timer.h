// Timing single operations of a backend, on tensors of normal values.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/bench/ops_bench.h"

namespace ratplus::bench {

/// Median seconds of a call, after some to warm up. Calls of a batch follow each other without a wait, as in training.
double median_seconds(Ops& ops, const std::function<void()>& call);

/// Times a forward and a backward (empty: none), each with the cost that its operations state.
OpTime time_both(Ops& ops, const std::string& name, const std::function<void()>& forward,
                 const std::function<void()>& backward);

/// Makes tensors of normal values in an arena; not zeros, on which some operations are faster.
class RandomTensors {
 public:
  RandomTensors(Ops& ops, Arena& arena);

  Tensor make(DType dtype, std::initializer_list<std::int64_t> shape);
  Tensor f32(std::initializer_list<std::int64_t> shape) { return make(DType::f32, shape); }
  Tensor compute(std::initializer_list<std::int64_t> shape) { return make(ops_.compute_type(), shape); }

 private:
  static constexpr std::int64_t period = std::int64_t{1} << 20;
  Ops& ops_;
  Arena& arena_;
  Buffer pool_;
  std::int64_t made_ = 0;
};

}  // namespace ratplus::bench
