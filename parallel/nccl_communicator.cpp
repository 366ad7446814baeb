#include "parallel/nccl_communicator.h"

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/stopwatch.h"
#include "kernels/cuda/stream.h"

namespace ratplus::parallel {
namespace {

using cuda::check_cuda;

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i32:
      return ncclInt32;
    case DType::u8:
      return ncclUint8;
    case DType::f64:
      return ncclFloat64;
  }
  return ncclUint8;
}

bool sums_by_nccl(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16;
}

/// The collectives of a stream that the GPU has not finished yet, for the watchdog. The host runs ahead of the GPU, so the
/// time of a collective counts from when the GPU comes to it.
class CollectiveWatch {
 public:
  explicit CollectiveWatch(int device) : device_(device) {}
  ~CollectiveWatch() {
    for (auto& collective : under_way_) spare_.push_back(std::move(collective));
    for (const auto& collective : spare_) {
      cudaEventDestroy(collective.begun);
      cudaEventDestroy(collective.done);
    }
  }
  CollectiveWatch(const CollectiveWatch&) = delete;
  CollectiveWatch& operator=(const CollectiveWatch&) = delete;

  /// Calls launch, which gives a collective to the stream.
  template <typename Launch>
  void launch(cudaStream_t stream, const char* kind, std::string_view subject, Launch&& give) {
    const std::lock_guard lock(mutex_);
    if (spare_.empty()) {
      Collective fresh;
      check_cuda(cudaEventCreate(&fresh.begun), "creating an event");  // with times, for take_seconds()
      check_cuda(cudaEventCreate(&fresh.done), "creating an event");
      spare_.push_back(std::move(fresh));
    }
    Collective next = std::move(spare_.back());
    spare_.pop_back();
    next.kind = kind;
    next.subject = subject;
    check_cuda(cudaEventRecord(next.begun, stream), kind);
    give();
    check_cuda(cudaEventRecord(next.done, stream), kind);
    under_way_.push_back(std::move(next));
  }

  /// Seconds, since the last call, of collectives that have ended: from when this GPU came to one until all others had
  /// come and the data were there. A GPU that is slow comes last, and waits least. On the watching thread.
  double take_seconds() { return std::exchange(finished_, 0); }

  /// On the watching thread: what has gone wrong, if anything.
  std::string look(double timeout) {
    const auto now = std::chrono::steady_clock::now();
    const double passed = std::min(std::chrono::duration<double>(now - looked_).count(), 1.0);
    looked_ = now;
    // Not while the host gives collectives: that may take long, and is watched by itself.
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock) return "";
    cudaSetDevice(device_);  // of this thread: else it would open another GPU
    bool same = true;
    while (!under_way_.empty() && cudaEventQuery(under_way_.front().done) == cudaSuccess) {
      float milliseconds = 0;
      if (cudaEventElapsedTime(&milliseconds, under_way_.front().begun, under_way_.front().done) ==
          cudaSuccess)
        finished_ += 1e-3 * milliseconds;
      spare_.push_back(std::move(under_way_.front()));
      under_way_.pop_front();
      same = false;
    }
    const bool running = !under_way_.empty() && cudaEventQuery(under_way_.front().begun) == cudaSuccess;
    seconds_ = running && same ? seconds_ + passed : 0;
    if (seconds_ < timeout) return "";
    return fmt::format("{} of {} has not ended in {:.0f} s (parallel.timeout)", under_way_.front().kind,
                       under_way_.front().subject, seconds_);
  }

 private:
  struct Collective {
    cudaEvent_t begun = nullptr;
    cudaEvent_t done = nullptr;
    const char* kind = "";
    std::string subject;
  };

  int device_;
  std::mutex mutex_;
  std::deque<Collective> under_way_;  ///< in the order of the stream
  std::vector<Collective> spare_;
  double seconds_ = 0;   ///< that the first of them has run
  double finished_ = 0;  ///< of those that have ended
  std::chrono::steady_clock::time_point looked_ = std::chrono::steady_clock::now();
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const Ops& ops, const World& world, const std::vector<int>& ranks)
      : compute_(cuda::stream_of(ops)),
        size_(static_cast<int>(ranks.size())),
        world_(world),
        watch_(ops.device().index) {
    const auto place = std::find(ranks.begin(), ranks.end(), world.rank());
    require(place != ranks.end(), "rank {} connects a group that it is not in", world.rank());
    rank_ = static_cast<int>(place - ranks.begin());
    const ncclUniqueId id = id_of_group(world, ranks.front());
    {
      const Watchdog::Waiting waiting(world.watchdog(), "connecting the GPUs");
      check(ncclCommInitRank(&comm_, size_, id, rank_), "connecting the GPUs");
    }
    // Of the highest priority: a collective that is given beside a large product gets the next processors that are free,
    // and not those that are left when the product has ended.
    int lowest = 0;
    int highest = 0;
    check_cuda(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "looking up the priorities of streams");
    check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest), "creating a stream");
    check_cuda(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming), "creating an event");
    check_ = world.watchdog().add_check([this] { return look(); });
  }
  ~NcclCommunicator() override {
    const bool in_order = std::uncaught_exceptions() == 0;
    if (in_order) cudaStreamSynchronize(stream_);
    world_.watchdog().remove_check(check_);
    {
      const Watchdog::Waiting waiting(world_.watchdog(), "disconnecting the GPUs");
      if (in_order) ncclCommDestroy(comm_);
      if (!in_order) ncclCommAbort(comm_);  // the other ranks may never join in what is under way
    }
    for (const auto& operation : operations_) cudaEventDestroy(operation.done);
    cudaEventDestroy(ready_);
    cudaStreamDestroy(stream_);
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Request all_gather(Tensor full, Tensor part, std::string_view subject) override {
    require(full.numel() == part.numel() * size_ && full.dtype() == part.dtype(), "all_gather of {} from {}",
            full.describe(), part.describe());
    return start("all_gather", subject, full, [&] {
      return ncclAllGather(part.raw(), full.raw(), count(part), nccl_type(part.dtype()), comm_, stream_);
    });
  }

  Request reduce_scatter(Tensor part, Tensor full, std::string_view subject) override {
    require(
        full.numel() == part.numel() * size_ && full.dtype() == part.dtype() && sums_by_nccl(full.dtype()),
        "reduce_scatter of {} to {}", full.describe(), part.describe());
    return start("reduce_scatter", subject, full, [&] {
      return ncclReduceScatter(full.raw(), part.raw(), count(part), nccl_type(part.dtype()), ncclSum, comm_,
                               stream_);
    });
  }

  Request all_reduce(Tensor x, std::string_view subject) override {
    require(sums_by_nccl(x.dtype()), "all_reduce of {}", x.describe());
    return start("all_reduce", subject, x, [&] {
      return ncclAllReduce(x.raw(), x.raw(), count(x), nccl_type(x.dtype()), ncclSum, comm_, stream_);
    });
  }

  /// The streams wait for each other, and the computation for neither.
  Request all_reduce_after(Request before, Tensor x, std::string_view subject) override {
    if (auto* other = dynamic_cast<NcclCommunicator*>(communicator_of(before))) {
      auto& operation = other->operations_[static_cast<std::size_t>(ticket_of(before))];
      check_cuda(cudaStreamWaitEvent(stream_, operation.done, 0), "waiting for a collective");
      operation.under_way = false;
      drop(before);
    }
    before.wait();
    return all_reduce(x, subject);
  }

 private:
  /// The id by which a group finds itself; its first rank makes it.
  static ncclUniqueId id_of_group(const World& world, int first) {
    ncclUniqueId id{};
    world.agree([&] {
      if (world.rank() == first && ncclGetUniqueId(&id) != ncclSuccess) {
        fail("NCCL: cannot start on {} ({})", world.host(), ncclGetLastError(nullptr));
      }
    });
    const auto ids = world.all(std::string(id.internal, sizeof(id.internal)));
    const std::string& chosen = ids[static_cast<std::size_t>(first)];
    std::memcpy(id.internal, chosen.data(), sizeof(id.internal));
    return id;
  }

  /// A collective that somebody holds a Request for.
  struct Operation {
    cudaEvent_t done = nullptr;
    bool under_way = false;
    const char* kind = "";
    std::string_view subject;
  };

  void check(ncclResult_t result, const char* what) const {
    if (result == ncclSuccess) return;
    fail("NCCL: {} failed on rank {} ({}): {}; {}", what, world_.rank(), world_.host(),
         ncclGetErrorString(result), ncclGetLastError(comm_));
  }

  /// For the watchdog, on its thread.
  std::string look() {
    ncclResult_t state = ncclSuccess;
    ncclCommGetAsyncError(comm_, &state);
    if (state != ncclSuccess && state != ncclInProgress) {
      return fmt::format("NCCL: {}; {}", ncclGetErrorString(state), ncclGetLastError(comm_));
    }
    const auto failure = watch_.look(world_.watchdog().timeout());
    world_.watchdog().add_waited(watch_.take_seconds());
    return failure;
  }

  static std::size_t count(const Tensor& x) {
    require(x.contiguous(), "collective on {}", x.describe());
    return static_cast<std::size_t>(x.numel());
  }

  /// Orders a collective of `whole` after all compute work given so far, and gives it.
  template <typename Launch>
  Request start(const char* what, std::string_view subject, const Tensor& whole, Launch&& launch) {
    check_cuda(cudaEventRecord(ready_, compute_), what);
    check_cuda(cudaStreamWaitEvent(stream_, ready_, 0), what);
    const int begun = timeline_ == nullptr ? 0 : mark(stream_);
    watch_.launch(stream_, what, subject, [&] {
      const Watchdog::Waiting waiting(world_.watchdog(), what, subject);  // the first ones connect the GPUs
      check(launch(), what);
    });
    if (timeline_ != nullptr) timeline_->add(lane_, what, subject, begun, mark(stream_), whole.bytes());
    const int ticket = new_ticket();
    auto& operation = operations_[static_cast<std::size_t>(ticket)];
    operation.kind = what;
    operation.subject = subject;
    check_cuda(cudaEventRecord(operation.done, stream_), what);
    return {*this, ticket};
  }

  /// Compute work given from now on comes after the collective; the host does not wait.
  void wait(int ticket) override {
    auto& operation = operations_[static_cast<std::size_t>(ticket)];
    const int begun = timeline_ == nullptr ? 0 : mark(compute_);
    check_cuda(cudaStreamWaitEvent(compute_, operation.done, 0), "waiting for a collective");
    if (timeline_ != nullptr) {
      timeline_->add_wait(lane_, operation.kind, operation.subject, begun, mark(compute_));
    }
    operation.under_way = false;
  }

  /// A point on a stream for the timeline, whose stopwatch is this GPU's.
  int mark(cudaStream_t stream) const {
    return dynamic_cast<cuda::EventStopwatch&>(timeline_->stopwatch()).mark(stream);
  }

  /// A free place; places are reused, so that the steady state allocates none.
  int new_ticket() {
    std::size_t i = 0;
    while (i < operations_.size() && operations_[i].under_way) ++i;
    if (i == operations_.size()) {
      operations_.emplace_back();
      check_cuda(cudaEventCreateWithFlags(&operations_[i].done, cudaEventDisableTiming), "creating an event");
    }
    operations_[i].under_way = true;
    return static_cast<int>(i);
  }

  cudaStream_t compute_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t ready_ = nullptr;
  ncclComm_t comm_ = nullptr;
  int rank_ = 0;
  int size_ = 1;
  const World& world_;
  CollectiveWatch watch_;
  int check_ = 0;  ///< of the watchdog
  std::vector<Operation> operations_;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(const Ops& ops, const World& world,
                                                     const std::vector<int>& ranks) {
  return std::make_unique<NcclCommunicator>(ops, world, ranks);
}

std::string nccl_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "";
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

}  // namespace ratplus::parallel
