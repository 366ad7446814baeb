// without(): levers that RATPLUS_WITHOUT=name,name switches off for one measurement.
#pragma once

#include <cstdlib>
#include <string_view>

namespace ratplus::cuda {

inline bool without(std::string_view name) {
  const char* const given = std::getenv("RATPLUS_WITHOUT");
  std::string_view left = given == nullptr ? "" : given;
  while (!left.empty()) {
    const auto end = left.find(',');
    if (left.substr(0, end) == name) return true;
    if (end == std::string_view::npos) break;
    left.remove_prefix(end + 1);
  }
  return false;
}

}  // namespace ratplus::cuda
