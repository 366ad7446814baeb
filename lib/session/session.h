// Session: a model with its parameters and memory on this rank's device, ready to run. Training and evaluation both
// build on it.
#pragma once

#include <memory>

#include "lib/session/session_parts.h"
#include "parallel/world.h"

namespace ratplus::session {

/// The backend of this rank: its GPU, which no other rank shares, or the CPU with so many threads. By all ranks together.
/// Throws Error, on all ranks alike, where there is no such device.
std::unique_ptr<Ops> make_ops(const SessionSettings& settings, int threads, const parallel::World& world);

/// All memory is planned and allocated in the constructor. The weights are zero until set_initial_weights() or a
/// checkpoint fills them. Throws Error where there is no such device, or where it has not enough memory: then the
/// message names settings that fit.
class Session {
 public:
  Session(const SessionSettings& settings, const parallel::World& world);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const parallel::World& world() const { return world_; }
  Ops& ops() { return *ops_; }
  SessionParts& parts() { return *parts_; }
  parallel::ParameterStore& store() { return *parts_->store; }
  model::Model& model() { return *parts_->model; }
  optim::Optimizer& optimizer() { return *parts_->optimizer; }  ///< training only
  const SessionSettings& settings() const { return settings_; }
  const Arena& memory() const { return arena_; }
  /// Bytes of the device for this rank before the session allocated its memory (less a reserve for a GPU's libraries, or
  /// the rank's share of its host), or -1 if unknown.
  std::int64_t memory_available() const { return available_; }
  int threads() const { return threads_; }

  /// The initial values of docs/model.md, section 11, for this seed, the same for any number of ranks.
  void set_initial_weights(std::uint64_t seed);

 private:
  std::unique_ptr<SessionParts> make_parts(const SessionSettings& settings, Arena& arena) const;
  void check_memory() const;

  SessionSettings settings_;
  const parallel::World& world_;
  int threads_;
  std::unique_ptr<Ops> ops_;
  Arena arena_;  // freed after the communicators, whose collectives may use it
  parallel::MeshGroups groups_;
  std::int64_t available_;
  std::unique_ptr<SessionParts> parts_;
};

}  // namespace ratplus::session
