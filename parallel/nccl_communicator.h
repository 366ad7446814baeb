// Collectives on tensors in GPU memory, by NCCL.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "parallel/communicator.h"
#include "parallel/world.h"

namespace ratplus::parallel {

/// These ranks of the world, one GPU each, of which this is one; every rank of the world calls this with its own group.
/// `ops` is this rank's backend on its GPU. Collectives run on a stream of their own, after what was given to the backend
/// before them and beside what comes after, collectives of other groups included. Throws Error in a build without NCCL.
std::unique_ptr<Communicator> make_nccl_communicator(const Ops& ops, const World& world,
                                                     const std::vector<int>& ranks);

/// "2.27.3"; empty in a build without NCCL.
std::string nccl_version();

}  // namespace ratplus::parallel
