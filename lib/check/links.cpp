#include "lib/check/links.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <vector>

#include "base/elapsed_time.h"
#include "kernels/buffer.h"
#include "lib/model/parameters.h"
#include "parallel/communicator.h"

namespace ratplus::check {
namespace {

constexpr double least_seconds = 0.3;  ///< of all exchanges of a group
constexpr double most_seconds = 1.5;   ///< of one
constexpr std::int64_t few_elements = std::int64_t{1} << 18;

/// Elements of the largest block: what a gather brings at once.
std::int64_t block_elements(const config::JobConfig& job) {
  std::int64_t most = 1;
  for (const auto& unit : model::unit_layouts(job.model)) {
    if (!unit.resident) most = std::max(most, unit.numel);
  }
  return most;
}

/// The ranks of each node, lowest first.
std::vector<std::vector<int>> ranks_by_node(const parallel::World& world) {
  std::map<int, std::vector<int>> nodes;
  for (int rank = 0; rank < world.size(); ++rank)
    nodes[world.nodes()[static_cast<std::size_t>(rank)]].push_back(rank);
  std::vector<std::vector<int>> result;
  for (auto& [node, ranks] : nodes) result.push_back(std::move(ranks));
  return result;
}

/// Index `index` in a ring of `size`, paired with its next (round 0: 0 with 1, 2 with 3, ...; round 1: 1 with 2, ...,
/// the last with 0). None where it is left over.
std::optional<int> partner(int index, int size, int round) {
  if (size < 2) return std::nullopt;
  const int place = (index - round + size) % size;
  const int other = place ^ 1;
  if (other >= size) return std::nullopt;
  return (other + round) % size;
}

class Links {
 public:
  Links(Ops& ops, const config::JobConfig& job, const parallel::World& world)
      : ops_(ops), world_(world), elements_(block_elements(job)) {}

  /// Bytes a second that this rank sends in this group, with gradients of this type; none where it is alone in it. By all
  /// ranks together.
  std::optional<double> rate(const std::vector<int>& ranks, DType gradients) {
    const auto group = parallel::make_communicator(ops_, world_, ranks);
    // A first look with little: where a block would take long, a part of one has to do.
    const auto few = std::min(elements_, few_elements);
    const double of_few = slowest(Exchange(ops_, *group, few, gradients), 2);
    const auto fitting = static_cast<double>(few) * most_seconds / of_few;
    const auto elements = fitting < static_cast<double>(elements_)
                              ? std::max(few, static_cast<std::int64_t>(fitting))
                              : elements_;
    Exchange exchange(ops_, *group, elements, gradients);
    const double once = slowest(exchange, 1);
    const auto times = std::clamp<std::int64_t>(std::llround(least_seconds / once), 1, 1000);
    const double all = seconds(exchange, times);
    if (group->size() == 1) return std::nullopt;
    return exchange.sent() * static_cast<double>(times) / all;
  }

 private:
  /// A gather of weights and a reduce-scatter of gradients of so many elements among a group.
  class Exchange {
   public:
    Exchange(Ops& ops, parallel::Communicator& group, std::int64_t elements, DType reduced)
        : ops_(ops),
          group_(group),
          part_((elements + group.size() - 1) / group.size()),
          weights_(ops.device(), part_ * group.size() * size_of(ops.compute_type())),
          gradients_(ops.device(), part_ * group.size() * size_of(reduced)),
          whole_(weights_.as_tensor(ops.compute_type())),
          sums_(gradients_.as_tensor(reduced)) {}

    void operator()() {
      if (group_.size() == 1) return;
      group_.all_gather(whole_, own(whole_), "a block").wait();
      group_.reduce_scatter(own(sums_), sums_, "a block").wait();
      ops_.synchronize();
    }
    /// Bytes that this rank sends.
    double sent() const {
      return static_cast<double>((group_.size() - 1) * part_ *
                                 (size_of(whole_.dtype()) + size_of(sums_.dtype())));
    }

   private:
    Tensor own(const Tensor& x) const {
      return x.slice(0, group_.rank() * part_, (group_.rank() + 1) * part_);
    }

    Ops& ops_;
    parallel::Communicator& group_;
    std::int64_t part_;
    Buffer weights_, gradients_;
    Tensor whole_, sums_;
  };

  /// Seconds of one exchange, of the rank for which it takes longest: the same on all ranks. The first warms up.
  double slowest(Exchange&& exchange, std::int64_t times) const { return slowest(exchange, times); }
  double slowest(Exchange& exchange, std::int64_t times) const {
    exchange();
    const double own = seconds(exchange, times) / static_cast<double>(times);
    return static_cast<double>(world_.max(static_cast<std::int64_t>(own * 1e9) + 1)) * 1e-9;
  }

  template <typename Call>
  double seconds(Call& call, std::int64_t times) const {
    world_.max(std::int64_t{0});  // together
    const ElapsedTime elapsed;
    for (std::int64_t i = 0; i < times; ++i) call();
    return elapsed.seconds();
  }

  Ops& ops_;
  const parallel::World& world_;
  std::int64_t elements_;
};

}  // namespace

void measure_links(Ops& ops, const config::JobConfig& job, const parallel::World& world, Values& values) {
  if (world.size() == 1) return;
  Links links(ops, job, world);
  const auto nodes = ranks_by_node(world);
  std::size_t node = 0, place = 0;
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const auto found = std::ranges::find(nodes[n], world.rank());
    if (found == nodes[n].end()) continue;
    node = n;
    place = static_cast<std::size_t>(found - nodes[n].begin());
  }
  const auto keep_faster = [](std::optional<double>& kept, std::optional<double> rate) {
    if (rate && (!kept || *rate > *kept)) kept = rate;
  };
  const auto pair_with = [&](std::optional<int> other) {
    std::vector<int> ranks = {world.rank()};
    if (other) ranks.push_back(*other);
    std::ranges::sort(ranks);
    return ranks;
  };
  const auto& own = nodes[node];
  const auto most_on_a_node = std::ranges::max(nodes, {}, &std::vector<int>::size).size();
  for (int round = 0; round < 2 && most_on_a_node > 1; ++round) {
    const auto other = partner(static_cast<int>(place), static_cast<int>(own.size()), round);
    world.watchdog().at("measuring links", "within a host");
    const auto rate =
        links.rate(pair_with(other ? std::optional(own[static_cast<std::size_t>(*other)]) : std::nullopt),
                   type_within_hosts(job.parallel.reduce));
    keep_faster(values[Quantity::link], rate);
  }
  if (most_on_a_node > 2)
    keep_faster(values[Quantity::group], links.rate(own, type_within_hosts(job.parallel.reduce)));
  for (int round = 0; round < 2 && nodes.size() > 1; ++round) {
    std::optional<int> rank;
    if (const auto other = partner(static_cast<int>(node), static_cast<int>(nodes.size()), round)) {
      const auto& there = nodes[static_cast<std::size_t>(*other)];
      if (place < there.size()) rank = there[place];
    }
    world.watchdog().at("measuring links", "between hosts");
    keep_faster(values[Quantity::network],
                links.rate(pair_with(rank), type_between_hosts(job.parallel.reduce)));
  }
}

}  // namespace ratplus::check
