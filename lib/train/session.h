// Session: a model with its parameters and memory on this rank's device, ready to run. Training and evaluation both
// build on it.
#pragma once

#include <memory>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "lib/model/model.h"
#include "lib/optim/optimizer.h"
#include "parallel/communicator.h"
#include "parallel/parameter_store.h"
#include "parallel/world.h"

namespace ratplus::train {

struct SessionSettings {
  model::ModelConfig model;
  model::PassShapes shapes;
  parallel::Use use = parallel::Use::training;
  parallel::Sharding sharding = parallel::Sharding::none;
  optim::OptimizerSettings optimizer;  ///< training only
  int threads = 0;                     ///< CPU threads a rank, 0 = its share of the cores
};

/// All memory is planned and allocated in the constructor. The weights are zero until set_initial_weights() or a
/// checkpoint fills them. Throws Error where the device has not enough memory.
class Session {
 public:
  Session(const SessionSettings& settings, const parallel::World& world);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const parallel::World& world() const { return world_; }
  Ops& ops() { return *ops_; }
  parallel::ParameterStore& store() { return *store_; }
  model::Model& model() { return *model_; }
  optim::Optimizer& optimizer() { return *optimizer_; }  ///< training only
  const SessionSettings& settings() const { return settings_; }
  const Arena& memory() const { return arena_; }
  int threads() const { return threads_; }

  /// Spec 1's initial values for this seed, the same for any number of ranks.
  void set_initial_weights(std::uint64_t seed);

 private:
  void build();

  SessionSettings settings_;
  const parallel::World& world_;
  int threads_;
  std::unique_ptr<Ops> ops_;
  Arena arena_;  // freed after the communicator, whose collectives may use it
  std::unique_ptr<parallel::Communicator> communicator_;
  std::unique_ptr<parallel::ParameterStore> store_;
  std::unique_ptr<model::Model> model_;
  std::unique_ptr<optim::Optimizer> optimizer_;
};

}  // namespace ratplus::train
