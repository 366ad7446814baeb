#include "lib/weights/tensor_file.h"

#include <algorithm>
#include <array>

namespace ratplus::weights {

std::int64_t StoredTensor::numel() const {
  std::int64_t count = 1;
  for (const auto size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return -1;
  }
  return count;
}

std::string without_wrappers(std::string_view name) {
  constexpr std::array<std::string_view, 4> wrappers = {"_orig_mod", "module", "_fsdp_wrapped_module",
                                                        "_checkpoint_wrapped_module"};
  std::string bare;
  while (!name.empty()) {
    const auto dot = name.find('.');
    const auto component = name.substr(0, dot);
    const auto whole = name.substr(0, dot == std::string_view::npos ? dot : dot + 1);
    // A last component is the tensor's own.
    if (dot == std::string_view::npos || std::ranges::find(wrappers, component) == wrappers.end())
      bare += whole;
    name.remove_prefix(whole.size());
  }
  return bare;
}

}  // namespace ratplus::weights
