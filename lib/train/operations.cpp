#include "lib/train/operations.h"

#include "lib/bench/attended_pairs.h"

namespace ratplus::train {

double half_operations(const Half& half, const config::JobConfig& job, std::int64_t sequences,
                       std::int64_t parameters) {
  const auto& model = job.model;
  const auto T = job.data.window;
  double operations = 6.0 * static_cast<double>(parameters) * static_cast<double>(sequences * T);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    const auto patterns = half.pattern.layer(layer);
    const double heads_each = static_cast<double>(model.heads()) / static_cast<double>(patterns.size());
    for (const auto& pattern : patterns) {
      operations += 12.0 * heads_each * static_cast<double>(model.head_dim * sequences) *
                    bench::attended_pairs(pattern, T);
    }
  }
  return operations;
}

double datasheet_peak(const std::string& device, DType compute) {
  if (compute != DType::bf16) return 0;
  if (device.find("H100") != std::string::npos || device.find("H200") != std::string::npos) {
    return device.find("PCIe") != std::string::npos ? 756e12 : 989e12;
  }
  return device.find("A100") != std::string::npos ? 312e12 : 0;
}

}  // namespace ratplus::train
