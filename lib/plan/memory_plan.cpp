#include "lib/plan/memory_plan.h"

#include <fmt/ranges.h>

#include <optional>

#include "base/error.h"
#include "base/units.h"
#include "lib/plan/modelled_rank.h"
#include "lib/session/settings_of_job.h"

namespace ratplus::plan {
namespace {

using parallel::Sharding;

std::int64_t bytes_of(const session::SessionSettings& settings, const Cluster& cluster) {
  return ModelledRank(settings, cluster).memory().total_bytes();
}

/// The same; none where the ranks cannot be cut so, as hosts with sums between them cannot by groups that reach over them.
std::optional<std::int64_t> bytes_if_possible(const session::SessionSettings& settings,
                                              const Cluster& cluster) {
  try {
    return bytes_of(settings, cluster);
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// The ways to cut more of the parameters over the same ranks, in the order of what they cost in time.
struct Cut {
  parallel::Settings settings;
  std::string keys;
};
std::vector<Cut> finer_cuts(const parallel::Settings& now, const Cluster& cluster) {
  std::vector<Cut> cuts;
  if (cluster.ranks() == 1) return cuts;
  const auto add = [&](Sharding shard, int group, std::string keys) {
    Cut cut{now, std::move(keys)};
    cut.settings.shard = shard;
    cut.settings.shard_group = group;
    cuts.push_back(std::move(cut));
  };
  const int group = now.shard_group;
  if (now.shard == Sharding::none) add(Sharding::optimizer, group, "parallel.shard = \"optimizer\"");
  if (now.shard != Sharding::full) add(Sharding::full, group, "parallel.shard = \"full\"");
  if (group == parallel::all_ranks || cluster.nodes == 1) return cuts;
  const bool full = now.shard == Sharding::full;
  add(Sharding::full, parallel::all_ranks,
      fmt::format("{}parallel.shard_group = 0", full ? "" : "parallel.shard = \"full\" with "));
  return cuts;
}

/// The same job cut over all GPUs of more and more nodes, with the least of activations; `batch` in sequences.
std::string more_nodes(session::SessionSettings settings, std::int64_t available, Cluster cluster,
                       std::int64_t batch) {
  constexpr int most_nodes = 4096;
  const bool between_hosts = settings.parallel.reduce == parallel::Reduce::bf16_between_hosts;
  if (between_hosts) settings.parallel.reduce = parallel::Reduce::bf16;
  settings.parallel.shard = Sharding::full;
  settings.parallel.shard_group = parallel::all_ranks;
  settings.parallel.keep_weights = false;
  settings.shapes.batch = 1;
  settings.shapes.recompute = model::Recompute::block;
  for (cluster.nodes *= 2; cluster.nodes <= most_nodes; cluster.nodes *= 2) {
    const auto bytes = bytes_of(settings, cluster);
    if (bytes > available) continue;
    std::vector<std::string> keys = {"parallel.shard = \"full\"", "parallel.shard_group = 0",
                                     "data.micro_batch = 1"};
    if (between_hosts) keys.emplace_back("parallel.reduce = \"bf16\"");
    if (batch % cluster.ranks() != 0)
      keys.push_back(fmt::format("data.batch a multiple of {} in the place of {}", cluster.ranks(), batch));
    return fmt::format(
        "no setting fits on these; {} nodes with {} and job.recompute = \"block\" would hold it ({:.1f} GiB "
        "a "
        "GPU)",
        cluster.nodes, fmt::join(keys, ", "), gib(bytes));
  }
  return "no number of such GPUs holds it: what a GPU takes beside its part is too much; use a shorter "
         "sequence, a smaller model or GPUs with more memory";
}

/// Settings that fit: another cut of the parameters, else smaller passes, else both, else more nodes.
std::string find_way(const session::SessionSettings& settings, std::int64_t available, const Cluster& cluster,
                     std::int64_t batch) {
  std::vector<std::string> ways;
  auto cuts = finer_cuts(settings.parallel, cluster);
  auto next = settings;
  std::erase_if(cuts, [&](const Cut& cut) {
    next.parallel = cut.settings;
    return !bytes_if_possible(next, cluster);
  });
  for (const auto& cut : cuts) {
    next.parallel = cut.settings;
    const auto needed = bytes_of(next, cluster);
    if (needed > available) continue;
    ways.push_back(fmt::format("{} fits ({:.1f} GiB)", cut.keys, gib(needed)));
    break;
  }
  const auto bytes = [&](const session::SessionSettings& candidate) { return bytes_of(candidate, cluster); };
  if (auto way = session::way_to_fit(settings, available, bytes); !way.empty())
    ways.push_back(std::move(way));
  for (auto cut = cuts.begin(); ways.empty() && cut != cuts.end(); ++cut) {
    next.parallel = cut->settings;
    const auto way = session::way_to_fit(next, available, bytes);
    if (!way.empty()) ways.push_back(fmt::format("{} with {}", cut->keys, way));
  }
  if (ways.empty()) return more_nodes(settings, available, cluster, batch);
  return fmt::format("{}", fmt::join(ways, "; or "));
}

}  // namespace

MemoryPlan plan_memory(const config::JobConfig& job, const Cluster& cluster) {
  config::validate_ranks(job, cluster.ranks());
  const auto settings = session::session_settings(job);
  const ModelledRank rank(settings, cluster);
  MemoryPlan plan{.parts = rank.memory().plan(),
                  .bytes = rank.memory().total_bytes(),
                  .available = cluster.gpu->memory - session::gpu_reserve,
                  .way_to_fit = ""};
  if (!plan.fits()) plan.way_to_fit = find_way(settings, plan.available, cluster, job.data.batch);
  return plan;
}

void require_fit(const MemoryPlan& plan, const config::JobConfig& job, const Cluster& cluster) {
  if (plan.fits()) return;
  fail("{}: the job needs {:.1f} GiB of each GPU, and {} has {:.1f} GiB for it; {}", job.source,
       gib(plan.bytes), cluster.gpu->name, gib(plan.available), plan.way_to_fit);
}

}  // namespace ratplus::plan
