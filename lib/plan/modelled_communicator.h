// ModelledCommunicator: a group of ranks whose collectives move nothing, but take their time on a ModelledTime.
#pragma once

#include <string_view>
#include <vector>

#include "lib/plan/cluster.h"
#include "lib/plan/modelled_time.h"
#include "parallel/communicator.h"

namespace ratplus::plan {

/// Bytes and calls of a group's collectives, a rank.
struct Traffic {
  double bytes = 0;
  double seconds = 0;  ///< that the stream is busy
};

/// Rings of `ranks` (NCCL's algorithm for large tensors): an all-gather or reduce-scatter of S bytes over n ranks sends
/// S (n - 1) / n from each, an all-reduce twice that, or by a tree 2 S in fewer steps, whichever is faster. A ring runs
/// at the bandwidth of the links within a node; where it leaves nodes, its ranks of a node share their part of the
/// node's network.
class ModelledCommunicator final : public parallel::Communicator {
 public:
  ModelledCommunicator(ModelledTime& time, const Cluster& cluster, const std::vector<int>& ranks);

  int rank() const override { return 0; }  // of every group, since it is the cluster's rank 0
  int size() const override { return size_; }
  bool leaves_node() const { return nodes_ > 1; }
  const Traffic& traffic() const { return traffic_; }

  parallel::Request all_gather(Tensor full, Tensor part, std::string_view subject) override;
  parallel::Request reduce_scatter(Tensor part, Tensor full, std::string_view subject) override;
  parallel::Request all_reduce(Tensor x, std::string_view subject) override;
  parallel::Request all_reduce_after(parallel::Request before, Tensor x, std::string_view subject) override;

 private:
  parallel::Request start(double bytes, double steps, double not_before);
  parallel::Request start_all_reduce(const Tensor& x, double not_before);
  double seconds(double bytes, double steps) const;
  void wait(int ticket) override;

  ModelledTime& time_;
  int size_;
  int nodes_;  ///< that the group is on
  double bandwidth_;
  double latency_;  ///< of a step
  double load_;     ///< of the computation's pace
  ModelledTime::Stream stream_ = 0;
  Traffic traffic_;
  std::vector<double> ends_;  ///< by ticket
  std::vector<int> free_;     ///< tickets that nobody holds
};

}  // namespace ratplus::plan
