#include "lib/weights/tensor_file.h"

namespace ratplus::weights {

std::int64_t StoredTensor::numel() const {
  std::int64_t count = 1;
  for (const auto size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return -1;
  }
  return count;
}

}  // namespace ratplus::weights
