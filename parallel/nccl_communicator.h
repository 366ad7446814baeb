// Collectives on tensors in GPU memory, by NCCL.
#pragma once

#include <memory>

#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/world.h"

namespace ratplus::parallel {

/// All ranks of the world, one GPU each; `ops` is this rank's backend on that GPU. Collectives run on a stream of their
/// own, after what was given to the backend before them and beside what comes after. Throws Error in a build without
/// NCCL.
std::unique_ptr<Communicator> make_nccl_communicator(const Ops& ops, const World& world);

}  // namespace ratplus::parallel
