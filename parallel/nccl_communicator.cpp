#include "parallel/nccl_communicator.h"

#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "kernels/cuda/checks.h"
#include "kernels/cuda/stream.h"
#include "kernels/error.h"

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

bool summed(DType dtype) {
  return dtype == DType::f32 || dtype == DType::bf16;
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const Ops& ops, const World& world, const std::vector<int>& ranks)
      : compute_(cuda::stream_of(ops)), size_(static_cast<int>(ranks.size())), world_(world) {
    const auto place = std::find(ranks.begin(), ranks.end(), world.rank());
    require(place != ranks.end(), "rank {} connects a group that it is not in", world.rank());
    rank_ = static_cast<int>(place - ranks.begin());
    const ncclUniqueId id = id_of_group(world, ranks.front());
    check(ncclCommInitRank(&comm_, size_, id, rank_), "connecting the ranks");
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    check_cuda(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming), "creating an event");
  }
  ~NcclCommunicator() override {
    if (std::uncaught_exceptions() == 0) {
      cudaStreamSynchronize(stream_);
      ncclCommDestroy(comm_);
    } else {
      ncclCommAbort(comm_);  // the other ranks may never join in what is under way
    }
    for (const auto& operation : operations_) cudaEventDestroy(operation.done);
    cudaEventDestroy(ready_);
    cudaStreamDestroy(stream_);
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Request all_gather(Tensor full, Tensor part, std::string_view) override {
    require(full.numel() == part.numel() * size_ && full.dtype() == part.dtype(), "all_gather of {} from {}",
            full.describe(), part.describe());
    return start("all_gather", [&] {
      return ncclAllGather(part.raw(), full.raw(), count(part), nccl_type(part.dtype()), comm_, stream_);
    });
  }

  Request reduce_scatter(Tensor part, Tensor full, std::string_view) override {
    require(full.numel() == part.numel() * size_ && full.dtype() == part.dtype() && summed(full.dtype()),
            "reduce_scatter of {} to {}", full.describe(), part.describe());
    return start("reduce_scatter", [&] {
      return ncclReduceScatter(full.raw(), part.raw(), count(part), nccl_type(part.dtype()), ncclSum, comm_,
                               stream_);
    });
  }

  Request all_reduce(Tensor x, std::string_view) override {
    require(summed(x.dtype()), "all_reduce of {}", x.describe());
    return start("all_reduce", [&] {
      return ncclAllReduce(x.raw(), x.raw(), count(x), nccl_type(x.dtype()), ncclSum, comm_, stream_);
    });
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
    const auto ids = world.exchange(std::string(id.internal, sizeof(id.internal)));
    const std::string& chosen = ids[static_cast<std::size_t>(first)];
    std::memcpy(id.internal, chosen.data(), sizeof(id.internal));
    return id;
  }

  /// A collective that somebody holds a Request for.
  struct Operation {
    cudaEvent_t done = nullptr;
    bool under_way = false;
  };

  void check(ncclResult_t result, const char* what) const {
    if (result == ncclSuccess) return;
    fail("NCCL: {} failed on rank {} ({}): {}; {}", what, world_.rank(), world_.host(),
         ncclGetErrorString(result), ncclGetLastError(comm_));
  }

  static std::size_t count(const Tensor& x) {
    require(x.contiguous(), "collective on {}", x.describe());
    return static_cast<std::size_t>(x.numel());
  }

  /// Orders a collective after all compute work given so far, and gives it.
  template <typename Launch>
  Request start(const char* what, Launch&& launch) {
    check_cuda(cudaEventRecord(ready_, compute_), what);
    check_cuda(cudaStreamWaitEvent(stream_, ready_, 0), what);
    check(launch(), what);
    const int ticket = new_ticket();
    check_cuda(cudaEventRecord(operations_[static_cast<std::size_t>(ticket)].done, stream_), what);
    return {*this, ticket};
  }

  /// Compute work given from now on comes after the collective; the host does not wait.
  void wait(int ticket) override {
    auto& operation = operations_[static_cast<std::size_t>(ticket)];
    check_cuda(cudaStreamWaitEvent(compute_, operation.done, 0), "waiting for a collective");
    operation.under_way = false;
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
  std::vector<Operation> operations_;
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(const Ops& ops, const World& world,
                                                     const std::vector<int>& ranks) {
  return std::make_unique<NcclCommunicator>(ops, world, ranks);
}

}  // namespace ratplus::parallel
