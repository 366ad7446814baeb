#include "lib/plan/tune.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "lib/plan/memory_plan.h"
#include "lib/plan/modelled_rank.h"
#include "lib/plan/step_plan.h"
#include "lib/session/settings_of_job.h"

namespace ratplus::plan {
namespace {

using model::Recompute;
using parallel::Reduce;
using parallel::Sharding;

/// Ranks of a shard group.
int group_of(const parallel::Settings& way, const Cluster& cluster) {
  if (way.shard_group == parallel::all_ranks) return cluster.ranks();
  return way.shard_group == parallel::ranks_of_a_node ? cluster.gpus_per_node : way.shard_group;
}

/// The ways to cut and to gather that differ on this cluster, simpler ones first.
std::vector<parallel::Settings> ways_to_shard(const parallel::Settings& own, const Cluster& cluster,
                                              const Free& free) {
  std::vector<parallel::Settings> ways;
  if (!free.shard) {
    ways.push_back(own);
  } else if (cluster.ranks() == 1) {
    ways.push_back(own);
    ways.back().shard = Sharding::none;
  } else {
    const auto add = [&](Sharding shard, int group, bool keep, int prefetch) {
      auto way = own;
      way.shard = shard;
      way.shard_group = group;
      way.keep_weights = keep;
      way.prefetch = prefetch;
      ways.push_back(way);
    };
    std::vector<int> groups;
    if (cluster.gpus_per_node > 1) groups.push_back(parallel::ranks_of_a_node);
    if (cluster.nodes > 1) groups.push_back(parallel::all_ranks);
    add(Sharding::none, parallel::ranks_of_a_node, false, 1);
    for (const int group : groups) add(Sharding::optimizer, group, false, 1);
    for (const int group : groups) {
      for (const bool keep : {false, true}) {
        for (const int prefetch : {1, 2}) add(Sharding::full, group, keep, prefetch);
      }
    }
  }
  const auto within_hosts = [&](const parallel::Settings& way) {
    return cluster.nodes == 1 || way.shard == Sharding::none ||
           cluster.gpus_per_node % group_of(way, cluster) == 0;
  };
  if (!free.reduce && own.reduce == Reduce::bf16_between_hosts && free.shard)
    std::erase_if(ways, [&](const auto& way) { return !within_hosts(way); });
  if (!free.reduce || cluster.ranks() == 1) return ways;
  const auto count = ways.size();
  for (std::size_t i = 0; i < count; ++i) {
    ways[i].reduce = Reduce::f32;
    ways.push_back(ways[i]);
    ways.back().reduce = Reduce::bf16;
    if (cluster.nodes == 1 || !within_hosts(ways[i])) continue;
    ways.push_back(ways[i]);
    ways.back().reduce = Reduce::bf16_between_hosts;
  }
  return ways;
}

/// Sizes of micro-batches that cut a rank's sequences evenly, ascending.
std::vector<std::int64_t> micro_batches(const config::JobConfig& job, const Cluster& cluster,
                                        const Free& free) {
  if (!free.micro_batch) return {job.data.micro_batch};
  const auto sequences = job.data.batch / cluster.ranks();
  constexpr std::int64_t most = 256;
  std::vector<std::int64_t> sizes;
  for (std::int64_t size = 1; size <= std::min(sequences, most); ++size) {
    if (sequences % size == 0) sizes.push_back(size);
  }
  return sizes;
}

std::int64_t bytes_of(const config::JobConfig& job, const Cluster& cluster) {
  return ModelledRank(session::session_settings(job), cluster).memory().total_bytes();
}

/// The share of the rate that a setting has to bring before it is preferred. Gradients in bfloat16 are rounded, and two
/// H200 gained nothing by them where a plan promised as much as with float32.
double complication(const config::JobConfig& job) {
  constexpr double rounding = 0.02, memory_or_reach = 2e-4;
  const auto& p = job.parallel;
  const int others =
      (p.keep_weights ? 1 : 0) + (p.prefetch > 1 ? 1 : 0) + (p.shard_group == parallel::all_ranks ? 1 : 0);
  return (p.reduce != Reduce::f32 ? rounding : 0) + memory_or_reach * others;
}

Tuned planned(config::JobConfig job, std::int64_t bytes, const Cluster& cluster) {
  const auto step = plan_step(job, cluster);
  return {.job = std::move(job),
          .bytes = bytes,
          .tokens_per_second = step.tokens_per_second() / cluster.ranks(),
          .seconds = step.seconds,
          .dense_share = step.last_update_share(*cluster.gpu),
          .micro_batches = step.micro_batches};
}

/// Plans the two largest micro-batches that fit, and with more recomputation those that are larger than these.
void add_fitting(config::JobConfig job, const Cluster& cluster, const Free& free, std::vector<Tuned>& found) {
  const auto available = cluster.gpu->memory - session::gpu_reserve;
  const auto sizes = micro_batches(job, cluster, free);
  const std::vector<Recompute> ways = free.micro_batch
                                          ? std::vector{Recompute::none, Recompute::cheap, Recompute::block}
                                          : std::vector{job.job.recompute};
  std::size_t first = 0;  // sizes from here on do not fit with less recomputation
  for (const auto recompute : ways) {
    job.job.recompute = recompute;
    std::vector<std::pair<std::int64_t, std::int64_t>> fitting;  // size, bytes
    std::size_t at = first;
    for (; at < sizes.size(); ++at) {
      job.data.micro_batch = sizes[at];
      const auto bytes = bytes_of(job, cluster);
      if (bytes > available) break;
      fitting.emplace_back(sizes[at], bytes);
    }
    first = at;
    constexpr std::size_t most = 2;
    for (std::size_t i = fitting.size() - std::min(most, fitting.size()); i < fitting.size(); ++i) {
      job.data.micro_batch = fitting[i].first;
      found.push_back(planned(job, fitting[i].second, cluster));
    }
  }
}

}  // namespace

std::vector<std::string> Tuned::settings() const {
  const auto& p = job.parallel;
  return {fmt::format("data.micro_batch={}", job.data.micro_batch),
          fmt::format("job.recompute={}", to_string(job.job.recompute)),
          fmt::format("parallel.shard={}", to_string(p.shard)),
          fmt::format("parallel.shard_group={}", p.shard_group),
          fmt::format("parallel.keep_weights={}", p.keep_weights),
          fmt::format("parallel.prefetch={}", p.prefetch),
          fmt::format("parallel.reduce={}", to_string(p.reduce))};
}

std::vector<Tuned> tune(const config::JobConfig& job, const Cluster& cluster, const Free& free) {
  if (job.job.device == DeviceChoice::cpu) {
    fail("{}: job.device = \"cpu\", and a plan is of GPUs; add --set job.device=cuda for what they would do",
         job.source);
  }
  auto least = job;
  if (free.micro_batch) least.data.micro_batch = 1;
  if (free.micro_batch) least.data.choose_micro_batch = false;
  if (free.shard) least.parallel.choose_shard = false;
  config::validate_ranks(least, cluster.ranks());
  std::vector<Tuned> found;
  for (const auto& way : ways_to_shard(job.parallel, cluster, free)) {
    auto next = least;
    static_cast<parallel::Settings&>(next.parallel) = way;
    add_fitting(std::move(next), cluster, free, found);
  }
  if (found.empty()) {
    require_fit(plan_memory(least, cluster), least, cluster);
    fail("{}: no settings fit", job.source);
  }
  const auto worth = [](const Tuned& tuned) {
    return tuned.tokens_per_second * (1 - complication(tuned.job));
  };
  std::ranges::stable_sort(found, [&](const Tuned& a, const Tuned& b) { return worth(a) > worth(b); });
  return found;
}

Tuned choose_settings(const config::JobConfig& job, const Cluster& cluster) {
  const Free free{
      .micro_batch = job.data.choose_micro_batch, .shard = job.parallel.choose_shard, .reduce = false};
  return tune(job, cluster, free).front();
}

config::JobConfig with_settings(const config::JobConfig& job, const std::vector<std::string>& settings) {
  return config::parse_job(config::to_toml(job), job.source, settings);
}

}  // namespace ratplus::plan
