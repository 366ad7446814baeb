#include "lib/plan/step_plan.h"

#include <algorithm>

#include "lib/model/operations.h"
#include "lib/model/parameters.h"
#include "lib/plan/modelled_rank.h"
#include "lib/session/settings_of_job.h"
#include "lib/train/update.h"

namespace ratplus::plan {
namespace {

/// Everything that adds up over a step, so that counts can be subtracted and multiplied.
class Tally {
 public:
  /// Of a rank, since its beginning.
  static Tally of(const ModelledRank& rank) {
    Tally tally;
    auto& v = tally.values_;
    std::size_t next = 0;
    for (const auto& work : rank.ops().work()) {
      v[next++] = work.operations;
      v[next++] = work.bytes;
      v[next++] = work.seconds;
    }
    for (const auto* group : rank.groups()) {
      v[group->leaves_node() ? far_bytes : near_bytes] += group->traffic().bytes;
      v[group->leaves_node() ? far_seconds : near_seconds] += group->traffic().seconds;
    }
    v[time] = rank.time().now();
    v[stalled] = rank.time().stalled();
    v[slowed] = rank.time().slowed();
    return tally;
  }

  /// this + factor * other.
  Tally plus(double factor, const Tally& other) const {
    Tally sum = *this;
    for (std::size_t i = 0; i < values_.size(); ++i) sum.values_[i] += factor * other.values_[i];
    return sum;
  }

  double seconds() const { return values_[time]; }

  void add_to(StepPlan& plan) const {
    for (std::size_t part = 0; part < plan.work.size(); ++part) {
      plan.work[part].operations += values_[3 * part];
      plan.work[part].bytes += values_[3 * part + 1];
      plan.work[part].seconds += values_[3 * part + 2];
    }
    plan.in_nodes.bytes += values_[near_bytes];
    plan.in_nodes.seconds += values_[near_seconds];
    plan.between_nodes.bytes += values_[far_bytes];
    plan.between_nodes.seconds += values_[far_seconds];
    plan.seconds += values_[time];
    plan.waiting += values_[stalled];
    plan.slowing += values_[slowed];
  }

 private:
  /// Indices after the three values of each part.
  enum Index : std::size_t {
    near_bytes = 3 * part_count,
    near_seconds,
    far_bytes,
    far_seconds,
    time,
    stalled,
    slowed,
    places
  };
  std::array<double, places> values_{};
};

/// The updates of a step of so many micro-batches, after a step before it.
std::vector<Tally> go_through(const config::JobConfig& job, const Cluster& cluster,
                              std::int64_t micro_batches) {
  ModelledRank rank(session::session_settings(job), cluster);
  const auto rows = static_cast<std::size_t>(job.data.micro_batch * job.data.sequence_length * micro_batches);
  const std::vector<std::int32_t> tokens(rows, 0);
  std::vector<Tally> result;
  for (const bool counts : {false, true}) {
    for (const auto& update : session::updates(job)) {
      const auto before = Tally::of(rank);
      train::run_update(rank.parts(), update.pattern, {tokens, tokens}, 1, 0);
      if (counts) result.push_back(Tally::of(rank).plus(-1, before));
    }
  }
  return result;
}

/// All sequences of a validation are computed forward, a micro-batch of each rank at a time (evaluation::Validator).
double validation_seconds(const config::JobConfig& job, const Cluster& cluster) {
  ModelledRank rank(session::session_settings(job), cluster);
  const std::vector<std::int32_t> tokens(
      static_cast<std::size_t>(job.data.micro_batch * job.data.sequence_length), 0);
  for (const auto& pattern : job.log.validation_patterns) {
    rank.parts().model->forward(tokens, tokens, pattern);
  }
  const auto round = job.data.micro_batch * cluster.ranks();
  const auto rounds = (job.log.validation_sequences + round - 1) / round;
  return rank.time().now() * static_cast<double>(rounds);
}

}  // namespace

double StepPlan::operations() const {
  double sum = 0;
  for (const auto& update : updates) sum += update.operations;
  return sum;
}

double StepPlan::last_update_share(const Gpu& gpu) const {
  return updates.back().operations / updates.back().seconds / gpu.bf16_rate;
}

double StepPlan::share(const Gpu& gpu) const {
  return operations() / seconds / gpu.bf16_rate;
}

StepPlan plan_step(const config::JobConfig& job, const Cluster& cluster, std::int64_t counted) {
  config::validate_ranks(job, cluster.ranks());
  StepPlan plan;
  plan.tokens = job.tokens_per_step();
  plan.micro_batches = job.data.batch / (job.data.micro_batch * cluster.ranks());
  const auto mesh = parallel::make_mesh(cluster.rank_nodes(), 0, job.parallel);
  plan.replicas = mesh.replicas;
  plan.shards = mesh.shards;

  auto updates = go_through(job, cluster, std::min(plan.micro_batches, counted));
  if (plan.micro_batches > counted) {
    const auto one_less = go_through(job, cluster, counted - 1);
    for (std::size_t h = 0; h < updates.size(); ++h) {
      const auto another = updates[h].plus(-1, one_less[h]);
      updates[h] = updates[h].plus(static_cast<double>(plan.micro_batches - counted), another);
    }
  }
  const auto parameters = model::parameter_count(job.model);
  const auto sequences = job.data.batch / cluster.ranks();
  const auto names = session::updates(job);
  for (std::size_t h = 0; h < updates.size(); ++h) {
    updates[h].add_to(plan);
    plan.updates.push_back({names[h].name, updates[h].seconds(),
                            model::update_operations(job.model, names[h].pattern, parameters, sequences,
                                                     job.data.sequence_length)});
  }
  plan.validation_seconds = validation_seconds(job, cluster);
  return plan;
}

}  // namespace ratplus::plan
