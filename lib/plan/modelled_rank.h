// ModelledRank: rank 0 of a cluster that is only counted: a job's own objects, as Session makes them, on a backend and on
// collectives that take their time on a ModelledTime.
#pragma once

#include <memory>
#include <vector>

#include "lib/plan/cluster.h"
#include "lib/plan/modelled_communicator.h"
#include "lib/plan/modelled_ops.h"
#include "lib/plan/modelled_time.h"
#include "lib/session/session_parts.h"
#include "parallel/world.h"

namespace ratplus::plan {

class ModelledRank {
 public:
  /// Throws Error where the mesh cannot be.
  ModelledRank(const session::SessionSettings& settings, const Cluster& cluster);

  session::SessionParts& parts() { return *parts_; }
  const Arena& memory() const { return arena_; }
  const parallel::Mesh& mesh() const { return groups_.mesh; }
  const ModelledTime& time() const { return time_; }
  const ModelledOps& ops() const { return ops_; }
  /// The groups that this rank sends in.
  const std::vector<const ModelledCommunicator*>& groups() const { return sent_in_; }

 private:
  ModelledTime time_;
  ModelledOps ops_;
  Arena arena_;  // counts, and is never committed: its tensors are looked at, not touched
  parallel::World world_ = parallel::World::solo();
  std::vector<const ModelledCommunicator*> sent_in_;
  parallel::MeshGroups groups_;
  std::unique_ptr<session::SessionParts> parts_;
};

}  // namespace ratplus::plan
