#include "lib/session/device.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/error.h"
#include "kernels/buffer.h"
#include "lib/session/session_parts.h"

namespace ratplus::session {
namespace {

/// Whether the ranks run on GPUs: all alike, or none may start.
bool use_gpus(DeviceChoice choice, const parallel::World& world) {
  if (choice == DeviceChoice::cpu) return false;
  const auto with_gpu = world.sum(std::int64_t{cuda_device_count() > 0});
  if (choice == DeviceChoice::automatic && with_gpu == 0) return false;
  world.agree([&] {
    if (cuda_device_count() > 0 || choice == DeviceChoice::cuda)
      return;  // make_cuda_ops says why there is none
    fail(
        "{} has no GPU to use ({}), but other ranks have; set job.device = \"cpu\", or start ranks on hosts "
        "with GPUs only",
        world.host(), cuda_missing());
  });
  return true;
}

/// This rank's GPU: where it sees several, the one of its number on the host; where a batch system shows each rank its
/// own, that one. No two ranks share one.
int choose_gpu(const parallel::World& world) {
  const int count = cuda_device_count(), index = count > 0 ? world.local_rank() % count : 0;
  std::string own;
  world.agree([&] {
    if (count > 0) own = cuda_device_id(index);
  });
  const auto all = world.all(own);
  world.agree([&] {
    const auto sharing = std::ranges::count(all, own);
    if (own.empty() || sharing == 1) return;
    fail(
        "{} ranks of {} would share one GPU (each rank sees {} there), and each needs its own: start at most "
        "as many ranks a "
        "host as it has GPUs, or set job.device = \"cpu\"",
        sharing, world.host(), count);
  });
  return index;
}

}  // namespace

std::unique_ptr<Ops> open_device(const DeviceSettings& settings, const parallel::World& world) {
  const bool gpus = use_gpus(settings.device, world);
  const int index = gpus ? choose_gpu(world) : 0;
  constexpr std::int64_t most_channels = 256;  // that a GPU's kernels of attention take
  if (gpus && settings.head_dim > most_channels) {
    throw parallel::AgreedError(
        fmt::format("model.head_dim = {}: heads have at most {} channels on a GPU; use more heads, or "
                    "job.device = \"cpu\"",
                    settings.head_dim, most_channels));
  }
  std::unique_ptr<Ops> ops;
  world.agree([&] {
    ops = gpus ? make_cuda_ops(index, settings.precision, settings.deterministic)
               : make_cpu_ops(settings.threads);
  });
  return ops;
}

std::int64_t memory_for_rank(const Device& device, const parallel::World& world) {
  if (device.kind == DeviceKind::cpu) return world.host_memory();
  const std::int64_t available = available_memory(device);
  if (available < 0) return available;
  return std::max<std::int64_t>(available - gpu_reserve, 0);
}

}  // namespace ratplus::session
