// EventStopwatch: Stopwatch by CUDA events.
#pragma once

#include <cuda_runtime_api.h>

#include <vector>

#include "kernels/cuda/checks.h"
#include "kernels/ops.h"

namespace ratplus::cuda {

class EventStopwatch final : public Stopwatch {
 public:
  explicit EventStopwatch(cudaStream_t stream) : stream_(stream) {}
  ~EventStopwatch() override {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  EventStopwatch(const EventStopwatch&) = delete;
  EventStopwatch& operator=(const EventStopwatch&) = delete;

  int mark() override { return mark(stream_); }

  /// A point in the order of another stream's work.
  int mark(cudaStream_t stream) {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreate(&event), "creating an event");
    events_.push_back(event);
    check_cuda(cudaEventRecord(event, stream), "recording an event");
    return static_cast<int>(events_.size()) - 1;
  }

  double seconds(int from, int to) override {
    const cudaEvent_t first = events_[static_cast<std::size_t>(from)],
                      last = events_[static_cast<std::size_t>(to)];
    check_cuda(cudaEventSynchronize(last), "an operation");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, first, last), "measuring");
    return milliseconds * 1e-3;
  }

 private:
  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;
};

}  // namespace ratplus::cuda
