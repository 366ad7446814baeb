#include <mpi.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <deque>
#include <exception>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/bf16.h"
#include "parallel/communicator.h"
#include "parallel/mpi_wait.h"
#include "parallel/world.h"

namespace ratplus::parallel {
namespace {

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return MPI_FLOAT;
    case DType::bf16:
      return MPI_UINT16_T;
    case DType::i32:
      return MPI_INT32_T;
    case DType::u8:
      return MPI_UINT8_T;
    case DType::f64:
      return MPI_DOUBLE;
  }
  return MPI_DATATYPE_NULL;
}

/// MPI counts in int; a unit of a model is far below that (7b: 235 M elements a block).
int mpi_count(const Tensor& x) {
  require(x.contiguous() && x.numel() <= INT_MAX, "collective on {}", x.describe());
  return static_cast<int>(x.numel());
}

/// sum [n] = the terms [ranks, n] added in f32 in the order of the ranks, rounded.
void add_terms(const Tensor& sum, const std::vector<bf16_t>& terms) {
  const auto n = static_cast<std::size_t>(sum.numel());
  auto* out = sum.as<bf16_t>();
  for (std::size_t i = 0; i < n; ++i) {
    float total = cpu::to_float(terms[i]);
    for (std::size_t at = n + i; at < terms.size(); at += n) total += cpu::to_float(terms[at]);
    out[i] = cpu::to_bf16(total);
  }
}

bool summed(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16;
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(const World& world, const std::vector<int>& ranks) : watchdog_(world.watchdog()) {
    const auto place = std::find(ranks.begin(), ranks.end(), world.rank());
    require(place != ranks.end(), "rank {} connects a group that it is not in", world.rank());
    const Watchdog::Waiting waiting(watchdog_, "connecting the ranks");
    MPI_Comm_split(MPI_COMM_WORLD, ranks.front(), static_cast<int>(place - ranks.begin()), &comm_);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    MPI_Comm_dup(comm_, &gathers_);
  }
  ~MpiCommunicator() override {
    // Collective, so not where this rank is on its way out alone.
    if (std::uncaught_exceptions() > 0) return;
    MPI_Comm_free(&gathers_);
    MPI_Comm_free(&comm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Request all_gather(Tensor full, Tensor part, std::string_view subject) override {
    require(full.numel() == part.numel() * size_, "all_gather of {} from {}", full.describe(),
            part.describe());
    if (size_ == 1 && full.raw() == part.raw()) return {};
    const bool in_place = part.raw() == static_cast<char*>(full.raw()) + rank_ * part.bytes();
    const int ticket = new_ticket("all_gather", subject, full);
    MPI_Iallgather(in_place ? MPI_IN_PLACE : part.raw(), mpi_count(part), mpi_type(part.dtype()), full.raw(),
                   mpi_count(part), mpi_type(full.dtype()), comm_, request(ticket));
    return {*this, ticket};
  }

  Request reduce_scatter(Tensor part, Tensor full, std::string_view subject) override {
    require(full.numel() == part.numel() * size_ && full.dtype() == part.dtype() && summed(full.dtype()),
            "reduce_scatter of {} to {}", full.describe(), part.describe());
    if (full.dtype() == DType::bf16) {
      const int ticket = new_ticket("reduce_scatter", subject, full);
      exchange_terms(ticket, part, full);
      return {*this, ticket};
    }
    const bool in_place = part.raw() == static_cast<char*>(full.raw()) + rank_ * part.bytes();
    const int ticket = new_ticket("reduce_scatter", subject, full);
    MPI_Ireduce_scatter_block(in_place ? MPI_IN_PLACE : full.raw(), in_place ? full.raw() : part.raw(),
                              mpi_count(part), mpi_type(part.dtype()), MPI_SUM, comm_, request(ticket));
    if (in_place) operations_[static_cast<std::size_t>(ticket)].to_place = full;
    return {*this, ticket};
  }

  Request all_reduce(Tensor x, std::string_view subject) override {
    require(summed(x.dtype()), "all_reduce of {}", x.describe());
    if (size_ == 1) return {};
    const int ticket = new_ticket("all_reduce", subject, x);
    if (x.dtype() == DType::bf16) {
      require(x.numel() % size_ == 0, "all_reduce of {} over {} ranks", x.describe(), size_);
      const auto part = x.numel() / size_;
      exchange_terms(ticket, x.slice(0, rank_ * part, (rank_ + 1) * part), x);
      operations_[static_cast<std::size_t>(ticket)].to_gather = x;
      to_gather_.push_back(ticket);
      return {*this, ticket};
    }
    MPI_Iallreduce(MPI_IN_PLACE, x.raw(), mpi_count(x), mpi_type(x.dtype()), MPI_SUM, comm_, request(ticket));
    return {*this, ticket};
  }

  void progress() override {
    while (!to_gather_.empty()) {
      int done = 0;
      MPI_Test(request(to_gather_.front()), &done, MPI_STATUS_IGNORE);
      if (done == 0) break;
      gather_first();
    }
    for (const auto& operation : operations_) {
      if (!operation.under_way) continue;
      int done = 0;
      MPI_Request_get_status(operation.request, &done, MPI_STATUS_IGNORE);  // looks, and moves all of them on
      return;
    }
  }

 private:
  /// A collective that somebody holds a Request for.
  struct Operation {
    MPI_Request request = MPI_REQUEST_NULL;
    bool under_way = false;
    std::string_view kind;
    std::string_view subject;
    std::int64_t bytes = 0;
    int begun = -1;        ///< on the timeline, where one follows
    Tensor to_place = {};  ///< reduce_scatter in place: the whole
    // Sums of bf16:
    Tensor sum = {};                 ///< this rank's place of the sum
    Tensor to_gather = {};           ///< all_reduce whose terms are under way: the whole
    std::vector<bf16_t> terms = {};  ///< all ranks', of this rank's place
  };

  void wait(int ticket) override {
    auto& operation = operations_[static_cast<std::size_t>(ticket)];
    const int waiting = timeline_ == nullptr ? -1 : timeline_->stopwatch().mark();
    while (!operation.to_gather.empty()) {  // gathers start in the order of the calls, the same on all ranks
      auto& first = operations_[static_cast<std::size_t>(to_gather_.front())];
      wait_for(first.request, watchdog_, first.kind, first.subject);
      gather_first();
    }
    wait_for(operation.request, watchdog_, operation.kind, operation.subject);
    if (!operation.to_place.empty()) put_in_place(std::exchange(operation.to_place, {}));
    if (!operation.sum.empty()) add_terms(std::exchange(operation.sum, {}), operation.terms);
    operation.under_way = false;
    if (timeline_ == nullptr || operation.begun < 0) return;
    const int done = timeline_->stopwatch().mark();
    timeline_->add(lane_, operation.kind, operation.subject, operation.begun, done, operation.bytes);
    timeline_->add_wait(lane_, operation.kind, operation.subject, waiting, done);
  }

  /// MPI leaves a sum in place at the beginning, and elsewhere what it likes.
  void put_in_place(const Tensor& whole) const {
    const auto part = static_cast<std::size_t>(whole.bytes() / size_);
    auto* begin = static_cast<char*>(whole.raw());
    char* place = begin + static_cast<std::size_t>(rank_) * part;
    if (rank_ > 0) std::memcpy(place, begin, part);
    std::memset(begin, 0, static_cast<std::size_t>(place - begin));
    std::memset(place + part, 0, static_cast<std::size_t>(size_ - 1 - rank_) * part);
  }

  /// Starts to bring each rank all terms of its place of the sum of x, as they are: bf16.
  void exchange_terms(int ticket, const Tensor& sum, const Tensor& x) {
    auto& operation = operations_[static_cast<std::size_t>(ticket)];
    operation.sum = sum;
    operation.terms.resize(static_cast<std::size_t>(x.numel()));
    MPI_Ialltoall(x.raw(), mpi_count(sum), mpi_type(DType::bf16), operation.terms.data(), mpi_count(sum),
                  mpi_type(DType::bf16), comm_, &operation.request);
  }

  /// The terms of the first all_reduce of bf16 under way are here: adds them, and starts to gather the sums. By a
  /// communicator of its own, since another rank may exchange the terms of a later one first.
  void gather_first() {
    auto& operation = operations_[static_cast<std::size_t>(to_gather_.front())];
    to_gather_.pop_front();
    add_terms(std::exchange(operation.sum, {}), operation.terms);
    const Tensor whole = std::exchange(operation.to_gather, {});
    MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, whole.raw(), mpi_count(whole) / size_,
                   mpi_type(whole.dtype()), gathers_, &operation.request);
  }

  MPI_Request* request(int ticket) { return &operations_[static_cast<std::size_t>(ticket)].request; }

  /// A free place; places are reused, so that the steady state allocates none.
  int new_ticket(std::string_view kind, std::string_view subject, const Tensor& whole) {
    std::size_t i = 0;
    while (i < operations_.size() && operations_[i].under_way) ++i;
    if (i == operations_.size()) operations_.emplace_back();
    const int begun = timeline_ == nullptr ? -1 : timeline_->stopwatch().mark();
    operations_[i] = {MPI_REQUEST_NULL,
                      true,
                      kind,
                      subject,
                      whole.bytes(),
                      begun,
                      {},
                      {},
                      {},
                      std::move(operations_[i].terms)};
    return static_cast<int>(i);
  }

  Watchdog& watchdog_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  MPI_Comm gathers_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::vector<Operation> operations_;
  std::deque<int> to_gather_;  ///< all_reduces of bf16 whose terms are under way, in the order of the calls
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const World& world, const std::vector<int>& ranks) {
  return std::make_unique<MpiCommunicator>(world, ranks);
}

}  // namespace ratplus::parallel
