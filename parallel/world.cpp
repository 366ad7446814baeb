#include "parallel/world.h"

#include <mpi.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include "base/cgroup.h"
#include "base/start_thread.h"
#include "kernels/buffer.h"
#include "parallel/launch.h"
#include "parallel/mpi_wait.h"

namespace ratplus::parallel {
namespace {

/// Cores that this process may run on (mpirun and srun bind ranks to some).
int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

/// Ranks of this host, this one included, that may run on some of this one's cores: one where mpirun or srun bound each
/// to cores of its own, those of a socket where they are bound to sockets, all without binding.
int count_core_sharers(int local_size, MPI_Comm node) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof(mine), &mine);
  std::vector<cpu_set_t> all(static_cast<std::size_t>(local_size));
  MPI_Allgather(&mine, sizeof(mine), MPI_BYTE, all.data(), sizeof(mine), MPI_BYTE, node);
  int sharers = 0;
  for (const auto& other : all) {
    cpu_set_t common;
    CPU_AND(&common, &mine, &other);
    if (CPU_COUNT(&common) > 0) ++sharers;
  }
  return std::max(1, sharers);
}

/// The control groups with limits that the ranks of this host are in, rank by rank, each with `most` places.
std::vector<std::uint64_t> gather_groups(int local_size, MPI_Comm node) {
  constexpr std::size_t most = 16;  // groups above each other; more are not seen
  std::array<std::uint64_t, most> own{};
  const auto limits = cgroup_limits();
  for (std::size_t i = 0; i < std::min(most, limits.size()); ++i) own[i] = limits[i].group;
  std::vector<std::uint64_t> all(most * static_cast<std::size_t>(local_size));
  MPI_Allgather(own.data(), most, MPI_UINT64_T, all.data(), most, MPI_UINT64_T, node);
  return all;
}

/// The board of this host's ranks, on which each has entered itself.
std::unique_ptr<NodeBoard> open_board(int rank, int local_rank, int local_size, MPI_Comm node) {
  std::array<char, 64> name{};
  if (local_rank == 0) NodeBoard::create(local_size).copy(name.data(), name.size() - 1);
  MPI_Bcast(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, node);
  auto board = std::make_unique<NodeBoard>(name.data(), local_size, local_rank);
  board->own().rank = rank;
  board->own().process = static_cast<std::int32_t>(getpid());
  MPI_Barrier(node);
  if (local_rank == 0) NodeBoard::remove_name(name.data());
  return board;
}

/// Numbers nodes from 0 in the order of their lowest ranks, whatever they were called.
std::vector<int> number_nodes(const std::vector<int>& names) {
  std::map<int, int> numbers;
  std::vector<int> nodes;
  for (const int name : names) nodes.push_back(numbers.emplace(name, numbers.size()).first->second);
  return nodes;
}

/// Each rank's node, called by the lowest rank on it.
std::vector<int> find_nodes(int rank, int size, MPI_Comm node) {
  int lowest = rank;
  MPI_Bcast(&lowest, 1, MPI_INT, 0, node);
  std::vector<int> names(static_cast<std::size_t>(size));
  MPI_Allgather(&lowest, 1, MPI_INT, names.data(), 1, MPI_INT, MPI_COMM_WORLD);
  return names;
}

/// The layout that a test makes up.
std::vector<int> made_up_nodes(const std::string& text, int size) {
  std::istringstream words(text);
  std::vector<int> names;
  for (std::string word; std::getline(words, word, ',');) names.push_back(std::atoi(word.c_str()));
  if (names.size() != static_cast<std::size_t>(size)) {
    throw AgreedError(fmt::format("RATPLUS_TEST_NODES={} names the nodes of {} ranks, but there are {}", text,
                                  names.size(), size));
  }
  return names;
}

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

/// Where the launcher has started several processes and MPI knows of this one alone, each would do the whole job by
/// itself, and all would write the same files.
void check_launch(int size) {
  const auto launch = find_launch();
  if (size > 1 || launch.processes <= 1) return;
  MPI_Finalize();
  // The first says it for all; where launchers kill the rest when one process ends, it needs the time.
  if (launch.rank > 0) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    std::_Exit(1);
  }
  fail("{}", explain_singletons(launch));
}

/// Ends this process when the ranks have not found each other in time. MPI waits for ever then, and no watchdog is there
/// yet.
class ConnectLimit {
 public:
  explicit ConnectLimit(double seconds) : seconds_(seconds) {
    if (find_launch().processes > 1) thread_ = start_thread<std::thread>([this] { watch(); });
  }
  ~ConnectLimit() {
    {
      const std::lock_guard lock(mutex_);
      connected_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  ConnectLimit(const ConnectLimit&) = delete;
  ConnectLimit& operator=(const ConnectLimit&) = delete;

 private:
  void watch() {
    const int rank = find_launch().rank;
    const std::chrono::duration<double> limit(seconds_ + (rank > 0 ? Watchdog::courtesy : 0));
    std::unique_lock lock(mutex_);
    if (wake_.wait_for(lock, limit, [this] { return connected_; })) return;
    const auto line = fmt::format(
        "ratplus: rank {} on {} has waited {:.0f} s in connecting the ranks; all ranks "
        "end. A host "
        "does not reach another one: look for a firewall between them, and name the network that they share "
        "(OMPI_MCA_btl_tcp_if_include, UCX_NET_DEVICES)\n",
        rank, host_name(), limit.count());
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
    std::_Exit(1);
  }

  double seconds_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool connected_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

World::World(double seconds) {
  const ConnectLimit limit(seconds);
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  if (provided < MPI_THREAD_FUNNELED)
    fail("this MPI library supports no threads beside the one that calls it");
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  check_launch(size_);
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node);
  MPI_Comm_rank(node, &local_rank_);
  MPI_Comm_size(node, &local_size_);
  core_sharers_ = count_core_sharers(local_size_, node);
  host_groups_ = gather_groups(local_size_, node);
  nodes_ = number_nodes(find_nodes(rank_, size_, node));
  board_ = open_board(rank_, local_rank_, local_size_, node);
  MPI_Comm_free(&node);
  std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
  int length = 0;
  MPI_Get_processor_name(name.data(), &length);
  host_.assign(name.data(), static_cast<std::size_t>(length));
  const bool first_host = nodes_[static_cast<std::size_t>(rank_)] == 0;
  watchdog_ = std::make_unique<Watchdog>(Watchdog::Rank{rank_, host_, first_host}, size_, *board_);
  if (const char* layout = std::getenv("RATPLUS_TEST_NODES"))
    nodes_ = number_nodes(made_up_nodes(layout, size_));
}

World::World(Solo) : connected_(false), nodes_{0} {
  host_ = host_name();
  board_ = std::make_unique<NodeBoard>("", 1, 0);
  board_->own().process = static_cast<std::int32_t>(getpid());
  watchdog_ = std::make_unique<Watchdog>(Watchdog::Rank{rank_, host_, true}, size_, *board_);
}

World::~World() {
  watchdog_->leave();
  if (!connected_) return;
  const Watchdog::Waiting waiting(*watchdog_, "the end of all ranks");
  MPI_Finalize();
}

double World::sum(double value) const {
  sum(std::span(&value, 1));
  return value;
}

void World::sum(std::span<double> values) const {
  // Every rank adds all values in rank order: the same bits everywhere, whatever algorithm MPI would choose.
  const auto parts = gather(values, "a sum over all ranks");
  std::ranges::fill(values, 0.0);
  for (std::size_t i = 0; i < parts.size(); ++i) values[i % values.size()] += parts[i];
}

std::int64_t World::sum(std::int64_t value) const {
  if (!connected_) return value;
  std::int64_t total = 0;
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallreduce(&value, &total, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD, &request);
  wait_for(request, *watchdog_, "a sum over all ranks");
  return total;
}

std::int64_t World::max(std::int64_t value) const {
  if (!connected_) return value;
  std::int64_t largest = 0;
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallreduce(&value, &largest, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD, &request);
  wait_for(request, *watchdog_, "a maximum over all ranks");
  return largest;
}

std::vector<std::int64_t> World::all(std::int64_t value) const {
  if (!connected_) return {value};
  std::vector<std::int64_t> values(static_cast<std::size_t>(size_));
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallgather(&value, 1, MPI_INT64_T, values.data(), 1, MPI_INT64_T, MPI_COMM_WORLD, &request);
  wait_for(request, *watchdog_, "an exchange among all ranks");
  return values;
}

std::vector<double> World::all(std::span<const double> values) const {
  return gather(values, "an exchange among all ranks");
}

std::vector<double> World::gather(std::span<const double> values, const char* kind) const {
  if (!connected_) return {values.begin(), values.end()};
  const auto count = static_cast<int>(values.size());
  std::vector<double> parts(values.size() * static_cast<std::size_t>(size_));
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallgather(values.data(), count, MPI_DOUBLE, parts.data(), count, MPI_DOUBLE, MPI_COMM_WORLD, &request);
  wait_for(request, *watchdog_, kind);
  return parts;
}

std::vector<std::string> World::all(const std::string& text) const {
  if (!connected_) return {text};
  const auto lengths = all(static_cast<std::int64_t>(text.size()));
  std::vector<int> counts, places;
  int total = 0;
  for (const auto length : lengths) {
    counts.push_back(static_cast<int>(length));
    places.push_back(total);
    total += counts.back();
  }
  std::string joined(static_cast<std::size_t>(total), '\0');
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallgatherv(text.data(), static_cast<int>(text.size()), MPI_CHAR, joined.data(), counts.data(),
                  places.data(), MPI_CHAR, MPI_COMM_WORLD, &request);
  wait_for(request, *watchdog_, "an exchange among all ranks");
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < counts.size(); ++r) {
    texts.push_back(joined.substr(static_cast<std::size_t>(places[r]), static_cast<std::size_t>(counts[r])));
  }
  return texts;
}

std::string World::broadcast(const std::string& text) const {
  return broadcast(text, 0);
}

std::string World::broadcast(const std::string& text, int from) const {
  if (!connected_) return text;
  auto length = static_cast<std::int64_t>(text.size());
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Ibcast(&length, 1, MPI_INT64_T, from, MPI_COMM_WORLD, &request);
  wait_for(request, *watchdog_, "a message to all ranks");
  std::string result = text;
  result.resize(static_cast<std::size_t>(length));
  MPI_Ibcast(result.data(), static_cast<int>(length), MPI_CHAR, from, MPI_COMM_WORLD, &request);
  wait_for(request, *watchdog_, "a message to all ranks");
  return result;
}

void World::agree(const std::function<void()>& f) const {
  std::string message;
  bool failed = false;
  try {
    f();
  } catch (const std::exception& error) {
    failed = true;
    message = error.what();
  }
  const auto failures = sum(static_cast<std::int64_t>(failed));
  if (failures == 0) return;
  const auto first = size_ - max(failed ? size_ - rank_ : 0);  // the lowest failing rank
  message = broadcast(message, static_cast<int>(first));
  if (failures < size_) {
    message = fmt::format("rank {} on {}: {}", first, broadcast(host_, static_cast<int>(first)), message);
  }
  throw AgreedError(message);
}

std::string World::from_root(const std::function<std::string()>& f) const {
  std::string text;
  agree([&] {
    if (root()) text = f();
  });
  return broadcast(text);
}

void World::abort(int status) const {
  board_->may_report();  // it has been said
  watchdog_->leave();
  if (!connected_) std::_Exit(status);
  MPI_Abort(MPI_COMM_WORLD, status);
  std::abort();
}

int World::sharers_of(std::uint64_t group) const {
  // Each rank lists a group once; one whose limit was set after the start counts as this rank's alone.
  return std::clamp(static_cast<int>(std::ranges::count(host_groups_, group)), 1, local_size_);
}

int World::threads(int wanted) const {
  if (wanted > 0) return wanted;
  int threads = std::max(1, available_cores() / core_sharers_);
  for (const auto& limit : cgroup_limits()) {
    if (limit.cores <= 0) continue;
    const double share = limit.cores / sharers_of(limit.group);
    if (share < threads) threads = std::max(1, static_cast<int>(share));
  }
  if (const char* variable = std::getenv("OMP_NUM_THREADS")) {
    const int value = std::atoi(variable);
    if (value > 0) threads = value;
  }
  return std::min(threads, omp_get_thread_limit());
}

std::int64_t World::host_memory() const {
  return available_host_memory(local_size_, [this](std::uint64_t group) { return sharers_of(group); });
}

}  // namespace ratplus::parallel
