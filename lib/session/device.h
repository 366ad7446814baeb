// The device of a rank: the CPU, or a GPU of its own.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/device.h"
#include "kernels/ops.h"
#include "parallel/world.h"

namespace ratplus::session {

struct DeviceSettings {
  DeviceChoice device = DeviceChoice::automatic;
  DType precision = DType::bf16;  ///< of a GPU's products
  bool deterministic = true;
  int threads = 1;            ///< of the CPU
  std::int64_t head_dim = 1;  ///< channels of a head
};

/// The backend of this rank, by all ranks together: GPUs, where all have one of their own, or CPUs. Throws Error where there
/// is no such device, or where a GPU cannot have heads of so many channels.
std::unique_ptr<Ops> open_device(const DeviceSettings& settings, const parallel::World& world);

/// Bytes that a rank may plan with, or -1 if unknown. The ranks of a host share its memory; GPUs they do not share, but
/// for a reserve of their libraries.
std::int64_t memory_for_rank(const Device& device, const parallel::World& world);

}  // namespace ratplus::session
