#include <utility>

#include "base/error.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/nccl_communicator.h"
#include "parallel/world.h"

namespace ratplus::parallel {

std::unique_ptr<Communicator> make_communicator(const Ops& ops, const World& world,
                                                const std::vector<int>& ranks) {
  if (ops.device().kind == DeviceKind::cpu) return make_mpi_communicator(world, ranks);
  return make_nccl_communicator(ops, world, ranks);
}

MeshGroups make_mesh_groups(const Ops& ops, const World& world, Mesh mesh) {
  const auto connect = [&](const std::vector<int>& ranks, bool exchanges) {
    if (!exchanges) return make_solo_communicator();
    require(world.connected(), "a mesh of several ranks on a solo world");
    return make_communicator(ops, world, ranks);
  };
  MeshGroups groups;
  groups.shards = connect(mesh.shard_ranks, mesh.shards > 1);
  const auto& replicas = mesh.two_levels() ? mesh.between_ranks : mesh.replica_ranks;
  groups.replicas = connect(replicas, mesh.replicas > 1);
  if (mesh.inside_ranks.size() > 1) groups.inside = connect(mesh.inside_ranks, true);
  groups.mesh = std::move(mesh);
  return groups;
}

}  // namespace ratplus::parallel
