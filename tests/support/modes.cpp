#include "tests/support/modes.h"

#include "kernels/ops.h"

namespace ratplus::test {

const std::vector<Mode>& modes() {
  static const std::vector<Mode> all = [] {
    std::vector<Mode> found{{"cpu", DeviceChoice::cpu, DType::f32, 1e-5, 1e-5}};
    if (cuda_device_count() > 0) {
      found.push_back({"cuda f32", DeviceChoice::cuda, DType::f32, 1e-5, 1e-5});
      // Errors of single products, some 0.3 %, add up over the layers.
      found.push_back({"cuda bf16", DeviceChoice::cuda, DType::bf16, 2e-2, 4e-3});
    }
    return found;
  }();
  return all;
}

}  // namespace ratplus::test
