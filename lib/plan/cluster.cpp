#include "lib/plan/cluster.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "kernels/datasheet.h"
#include "lib/plan/speeds.h"

namespace ratplus::plan {
namespace {

constexpr std::int64_t one_gib = std::int64_t{1} << 30;

constexpr double peak(std::string_view title) {
  return datasheet_peak(title, DType::bf16);
}

// Datasheets of the SXM forms; dense rates. Memory: what cudaMemGetInfo was seen to leave on an H100 and an H200, and of
// the others the datasheet's less 2.5 %, which is what those two lack.
constexpr std::array gpus = {
    Gpu{"a100-40gb", "NVIDIA A100 40GB SXM", 39 * one_gib, 1.555e12, peak("NVIDIA A100 40GB SXM"), 19.5e12,
        300e9,
        "nothing has been measured on it: its datasheet, at the shares that an H100 reaches of its own"},
    Gpu{"a100", "NVIDIA A100 80GB SXM", 78 * one_gib, 2.039e12, peak("NVIDIA A100 80GB SXM"), 19.5e12, 300e9,
        "nothing has been measured on it: its datasheet, at the shares that an H100 reaches of its own"},
    Gpu{"h100", "NVIDIA H100 80GB SXM", 78 * one_gib, 3.35e12, peak("NVIDIA H100 80GB SXM"), 66.9e12, 450e9,
        "operations and steps were measured on it, on one GPU; links have not been", 1, true},
    Gpu{"h200", "NVIDIA H200 141GB SXM", 139 * one_gib, 4.8e12, peak("NVIDIA H200 141GB SXM"), 66.9e12, 450e9,
        "steps were measured on one, two and four; operations are those of an H100, with more bandwidth", 1,
        true},
    Gpu{"b200", "NVIDIA B200 180GB SXM", 174 * one_gib, 8.0e12, peak("NVIDIA B200 180GB SXM"), 75e12, 900e9,
        "nothing has been measured on it: its datasheet, at the shares that an H100 reaches of its own"},
};

}  // namespace

std::span<const Gpu> known_gpus() {
  return gpus;
}

const Gpu& find_gpu(std::string_view name) {
  std::string lower(name);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
  const auto found = std::ranges::find(gpus, lower, &Gpu::name);
  if (found != gpus.end()) return *found;
  std::vector<std::string_view> names;
  for (const auto& gpu : gpus) names.push_back(gpu.name);
  fail("there are no figures of a GPU \"{}\"; known are {}", name, fmt::join(names, ", "));
}

const Gpu* gpu_of_title(std::string_view title) {
  std::string lower(title);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const auto& gpu : gpus) {  // with a size of memory first
    const auto dash = gpu.name.find('-');
    if (lower.find(gpu.name.substr(0, dash)) == std::string::npos) continue;
    if (dash == std::string_view::npos || lower.find(gpu.name.substr(dash + 1)) != std::string::npos)
      return &gpu;
  }
  return nullptr;
}

std::vector<int> Cluster::rank_nodes() const {
  std::vector<int> result;
  for (int rank = 0; rank < ranks(); ++rank) result.push_back(rank / gpus_per_node);
  return result;
}

double Cluster::link_bandwidth() const {
  return link > 0 ? link : gpu->link * speeds::link_share;
}

double Cluster::network_bandwidth() const {
  return network > 0 ? network : speeds::network;
}

}  // namespace ratplus::plan
