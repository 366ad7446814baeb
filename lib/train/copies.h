// Copies: whether ranks that are to hold the same do, by digests of every bit.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/optim/optimizer.h"
#include "parallel/parameter_store.h"
#include "parallel/world.h"

namespace ratplus::train {

/// A host value of which every rank has a copy.
struct CommonValue {
  std::string name;
  std::uint64_t bits = 0;
};
CommonValue common(std::string name, std::int64_t value);
CommonValue common(std::string name, double value);
/// A digest of the text.
CommonValue common(std::string name, const std::string& text);

/// Something that ranks hold alike, and do not.
struct Difference {
  std::string subject;                   ///< "master weights of blocks.3"
  std::vector<std::vector<int>> copies;  ///< ranks of one and the same value, the most ranks first
  /// Whether more ranks have the first value than any other, so that the rest are in the minority.
  bool has_minority() const { return copies[0].size() > copies[1].size(); }
};

/// "master weights of blocks.3: rank 2 on node07 differs from 3 others, which are alike"; or, where no value has the most
/// ranks, "...: rank 0 on a and rank 1 on b differ, and no value is in the minority". hosts: of every rank.
std::string describe(const Difference& difference, const std::vector<std::string>& hosts);
/// The first few, one after the other, with the number of those left out.
std::string describe(const std::vector<Difference>& differences, const std::vector<std::string>& hosts);

/// Compares, bit by bit, what ranks hold alike:
///
///     on all ranks       values of the host (CommonValue); units whose weights are whole on every rank
///                        (Sharding::none, Sharding::optimizer; with Sharding::full those that are resident)
///     on the replicas    of a part: master weights, moments, weights in the compute type, the summed gradient
///
/// Each tensor is read once, on its device, and each rank sends two numbers; only where these differ do the ranks exchange
/// the digests of all tensors. A part of which there is one copy is not compared.
class Copies {
 public:
  /// By all ranks together. All arguments outlive it.
  Copies(Ops& ops, parallel::ParameterStore& store, optim::Optimizer& optimizer,
         const parallel::World& world);

  /// Whether there is anything to compare: more than one rank.
  bool any() const { return world_.size() > 1; }
  /// The differences, the same on all ranks; empty where there are none. By all ranks together, with values of the same
  /// names, between updates. with_gradient: the last update's gradient is still there, and is finite.
  std::vector<Difference> compare(const std::vector<CommonValue>& values, bool with_gradient);
  const std::vector<std::string>& hosts() const { return hosts_; }

 private:
  struct Item {
    std::string subject;
    Tensor tensor;
    bool everywhere = false;  ///< on all ranks, not on the replicas of a part
  };
  std::vector<Item> items(bool with_gradient);
  std::vector<std::uint64_t> digests_of(const std::vector<Item>& items);

  Ops& ops_;
  parallel::ParameterStore& store_;
  optim::Optimizer& optimizer_;
  const parallel::World& world_;
  std::vector<std::string> hosts_;
  std::vector<std::int64_t> shards_;  ///< of each rank: its part in its group
  Buffer digests_;
};

}  // namespace ratplus::train
