#include "kernels/error.h"
#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/nccl_communicator.h"
#include "parallel/world.h"

namespace ratplus::parallel {

std::unique_ptr<Communicator> make_communicator(const Ops& ops, const World& world) {
  // A single rank exchanges nothing.
  if (world.size() == 1 || ops.device().kind == DeviceKind::cpu) return make_mpi_communicator();
  return make_nccl_communicator(ops, world);
}

}  // namespace ratplus::parallel
