// ratplus bench ops with a job file.
#pragma once

#include <string>
#include <vector>

#include "parallel/world.h"

namespace ratplus::apps {

struct BenchLayerArguments {
  std::string job;                     ///< a job file
  std::vector<std::string> overrides;  ///< of its keys
  std::string device, precision;       ///< empty: the job's
  bool any_order = false;
  int threads = 0;
  std::string json;
};

int bench_layer(const BenchLayerArguments& args, const parallel::World& world);

}  // namespace ratplus::apps
