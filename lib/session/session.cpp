#include "lib/session/session.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "lib/model/parameters.h"
#include "lib/session/device.h"

namespace ratplus::session {
namespace {

/// From here on the job's own timeout holds.
parallel::Mesh agree_on_mesh(const parallel::Settings& settings, const parallel::World& world) {
  world.watchdog().set_timeout(settings.timeout);
  parallel::Mesh mesh;
  world.agree([&] { mesh = parallel::make_mesh(world.nodes(), world.rank(), settings); });
  return mesh;
}

}  // namespace

std::unique_ptr<Ops> make_ops(const SessionSettings& settings, int threads, const parallel::World& world) {
  return open_device(
      {settings.device, settings.precision, settings.deterministic, threads, settings.model.head_dim}, world);
}

Session::Session(const SessionSettings& settings, const parallel::World& world)
    : settings_(settings),
      world_(world),
      threads_(world.threads(settings.threads)),
      ops_(make_ops(settings, threads_, world)),
      arena_(ops_->device()),
      groups_(parallel::make_mesh_groups(*ops_, world, agree_on_mesh(settings.parallel, world))),
      available_(memory_for_rank(ops_->device(), world)) {
  omp_set_num_threads(
      threads_);  // of loops outside the backend too: initial values, first touch of the memory
  parts_ = make_parts(settings_, arena_);
  world_.agree([&] {
    check_memory();
    arena_.commit();
  });
  parts_ = make_parts(settings_, arena_);
  ops_->use_scratch(parts_->scratch);
  model().prepare();
}

Session::~Session() {
  if (std::uncaught_exceptions() == 0) {
    store().wait_all();
  } else {
    // The other ranks may never join in what is under way, so it is not waited for; MPI may still write there until
    // the program ends, which is soon.
    arena_.leak();
  }
}

std::unique_ptr<SessionParts> Session::make_parts(const SessionSettings& settings, Arena& arena) const {
  const auto sum = [this](std::span<double> values) { world_.sum(values); };
  return std::make_unique<SessionParts>(settings, *ops_, groups_, sum, world_.watchdog(), arena);
}

/// Before anything is allocated: a job that cannot fit ends with its plan, and with settings that do fit.
void Session::check_memory() const {
  if (available_ < 0 || arena_.total_bytes() <= available_) return;
  auto way_out = way_to_fit(settings_, available_, [&](const SessionSettings& candidate) {
    Arena counted(ops_->device());
    make_parts(candidate, counted);
    return counted.total_bytes();
  });
  if (way_out.empty()) {
    way_out =
        "use more ranks with parallel.shard = \"full\" (parallel.shard_group = 0 cuts over all of them), a "
        "shorter sequence or a smaller model";
  }
  const std::string sharers =
      world_.local_size() > 1 && ops_->device().kind == DeviceKind::cpu
          ? fmt::format(" for each of the {} ranks of {}", world_.local_size(), world_.host())
          : "";
  fail("{}: the job needs {:.1f} GiB a rank ({}), and there are {:.1f} GiB{}; {}", to_string(ops_->device()),
       gib(arena_.total_bytes()), describe_memory(arena_), gib(available_), sharers, way_out);
}

void Session::set_initial_weights(std::uint64_t seed) {
  std::vector<float> values;
  for (std::size_t unit = 0; unit < store().units().size(); ++unit) {
    const auto owned = store().owned(unit);
    if (owned.size() == 0) continue;
    values.resize(static_cast<std::size_t>(owned.size()));
    model::initial_values(store().units()[unit], unit, owned.begin, values, settings_.model, seed);
    ops_->upload(store().master(unit), values.data());
  }
  store().publish_masters();
}

}  // namespace ratplus::session
