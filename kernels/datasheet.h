// What processors can do by their makers' datasheets.
#pragma once

#include <string_view>

#include "kernels/tensor.h"

namespace ratplus {

/// Operations a second of dense products, of the processor of this name (Ops::device_name), or 0 where it is not known:
/// bfloat16 on B200, H100, H200 and A100.
constexpr double datasheet_peak(std::string_view device, DType compute) {
  const auto is = [&](std::string_view name) { return device.find(name) != std::string_view::npos; };
  if (compute != DType::bf16) return 0;
  if (is("B200")) return 2250e12;
  if (is("H100") || is("H200")) return is("PCIe") ? 756e12 : 989e12;
  return is("A100") ? 312e12 : 0;
}

}  // namespace ratplus
