// What reads bytes that others wrote, each as a function of the bytes alone: for libFuzzer, and for the test that
// mutates stored examples. A target may throw Error, and nothing else may happen.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::fuzz {

struct Target {
  const char* name;
  void (*run)(std::string_view bytes);
  std::vector<std::string> (*seeds)();  ///< examples to mutate
};

std::span<const Target> targets();

}  // namespace ratplus::fuzz
