#include "apps/settle.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

#include "apps/format.h"
#include "base/error.h"
#include "base/units.h"
#include "lib/plan/tune.h"
#include "lib/session/session.h"
#include "lib/session/settings_of_job.h"

namespace ratplus::apps {
namespace {

/// What these ranks are to a plan. Throws Error where it plans for no such cluster.
plan::Cluster cluster_of(const config::JobConfig& job, const parallel::World& world,
                         const std::vector<std::string>& devices) {
  const auto refuse = [&](const std::string& reason) {
    fail(
        "{}: \"auto\" cannot be chosen: {}; give parallel.shard and data.micro_batch (`ratplus plan --tune` "
        "helps)",
        job.source, reason);
  };
  for (const auto& device : devices) {
    if (device != devices.front()) refuse(fmt::format("ranks have a {} and a {}", devices.front(), device));
  }
  std::map<int, int> sizes;
  for (const int node : world.nodes()) ++sizes[node];
  for (const auto& [node, size] : sizes) {
    if (size != sizes.begin()->second)
      refuse(fmt::format("hosts have {} and {} ranks", sizes.begin()->second, size));
  }
  const auto* gpu = plan::gpu_of_title(devices.front());
  if (gpu == nullptr) refuse(fmt::format("there are no figures of a {}", devices.front()));
  return {.gpu = gpu, .nodes = static_cast<int>(sizes.size()), .gpus_per_node = sizes.begin()->second};
}

/// The settings, one a line; the last line is the note.
std::string choose(const config::JobConfig& job, const parallel::World& world, const Ops& ops,
                   const std::vector<std::string>& devices) {
  std::vector<std::string> settings;
  if (ops.device().kind == DeviceKind::cpu) {
    if (job.data.choose_micro_batch) settings.emplace_back("data.micro_batch=1");
    if (job.parallel.choose_shard) settings.emplace_back("parallel.shard=none");
    return fmt::format("{}\nchosen for CPUs: {}", fmt::join(settings, "\n"), fmt::join(settings, " "));
  }
  const auto tuned = plan::choose_settings(job, cluster_of(job, world, devices));
  settings = tuned.settings();
  return fmt::format("{}\nchosen for {} x {}: {} (planned: {} tokens/s a GPU, {} of memory)",
                     fmt::join(settings, "\n"), world.size(), devices.front(), fmt::join(settings, " "),
                     format_fixed(tuned.tokens_per_second, 0), format_bytes(tuned.bytes));
}

}  // namespace

Settled settle(config::JobConfig job, const parallel::World& world) {
  if (!job.chooses()) return {std::move(job), ""};
  const auto ops = session::make_ops(session::session_settings(job), world.threads(job.job.threads), world);
  const auto devices = world.all(ops->device_name());
  const auto text = world.from_root([&] { return choose(job, world, *ops, devices); });
  std::vector<std::string> settings;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) settings.push_back(line);
  const auto note = settings.back();
  settings.pop_back();
  Settled settled{.job = {}, .note = note};
  world.agree([&] { settled.job = plan::with_settings(job, settings); });
  return settled;
}

}  // namespace ratplus::apps
