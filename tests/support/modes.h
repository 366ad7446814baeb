// The devices and types of products that whole models are tested in.
#pragma once

#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/tensor.h"

namespace ratplus::test {

struct Mode {
  std::string name;
  DeviceChoice device;
  DType precision;        ///< of a GPU's products; the CPU computes in f32
  double tolerance;       ///< relative error allowed of a model's logits and of each gradient
  double loss_tolerance;  ///< relative error allowed of its loss
};

/// All that this machine has: the CPU, and a GPU in f32 and in bf16.
const std::vector<Mode>& modes();

}  // namespace ratplus::test
