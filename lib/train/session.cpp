#include "lib/train/session.h"

#include "lib/model/parameters.h"

namespace ratplus::train {

Session::Session(const SessionSettings& settings, const parallel::World& world)
    : settings_(settings),
      world_(world),
      threads_(world.threads(settings.threads)),
      ops_(make_cpu_ops(threads_)),
      communicator_(parallel::make_mpi_communicator()),
      arena_(ops_->device()) {
  build();
  world_.agree([&] { arena_.commit(); });
  build();
  model_->prepare();
}

/// Asks the arena for everything, in a fixed order: run once to count and once to take.
void Session::build() {
  const bool training = settings_.use == model::Model::Use::training;
  store_ = std::make_unique<parallel::ParameterStore>(
      *ops_, *communicator_, model::unit_layouts(settings_.model), settings_.sharding,
      training ? parallel::ParameterStore::Use::training : parallel::ParameterStore::Use::evaluation, arena_);
  if (training) {
    optimizer_ = std::make_unique<optim::Optimizer>(settings_.optimizer, *ops_, world_, *store_, arena_);
  }
  model_ = std::make_unique<model::Model>(settings_.model, settings_.shapes, settings_.use, *ops_, *store_, arena_);
  arena_.category("scratch");
  ops_->use_scratch(
      arena_.allocate(DType::u8, {ops_->scratch_bytes(settings_.shapes.ops(settings_.model))}));
}

void Session::set_initial_weights(std::uint64_t seed) {
  std::vector<float> values;
  for (std::size_t unit = 0; unit < store_->units().size(); ++unit) {
    const auto owned = store_->owned(unit);
    if (owned.size() == 0) continue;
    values.resize(static_cast<std::size_t>(owned.size()));
    model::initial_values(store_->units()[unit], unit, owned.begin, values, settings_.model, seed);
    ops_->upload(store_->master(unit), values.data());
  }
  store_->publish_masters();
}

}  // namespace ratplus::train
