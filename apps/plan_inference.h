// ratplus plan --inference.
#pragma once

#include <string>
#include <vector>

#include "lib/config/job.h"
#include "lib/plan/cluster.h"

namespace ratplus::apps {

struct PlanInferenceArguments {
  std::vector<std::string> patterns;  ///< empty: generation_patterns
  std::vector<std::int64_t> lengths;  ///< empty: the job's
  std::vector<std::int64_t> batches = {1, 64};
  std::int64_t prefix_bytes = 0;  ///< for prefixes of prompts
};

/// Prints a line for each pattern, length and batch; writes them to `json`, if it is not empty. Returns the exit status: 1
/// where not one sequence fits anywhere.
int plan_inference_command(const PlanInferenceArguments& args, const config::JobConfig& job,
                           const plan::Gpu& gpu, const std::string& json);

}  // namespace ratplus::apps
