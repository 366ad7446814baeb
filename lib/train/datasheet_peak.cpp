#include "lib/train/datasheet_peak.h"

namespace ratplus::train {

double datasheet_peak(const std::string& device, DType compute) {
  if (compute != DType::bf16) return 0;
  if (device.find("H100") != std::string::npos || device.find("H200") != std::string::npos) {
    return device.find("PCIe") != std::string::npos ? 756e12 : 989e12;
  }
  return device.find("A100") != std::string::npos ? 312e12 : 0;
}

}  // namespace ratplus::train
