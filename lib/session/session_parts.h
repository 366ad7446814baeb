// SessionParts: the objects that hold a session's memory. Session makes them on a device; lib/plan makes them to count.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/model.h"
#include "lib/optim/optimizer.h"
#include "parallel/communicator.h"
#include "parallel/parameter_store.h"

namespace ratplus::session {

struct SessionSettings {
  model::ModelConfig model;
  model::PassShapes shapes;
  parallel::Use use = parallel::Use::training;
  parallel::Settings parallel = {};
  optim::OptimizerSettings optimizer;  ///< training only
  DeviceChoice device = DeviceChoice::cpu;
  DType precision = DType::bf16;  ///< of a GPU's products
  bool deterministic = true;
  int threads = 0;  ///< CPU threads a rank, 0 = its share of the cores
};

/// Replaces values by their sums over all ranks, the same bits on each.
using SumOverRanks = std::function<void(std::span<double>)>;

/// The objects of a session, in memory of one arena: made once to count it and once more to take it.
struct SessionParts {
  SessionParts(const SessionSettings& settings, Ops& ops, const parallel::MeshGroups& groups,
               SumOverRanks sum, parallel::Watchdog& watchdog, Arena& arena);

  std::unique_ptr<parallel::ParameterStore> store;
  std::unique_ptr<optim::Optimizer> optimizer;  ///< training only
  std::unique_ptr<model::Model> model;
  Tensor scratch;
  SumOverRanks sum;
};

/// Memory of a GPU's libraries beside the plan, once their kernels are loaded.
inline constexpr std::int64_t gpu_reserve = std::int64_t{1} << 30;

/// "weights 8.2, gradients 5.5": an arena's plan, in GiB.
std::string describe_memory(const Arena& arena);

/// Settings that need less memory on the same ranks and give the same result, the cheapest in time first.
std::vector<SessionSettings> smaller(const SessionSettings& settings);

/// What to do about settings that need more than `available` bytes: the first of smaller(settings) that fits, by what
/// `bytes_of` says of it, as "data.micro_batch = 2 with job.recompute = "none" fits (44.5 GiB)". Empty if none does.
std::string way_to_fit(const SessionSettings& settings, std::int64_t available,
                       const std::function<std::int64_t(const SessionSettings&)>& bytes_of);

}  // namespace ratplus::session
