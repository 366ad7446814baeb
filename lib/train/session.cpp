#include "lib/train/session.h"

#include <omp.h>

#include <exception>

#include "lib/model/parameters.h"

namespace ratplus::train {

Session::Session(const SessionSettings& settings, const parallel::World& world)
    : settings_(settings),
      world_(world),
      threads_(world.threads(settings.threads)),
      ops_(make_cpu_ops(threads_)),
      arena_(ops_->device()),
      communicator_(parallel::make_mpi_communicator()) {
  omp_set_num_threads(
      threads_);  // of loops outside the backend too: initial values, first touch of the memory
  build();
  world_.agree([&] { arena_.commit(); });
  build();
  model_->prepare();
}

Session::~Session() {
  if (std::uncaught_exceptions() == 0) {
    store_->wait_all();
  } else {
    // The other ranks may never join in what is under way, so it is not waited for; MPI may still write there until
    // the program ends, which is soon.
    arena_.leak();
  }
}

/// Asks the arena for everything, in a fixed order: run once to count and once to take.
void Session::build() {
  const bool training = settings_.use == parallel::Use::training;
  store_ = std::make_unique<parallel::ParameterStore>(
      *ops_, *communicator_, model::unit_layouts(settings_.model), settings_.sharding, settings_.use, arena_);
  if (training) {
    optimizer_ = std::make_unique<optim::Optimizer>(settings_.optimizer, *ops_, world_, *store_, arena_);
  }
  model_ = std::make_unique<model::Model>(settings_.model, settings_.shapes, settings_.use, *ops_, *store_,
                                          arena_);
  arena_.category("scratch");
  ops_->use_scratch(arena_.allocate(DType::u8, {ops_->scratch_bytes(settings_.shapes.ops(settings_.model))}));
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
