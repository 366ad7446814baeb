// Times of inference: prompts and steps of a model, by pattern, length and batch, each beside its floor.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/bench/ops_bench.h"
#include "lib/infer/inference.h"

namespace ratplus::bench {

struct GenerateBenchSettings {
  std::vector<model::PatternPlan> patterns;
  std::vector<std::int64_t> lengths;  ///< tokens of a sequence at the end of the steps
  std::vector<std::int64_t> batches;  ///< sequences; 0: the most that fit
  int steps = 16;                     ///< timed, at the end of the sequences
  bool prompts = true;                ///< times prompts, too
};

struct GenerateTime {
  std::string pattern;
  std::int64_t length = 0;
  std::int64_t batch = 0;        ///< sequences; 0: this is a prompt
  bool largest = false;          ///< no more sequences fit
  double seconds = 0;            ///< a step's, or a prompt's: median
  double processor_seconds = 0;  ///< the same on processors, over all threads: median
  double floor = 0;              ///< seconds
  double cache_bytes = 0;        ///< of a sequence of this length

  double tokens_per_second() const { return static_cast<double>(batch > 0 ? batch : length) / seconds; }
};

struct GenerateTimes {
  Ceilings ceilings = {};
  std::string device;
  DType compute_type = DType::f32;
  DType weight_type = DType::f32;
  std::int64_t weight_bytes = 0;
  std::vector<GenerateTime> times = {};
};

/// Weights are those of `inference`; told(time) is called as each is measured. A batch that does not fit is left out, and so is
/// what does not fit with one sequence.
GenerateTimes time_generation(infer::Inference& inference, const GenerateBenchSettings& settings,
                              const std::function<void(const GenerateTime&)>& told);

}  // namespace ratplus::bench
