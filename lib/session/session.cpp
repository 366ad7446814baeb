#include "lib/session/session.h"

#include <omp.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/units.h"
#include "lib/model/parameters.h"

namespace ratplus::session {
namespace {

/// Whether the ranks run on GPUs: all alike, or none may start.
bool use_gpus(DeviceChoice choice, const parallel::World& world) {
  if (choice == DeviceChoice::cpu) return false;
  const auto with_gpu = world.sum(std::int64_t{cuda_device_count() > 0});
  if (choice == DeviceChoice::automatic && with_gpu == 0) return false;
  world.agree([&] {
    if (cuda_device_count() > 0 || choice == DeviceChoice::cuda)
      return;  // make_cuda_ops says why there is none
    fail(
        "{} has no GPU to use ({}), but other ranks have; set job.device = \"cpu\", or start ranks on hosts "
        "with GPUs only",
        world.host(), cuda_missing());
  });
  return true;
}

/// This rank's GPU: where it sees several, the one of its number on the host; where a batch system shows each rank its
/// own, that one. No two ranks share one.
int choose_gpu(const parallel::World& world) {
  const int count = cuda_device_count(), index = count > 0 ? world.local_rank() % count : 0;
  std::string own;
  world.agree([&] {
    if (count > 0) own = cuda_device_id(index);
  });
  const auto all = world.all(own);
  world.agree([&] {
    const auto sharing = std::ranges::count(all, own);
    if (own.empty() || sharing == 1) return;
    fail(
        "{} ranks of {} would share one GPU (each rank sees {} there), and each needs its own: start at most "
        "as many ranks a "
        "host as it has GPUs, or set job.device = \"cpu\"",
        sharing, world.host(), count);
  });
  return index;
}

}  // namespace

std::unique_ptr<Ops> make_ops(const SessionSettings& settings, int threads, const parallel::World& world) {
  const bool gpus = use_gpus(settings.device, world);
  const int index = gpus ? choose_gpu(world) : 0;
  constexpr std::int64_t most_channels = 256;  // that a GPU's kernels of attention take
  if (gpus && settings.model.head_dim > most_channels) {
    throw parallel::AgreedError(
        fmt::format("model.head_dim = {}: heads have at most {} channels on a GPU; use more heads, or "
                    "job.device = \"cpu\"",
                    settings.model.head_dim, most_channels));
  }
  std::unique_ptr<Ops> ops;
  world.agree([&] {
    ops = gpus ? make_cuda_ops(index, settings.precision, settings.deterministic) : make_cpu_ops(threads);
  });
  return ops;
}

namespace {

/// Bytes that a rank may plan with, or -1 if unknown. The ranks of a host share its memory; GPUs they do
/// not share.
std::int64_t memory_for_rank(const Device& device, const parallel::World& world) {
  if (device.kind == DeviceKind::cpu) return world.host_memory();
  const std::int64_t available = available_memory(device);
  if (available < 0) return available;
  return std::max<std::int64_t>(available - gpu_reserve, 0);
}

/// From here on the job's own timeout holds.
parallel::Mesh agree_on_mesh(const parallel::Settings& settings, const parallel::World& world) {
  world.watchdog().set_timeout(settings.timeout);
  parallel::Mesh mesh;
  world.agree(
      [&] { mesh = parallel::make_mesh(world.nodes(), world.rank(), settings.shard, settings.shard_group); });
  return mesh;
}

}  // namespace

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
