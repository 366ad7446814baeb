// ratplus bench generate.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/world.h"

namespace ratplus::apps {

struct BenchGenerateArguments {
  std::string model;                   ///< a job file (random weights), or weights
  std::vector<std::string> overrides;  ///< of a job file
  std::vector<std::string> patterns;   ///< empty: generation_patterns
  std::vector<std::string> lengths = {"4096"};
  std::vector<std::string> batches = {"1", "64", "max"};
  int steps = 16;
  std::string device, precision;
  int threads = 0;
  std::string json;
  std::string picture;
};

/// Checks what can be checked without a device; throws boost::program_options::error.
void check_bench_generate(const BenchGenerateArguments& args);
int bench_generate(const BenchGenerateArguments& args, const parallel::World& world);

}  // namespace ratplus::apps
