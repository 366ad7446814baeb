#include <mpi.h>

#include <algorithm>
#include <climits>
#include <cstring>
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

/// Sums of bf16, which MPI does not know: each in f32, rounded to bf16, as NCCL's are.
void add_bf16(void* in, void* in_out, int* count, MPI_Datatype*) {
  const auto* x = static_cast<const bf16_t*>(in);
  auto* y = static_cast<bf16_t*>(in_out);
  for (int i = 0; i < *count; ++i) y[i] = cpu::to_bf16(cpu::to_float(x[i]) + cpu::to_float(y[i]));
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
    MPI_Op_create(&add_bf16, 1, &add_bf16_);
  }
  ~MpiCommunicator() override {
    // Collective, so not where this rank is on its way out alone.
    if (std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
    MPI_Op_free(&add_bf16_);
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
    const bool in_place = part.raw() == static_cast<char*>(full.raw()) + rank_ * part.bytes();
    const int ticket = new_ticket("reduce_scatter", subject, full);
    MPI_Ireduce_scatter_block(in_place ? MPI_IN_PLACE : full.raw(), in_place ? full.raw() : part.raw(),
                              mpi_count(part), mpi_type(part.dtype()), sum_of(part.dtype()), comm_,
                              request(ticket));
    if (in_place) operations_[static_cast<std::size_t>(ticket)].to_place = full;
    return {*this, ticket};
  }

  Request all_reduce(Tensor x, std::string_view subject) override {
    require(summed(x.dtype()), "all_reduce of {}", x.describe());
    if (size_ == 1) return {};
    const int ticket = new_ticket("all_reduce", subject, x);
    MPI_Iallreduce(MPI_IN_PLACE, x.raw(), mpi_count(x), mpi_type(x.dtype()), sum_of(x.dtype()), comm_,
                   request(ticket));
    return {*this, ticket};
  }

  void progress() override {
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
  };

  void wait(int ticket) override {
    auto& operation = operations_[static_cast<std::size_t>(ticket)];
    const int waiting = timeline_ == nullptr ? -1 : timeline_->stopwatch().mark();
    wait_for(operation.request, watchdog_, operation.kind, operation.subject);
    if (!operation.to_place.empty()) put_in_place(std::exchange(operation.to_place, {}));
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

  MPI_Op sum_of(DType dtype) const { return dtype == DType::bf16 ? add_bf16_ : MPI_SUM; }
  MPI_Request* request(int ticket) { return &operations_[static_cast<std::size_t>(ticket)].request; }

  /// A free place; places are reused, so that the steady state allocates none.
  int new_ticket(std::string_view kind, std::string_view subject, const Tensor& whole) {
    std::size_t i = 0;
    while (i < operations_.size() && operations_[i].under_way) ++i;
    if (i == operations_.size()) operations_.emplace_back();
    const int begun = timeline_ == nullptr ? -1 : timeline_->stopwatch().mark();
    operations_[i] = {MPI_REQUEST_NULL, true, kind, subject, whole.bytes(), begun};
    return static_cast<int>(i);
  }

  Watchdog& watchdog_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  MPI_Op add_bf16_ = MPI_OP_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::vector<Operation> operations_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(const World& world, const std::vector<int>& ranks) {
  return std::make_unique<MpiCommunicator>(world, ranks);
}

}  // namespace ratplus::parallel
