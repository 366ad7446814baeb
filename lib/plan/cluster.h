// Gpu, Cluster: the machine that a plan is made for.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::plan {

/// Datasheet of a kind of GPU. speeds.h has the shares of it that a job reaches, the same for all kinds.
struct Gpu {
  std::string_view name;   ///< "h100", as --gpu takes it
  std::string_view title;  ///< "NVIDIA H100 80GB SXM"
  std::int64_t memory;     ///< bytes that a program finds free, driver and context taken off
  double bandwidth;        ///< of its memory, bytes a second
  double bf16_rate;        ///< of dense bfloat16 products, operations a second: the peak of "share of peak"
  double f32_rate;         ///< of float32 without tensor cores
  double link;             ///< of NVLink in one direction, bytes a second
  std::string_view evidence;  ///< what the plan's times on it rest on
  /// Of the rate of products and attention that its kind is expected to reach: what `ratplus check` has measured.
  double pace = 1;
  bool own_products = false;  ///< of inference: by kernels/cuda/row_product.cu, on Hopper
};

/// All kinds that are known.
std::span<const Gpu> known_gpus();
/// The one of this name, in any case. Throws Error that lists the names.
const Gpu& find_gpu(std::string_view name);

/// The kind of a GPU by the name that it has for itself, "NVIDIA H100 80GB HBM3"; null for a kind that is not known.
const Gpu* gpu_of_title(std::string_view title);

/// Equal nodes of one kind of GPU, a rank a GPU.
struct Cluster {
  const Gpu* gpu = nullptr;
  int nodes = 1;
  int gpus_per_node = 8;
  /// Bytes a second that collectives reach (their "bus bandwidth"), a GPU: 0 for what is expected of the kind, or of a
  /// network of 400 Gbit/s a GPU.
  double link = 0;     ///< within a node
  double network = 0;  ///< between nodes

  int ranks() const { return nodes * gpus_per_node; }
  /// The node of each rank, as a launcher would place them.
  std::vector<int> rank_nodes() const;
  double link_bandwidth() const;
  double network_bandwidth() const;
};

}  // namespace ratplus::plan
