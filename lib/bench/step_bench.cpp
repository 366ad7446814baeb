#include "lib/bench/step_bench.h"

#include <algorithm>
#include <chrono>

#include "base/median.h"
#include "base/random.h"
#include "lib/model/operations.h"
#include "lib/train/trainer.h"
#include "lib/train/update.h"

namespace ratplus::bench {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<std::int32_t> random_tokens(std::int64_t count, std::int64_t vocab_size, std::uint32_t stream) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::int32_t>(
        random_below(static_cast<std::uint64_t>(vocab_size), 7, Purpose::test, stream, i));
  }
  return tokens;
}

bool on_several_hosts(const std::vector<int>& ranks, const std::vector<int>& nodes) {
  const auto node = [&](int rank) { return nodes[static_cast<std::size_t>(rank)]; };
  return std::ranges::any_of(ranks, [&](int rank) { return node(rank) != node(ranks.front()); });
}

SentBytes sent_bytes(const std::vector<parallel::CollectiveTotal>& totals, const parallel::Mesh& mesh,
                     const std::vector<int>& nodes) {
  SentBytes sent;
  for (const auto& total : totals) {
    const bool reduces = total.kind == "all_reduce";
    // Of the sums in two levels over the replicas, all-reduces are those between hosts.
    const auto& over_replicas = !mesh.two_levels() ? mesh.replica_ranks
                                : reduces          ? mesh.between_ranks
                                                   : mesh.inside_ranks;
    const auto& group = total.lane == parallel::Timeline::Lane::shards ? mesh.shard_ranks : over_replicas;
    const auto n = static_cast<double>(group.size());
    const double bytes = static_cast<double>(total.bytes) * (reduces ? 2 : 1) * (n - 1) / n;
    (on_several_hosts(group, nodes) ? sent.between_hosts : sent.within_hosts) += bytes;
  }
  return sent;
}

}  // namespace

StepTimes time_steps(const StepBenchSettings& settings, const parallel::World& world) {
  const auto& job = settings.job;
  session::Session session(session::session_settings(job), world);
  session.set_initial_weights(job.job.seed);

  const auto sequences = job.data.micro_batch * settings.micro_batches;
  const auto rows = sequences * job.data.sequence_length;
  const auto rank = static_cast<std::uint32_t>(world.rank());
  const auto inputs = random_tokens(rows, job.model.vocab_size, 2 * rank);
  const auto labels = random_tokens(rows, job.model.vocab_size, 2 * rank + 1);
  const auto updates = session::updates(job);

  StepTimes result;
  result.device = session.ops().device_name();
  result.compute_type = session.ops().compute_type();
  result.ranks = world.size();
  result.parameters = parallel::parameter_count(session.store().units());
  result.tokens = rows * world.size();
  result.memory = session.memory().plan();
  result.memory_bytes = session.memory().total_bytes();
  result.memory_available = session.memory_available();
  for (const auto& update : updates) {
    result.updates.push_back({update.name, 0,
                              model::update_operations(job.model, update.pattern, result.parameters,
                                                       sequences, job.data.sequence_length)});
  }
  std::vector<std::vector<double>> times(updates.size());
  std::vector<double> steps;
  const auto step = [&](bool timed) {
    double total = 0;
    result.losses.clear();
    for (std::size_t h = 0; h < updates.size(); ++h) {
      session.ops().synchronize();
      const double began = now();
      const auto made =
          train::run_update(session.parts(), updates[h].pattern, {inputs, labels}, result.tokens, 1e-5);
      session.ops().synchronize();
      const double seconds = now() - began;
      if (timed) times[h].push_back(seconds);
      total += seconds;
      result.losses.push_back(made.loss);
    }
    if (timed) steps.push_back(total);
    return total;
  };
  for (int i = 0; i < settings.warmup; ++i) step(false);
  for (int i = 0; i < settings.steps; ++i) step(true);
  for (std::size_t h = 0; h < updates.size(); ++h) result.updates[h].seconds = median(times[h]);
  result.seconds = median(steps);
  {
    OpProfiler profiler(session.ops());
    result.profiled_seconds = step(false);
    result.profile = profiler.stop();
  }
  parallel::Timeline timeline(session.ops().make_stopwatch());
  session.store().follow(&timeline);
  result.timeline_seconds = step(false);
  session.store().follow(nullptr);
  result.timeline = timeline.finish();
  result.sent = sent_bytes(parallel::totals(result.timeline), session.store().mesh(), world.nodes());
  return result;
}

}  // namespace ratplus::bench
