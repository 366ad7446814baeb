// Communicator: collectives on tensors among a group of ranks.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/tensor.h"
#include "parallel/mesh.h"
#include "parallel/timeline.h"

namespace ratplus {
class Ops;
}

namespace ratplus::parallel {

class Communicator;
class World;

/// A collective under way. Its tensors must not be touched until wait() has returned; for a GPU communicator,
/// wait() orders the compute stream after the collective and does not block the host. Default: nothing to wait for.
/// Moved, not copied: whoever holds it waits, once, before it is overwritten or destroyed.
class Request {
 public:
  Request() = default;
  Request(Communicator& communicator, int ticket) : communicator_(&communicator), ticket_(ticket) {}
  Request(Request&& other) noexcept
      : communicator_(std::exchange(other.communicator_, nullptr)), ticket_(other.ticket_) {}
  Request& operator=(Request&& other) noexcept {
    if (pending()) std::terminate();  // a collective under way would be lost
    communicator_ = std::exchange(other.communicator_, nullptr);
    ticket_ = other.ticket_;
    return *this;
  }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  void wait();
  bool pending() const { return communicator_ != nullptr; }

 private:
  friend class Communicator;
  Communicator* communicator_ = nullptr;
  int ticket_ = 0;
};

/// A group of ranks that exchange tensors. Every rank calls the same operations with the same sizes in the same
/// order. Operations are asynchronous: they return at once, and their tensors, contiguous and of rank 1, belong to
/// the operation until its Request has been waited for. Sums are of f32 or bf16: bf16 terms are added in f32 in the order of
/// the ranks and the sum is rounded, but NCCL rounds every partial sum. The same group gives the same bits, on every rank. `subject` is what the tensors are, "blocks.3", for messages;
/// its text must outlive the operation.
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// full [size * n] = the parts [n] of all ranks in rank order. part may be this rank's own place in full.
  virtual Request all_gather(Tensor full, Tensor part, std::string_view subject) = 0;
  /// part [n] = this rank's place of the sum over ranks of full [size * n]; full is left alone. Or part is this rank's own
  /// place in full: then the rest of full means nothing afterwards, but that what is zero on all ranks stays so.
  virtual Request reduce_scatter(Tensor part, Tensor full, std::string_view subject) = 0;
  /// x [n] = its sum over ranks; of bf16, n is a multiple of size().
  virtual Request all_reduce(Tensor x, std::string_view subject) = 0;
  /// The same for an x that `before`, perhaps of another group, is about to fill; waits for that, too.
  virtual Request all_reduce_after(Request before, Tensor x, std::string_view subject) {
    before.wait();
    return all_reduce(x, subject);
  }
  /// Lets what is under way move on, where that takes the host's help (MPI's collectives do). Call it now and then.
  virtual void progress() {}

  /// Records its operations as this lane's; null ends the recording.
  void follow(Timeline* timeline, Timeline::Lane lane) {
    timeline_ = timeline;
    lane_ = lane;
  }

 protected:
  friend class Request;
  virtual void wait(int ticket) = 0;

  Timeline* timeline_ = nullptr;
  Timeline::Lane lane_ = Timeline::Lane::shards;

  /// Who carries out a request, and its ticket there.
  static Communicator* communicator_of(const Request& request) { return request.communicator_; }
  static int ticket_of(const Request& request) { return request.ticket_; }
  /// The request has been waited for in the communicator's own way.
  static void drop(Request& request) { request.communicator_ = nullptr; }
};

inline void Request::wait() {
  if (pending()) std::exchange(communicator_, nullptr)->wait(ticket_);
}

/// The groups of a mesh that this rank is in.
struct MeshGroups {
  Mesh mesh;
  std::unique_ptr<Communicator> shards;  ///< mesh.shard_ranks: gather weights, reduce-scatter gradients
  /// mesh.replica_ranks, or mesh.between_ranks where there are two levels: all-reduce what the shards have summed.
  std::unique_ptr<Communicator> replicas;
  /// mesh.inside_ranks: reduce-scatter before that sum, gather after it; null where each host has one replica.
  std::unique_ptr<Communicator> inside = nullptr;
};

/// Tensors are where `ops` keeps its own: they travel by MPI on CPUs, by NCCL on GPUs, and groups of one rank call neither.
/// Every rank of the world calls this with its own place in one mesh.
MeshGroups make_mesh_groups(const Ops& ops, const World& world, Mesh mesh);

/// One group of these ranks of the world, of which this is one, for tensors where `ops` keeps its own: by MPI on CPUs, by
/// NCCL on GPUs. Every rank of the world calls this with its own group, which may be itself alone.
std::unique_ptr<Communicator> make_communicator(const Ops& ops, const World& world,
                                                const std::vector<int>& ranks);

/// A group of this rank alone, which sends nothing: a sum is its own term, a gather its own part. Tensors in host memory, or
/// on any device where part and whole are the same memory.
std::unique_ptr<Communicator> make_solo_communicator();

/// Tensors in host memory, by MPI's non-blocking collectives among these ranks of the world, of which this is one;
/// every rank of the world calls this with its own group.
std::unique_ptr<Communicator> make_mpi_communicator(const World& world, const std::vector<int>& ranks);

}  // namespace ratplus::parallel
