// World: the ranks of a job, through MPI: who they are, and the small values they agree on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "parallel/watchdog.h"

namespace ratplus::parallel {

/// An Error that all ranks throw together, so that each may end in order and one of them prints it.
class AgreedError : public Error {
 public:
  using Error::Error;
};

/// All ranks of the job. Initialises MPI in its constructor and ends it in its destructor; one object, made by the
/// commands that need ranks, used by the main thread alone. Started without mpirun or srun, it is one rank.
///
/// World::solo() is one rank without MPI, for commands that use one rank whatever started them (plans, tests of a store):
/// nothing here, nor a store or a session on it, calls MPI. Any number of them may live, before MPI starts or beside it.
///
/// Tensors travel through a Communicator; what is here are host values: counts, norms, flags, messages. Its watchdog sees
/// to it that none of this waits for ever.
class World {
 public:
  /// Ranks that do not find each other in `seconds` end the job with a message: a host does not reach another one.
  explicit World(double seconds = Watchdog::default_timeout);
  /// One rank alone, without MPI: rank 0 of 1, its sums and texts its own.
  static World solo() { return World(Solo{}); }
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int local_rank() const { return local_rank_; }  ///< among the ranks of this host
  int local_size() const { return local_size_; }
  const std::string& host() const { return host_; }
  /// The node of every rank, numbered from 0 in the order of their lowest ranks. For tests of layouts on one machine,
  /// RATPLUS_TEST_NODES=0,0,1,1 names another node for each rank than its own; local_rank() and host() stay true.
  const std::vector<int>& nodes() const { return nodes_; }
  bool root() const { return rank_ == 0; }
  /// Whether ranks are connected by MPI: false for a solo world.
  bool connected() const { return connected_; }

  Watchdog& watchdog() const { return *watchdog_; }

  /// Sums and maxima over all ranks; the same bits on every rank.
  double sum(double value) const;
  std::int64_t sum(std::int64_t value) const;
  /// Sums several values at once, in place.
  void sum(std::span<double> values) const;
  std::int64_t max(std::int64_t value) const;
  /// Every rank's value or text, in the order of the ranks.
  std::vector<std::int64_t> all(std::int64_t value) const;
  /// Gathers several values a rank: the values of rank r are [r n, (r + 1) n) of [ranks n].
  std::vector<double> all(std::span<const double> values) const;
  std::vector<std::string> all(const std::string& text) const;
  /// The root's text, on every rank.
  std::string broadcast(const std::string& text) const;

  /// Runs f on every rank. If it throws on some, every rank throws AgreedError with the message of the lowest of them
  /// (naming the rank and its host where only some failed), so that a bad input ends the job everywhere, once and together.
  /// f must not talk to other ranks.
  void agree(const std::function<void()>& f) const;

  /// Returns f() of the root on every rank: for look-ups to be made once, since ranks may see a shared file
  /// system at different moments. Throws as agree does.
  std::string from_root(const std::function<std::string()>& f) const;

  /// Ends every rank (a solo world: this process) at once with this status, for a failure that the others cannot know of.
  [[noreturn]] void abort(int status) const;

  /// CPU threads for this rank: `wanted` if positive, else OMP_NUM_THREADS, else this rank's share of the cores it
  /// may run on and of the CPU quotas of its control groups; of the latter two at most OMP_THREAD_LIMIT.
  int threads(int wanted) const;

  /// Bytes of this host's memory that this rank may plan with, or -1 if unknown: its share of what the
  /// machine and its control groups can still give.
  std::int64_t host_memory() const;

 private:
  struct Solo {};
  explicit World(Solo);

  std::string broadcast(const std::string& text, int from) const;
  /// Ranks of this host in a control group (CgroupLimit::group).
  int sharers_of(std::uint64_t group) const;
  std::vector<double> gather(std::span<const double> values, const char* kind) const;

  bool connected_ = true;
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  int core_sharers_ = 1;  ///< ranks of this host, this one included, that may run on some of this one's cores
  /// Control groups with limits of all ranks of this host, each rank's own.
  std::vector<std::uint64_t> host_groups_;
  std::string host_;
  std::vector<int> nodes_;
  std::unique_ptr<NodeBoard> board_;
  std::unique_ptr<Watchdog> watchdog_;
};

}  // namespace ratplus::parallel
