#include "parallel/watchdog.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/start_thread.h"

namespace ratplus::parallel {
namespace {

using Clock = std::chrono::steady_clock;  // the same for all processes of a host

constexpr auto period = std::chrono::milliseconds(50);

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

/// When a process started, in the kernel's own count: with its number, which process it is. Empty if it is not there,
/// or dead and not yet taken note of by its parent.
std::string identity_of(int process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string stat;
  std::getline(file, stat);
  const auto name_end = stat.rfind(')');  // fields follow the name, which may hold anything
  if (name_end == std::string::npos) return "";
  std::istringstream fields(stat.substr(name_end + 1));
  const std::vector<std::string> words{std::istream_iterator<std::string>(fields), {}};
  constexpr std::size_t state = 0;
  constexpr std::size_t start_time = 19;  // proc(5): field 22, of which three are before
  if (words.size() <= start_time || words[state] == "Z" || words[state] == "X") return "";
  return words[start_time];
}

}  // namespace

Watchdog::Watchdog(Rank self, int ranks, NodeBoard& board) : self_(std::move(self)), board_(board) {
  if (const char* text = std::getenv("RATPLUS_TEST_FAILURE")) {
    std::istringstream words(text);
    std::string rank, action, place, times;
    std::getline(words, rank, ':');
    std::getline(words, action, ':');
    std::getline(words, place, ':');
    std::getline(words, times, ':');
    if (rank == std::to_string(self_.rank))
      test_ = {place, action == "stall", std::max(1, std::atoi(times.c_str()))};
  }
  if (const char* seconds = std::getenv("RATPLUS_TEST_TIMEOUT")) timeout_ = std::atof(seconds);
  at("starting");
  if (ranks == 1) return;
  look_for_peers();
  thread_ = start_thread<std::thread>([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

/// Those whose processes can be seen from here: ranks may be in containers of their own.
void Watchdog::look_for_peers() {
  for (int place = 0; place < board_.places(); ++place) {
    const int process = board_.entry(place).process;
    if (place == board_.place() || process == 0) continue;
    auto identity = identity_of(process);
    if (!identity.empty()) peers_.push_back({place, std::move(identity), 0});
  }
}

void Watchdog::at(std::string_view kind, std::string_view subject) {
  auto& own = board_.own();
  own.at.set(kind, subject);
  own.at_since.store(now_ns(), std::memory_order_relaxed);
  if (test_.times > 0) fail_for_test(own.at);
}

Watchdog::Waiting::Waiting(Watchdog& watchdog, std::string_view kind, std::string_view subject)
    : watchdog_(watchdog), began_(Clock::now()) {
  auto& own = watchdog_.board_.own();
  own.waits_in.set(kind, subject);
  ++watchdog_.waits_;
  own.waiting = true;
  if (watchdog_.test_.times > 0) watchdog_.fail_for_test(own.waits_in);
}

Watchdog::Waiting::~Waiting() {
  watchdog_.board_.own().waiting = false;
  watchdog_.add_waited(std::chrono::duration<double>(Clock::now() - began_).count());
}

void Watchdog::fail_for_test(const SharedText& place) {
  if (place.get().rfind(test_.place, 0) != 0 || --test_.times > 0) return;
  if (!test_.stall) std::raise(SIGKILL);
  while (true) pause();
}

int Watchdog::add_check(Check check) {
  const std::lock_guard lock(mutex_);
  checks_.emplace(next_check_, std::move(check));
  return next_check_++;
}

void Watchdog::remove_check(int number) {
  const std::lock_guard lock(mutex_);
  checks_.erase(number);
}

void Watchdog::before_end(std::function<void(const std::string&)> tell) {
  const std::lock_guard lock(mutex_);
  tell_ = std::move(tell);
}

void Watchdog::leave() {
  board_.own().leaving = true;
  left_ = true;
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  auto before = Clock::now();
  while (!wake_.wait_for(lock, period, [&] { return stop_; })) {
    const auto now = Clock::now();
    // Where this thread did not run for long, neither did its process.
    const double seconds = std::min(std::chrono::duration<double>(now - before).count(), 1.0);
    before = now;
    if (!left_ && stopped_peer()) ::kill(getpid(), SIGTERM);
    std::string failure = left_ ? "" : failed_check();
    if (failure.empty() && !left_) failure = dead_peer();
    if (failure.empty()) failure = overdue(seconds);
    if (!failure.empty()) end_job(failure);
  }
}

/// Whether a signal has ended another rank of this host.
bool Watchdog::stopped_peer() const {
  return std::ranges::any_of(peers_,
                             [&](const Peer& peer) { return board_.entry(peer.place).stopped.load(); });
}

/// Names a rank of this host that is gone without having said so. Seen twice, since ranks that are all being killed
/// go one after another.
std::string Watchdog::dead_peer() {
  for (auto& peer : peers_) {
    const auto& entry = board_.entry(peer.place);
    if (entry.leaving || entry.stopped || identity_of(entry.process) == peer.identity) {
      peer.misses = 0;
      continue;
    }
    if (++peer.misses < 2) continue;
    return fmt::format("rank {} on {} died in {}", entry.rank.load(), self_.host,
                       entry.waiting ? entry.waits_in.get() : entry.at.get());
  }
  return "";
}

/// Names the collective that this rank has waited in for too long.
std::string Watchdog::overdue(double seconds) {
  const std::int64_t wait = board_.own().waiting ? waits_.load() : -1;
  waited_ = wait >= 0 && wait == watched_wait_ ? waited_ + seconds : 0;
  watched_wait_ = wait;
  if (waited_ < timeout_ + (self_.first_host ? 0 : courtesy)) return "";
  const auto& own = board_.own();
  return fmt::format("rank {} on {} has waited {:.0f} s (parallel.timeout) in {}, at {}{}", self_.rank,
                     self_.host, waited_, own.waits_in.get(), own.at.get(), others_at());
}

std::string Watchdog::failed_check() {
  for (const auto& [number, check] : checks_) {
    const auto failure = check();
    if (!failure.empty()) {
      return fmt::format("rank {} on {}: {}, at {}{}", self_.rank, self_.host, failure, board_.own().at.get(),
                         others_at());
    }
  }
  return "";
}

/// The ranks of this host that wait for nobody: one of them is being waited for.
std::string Watchdog::others_at() const {
  std::string text;
  for (int place = 0; place < board_.places(); ++place) {
    const auto& entry = board_.entry(place);
    if (place == board_.place() || entry.process == 0 || entry.waiting) continue;
    text += fmt::format("; rank {} has been at {} for {:.0f} s", entry.rank.load(), entry.at.get(),
                        static_cast<double>(now_ns() - entry.at_since) * 1e-9);
  }
  return text;
}

/// With mutex_ held.
void Watchdog::end_job(const std::string& message) {
  if (board_.may_report()) {
    const auto line = fmt::format("ratplus: {}; all ranks end\n", message);
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
    std::signal(SIGALRM, SIG_DFL);
    alarm(5);  // a file system that hangs does not keep the job
    if (tell_) tell_(message);
  } else {
    sleep(1);  // another rank of this host says it, and ends all
  }
  const bool in_mpi = !left_;
  leave();
  // The rank's own thread may be anywhere, in MPI too. MPI_Abort notifies the launcher, which ends the other hosts' ranks;
  // should it not come back, the alarm ends this one.
  std::signal(SIGALRM, SIG_DFL);
  alarm(2);
  if (in_mpi) MPI_Abort(MPI_COMM_WORLD, 1);
  _exit(1);
}

}  // namespace ratplus::parallel
