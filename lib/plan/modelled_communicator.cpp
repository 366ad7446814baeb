#include "lib/plan/modelled_communicator.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/plan/speeds.h"

namespace ratplus::plan {
namespace {

int count_nodes(const Cluster& cluster, const std::vector<int>& ranks) {
  std::set<int> nodes;
  for (const int rank : ranks) nodes.insert(rank / cluster.gpus_per_node);
  return static_cast<int>(nodes.size());
}

}  // namespace

ModelledCommunicator::ModelledCommunicator(ModelledTime& time, const Cluster& cluster,
                                           const std::vector<int>& ranks)
    : time_(time),
      size_(static_cast<int>(ranks.size())),
      nodes_(count_nodes(cluster, ranks)),
      bandwidth_(cluster.link_bandwidth()),
      latency_(speeds::link_latency) {
  if (nodes_ > 1) {
    bandwidth_ = std::min(bandwidth_, cluster.network_bandwidth() * size_ / nodes_);
    // A step is as slow as the slowest of the ranks' that make it at once.
    latency_ = speeds::network_latency;
  }
  load_ = speeds::interference * bandwidth_ / cluster.link_bandwidth();
}

parallel::Request ModelledCommunicator::all_gather(Tensor full, Tensor, std::string_view) {
  const double n = size_;
  return start(static_cast<double>(full.bytes()) * (n - 1) / n, n - 1, 0);
}

parallel::Request ModelledCommunicator::reduce_scatter(Tensor, Tensor full, std::string_view) {
  const double n = size_;
  return start(static_cast<double>(full.bytes()) * (n - 1) / n, n - 1, 0);
}

parallel::Request ModelledCommunicator::all_reduce(Tensor x, std::string_view) {
  return start_all_reduce(x, 0);
}

parallel::Request ModelledCommunicator::all_reduce_after(parallel::Request before, Tensor x,
                                                         std::string_view) {
  auto* other = dynamic_cast<ModelledCommunicator*>(communicator_of(before));
  if (other == nullptr) {
    before.wait();
    return start_all_reduce(x, 0);
  }
  const int ticket = ticket_of(before);
  const double end = other->ends_[static_cast<std::size_t>(ticket)];
  other->free_.push_back(ticket);
  drop(before);
  return start_all_reduce(x, end);
}

parallel::Request ModelledCommunicator::start_all_reduce(const Tensor& x, double not_before) {
  const double n = size_, bytes = static_cast<double>(x.bytes());
  const double ring_bytes = 2 * bytes * (n - 1) / n, ring_steps = 2 * (n - 1);
  const double tree_bytes = 2 * bytes, tree_steps = 2 * std::ceil(std::log2(n));
  const bool ring = seconds(ring_bytes, ring_steps) <= seconds(tree_bytes, tree_steps);
  return start(ring ? ring_bytes : tree_bytes, ring ? ring_steps : tree_steps, not_before);
}

double ModelledCommunicator::seconds(double bytes, double steps) const {
  return bytes / bandwidth_ + steps * latency_;
}

parallel::Request ModelledCommunicator::start(double bytes, double steps, double not_before) {
  const double duration = seconds(bytes, steps);
  traffic_.bytes += bytes;
  traffic_.seconds += duration;
  const double end = time_.launch(stream_, duration, load_, not_before);
  if (free_.empty()) {
    free_.push_back(static_cast<int>(ends_.size()));
    ends_.push_back(0);
  }
  const int ticket = free_.back();
  free_.pop_back();
  ends_[static_cast<std::size_t>(ticket)] = end;
  return {*this, ticket};
}

void ModelledCommunicator::wait(int ticket) {
  time_.wait(ends_[static_cast<std::size_t>(ticket)]);
  free_.push_back(ticket);
}

}  // namespace ratplus::plan
