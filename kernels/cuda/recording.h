// GraphRecording: calls on one stream as a CUDA graph.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace ratplus::cuda {

/// Makes the calls themselves the first time, records them the second, and replays them from then on.
class GraphRecording final : public Recording {
 public:
  explicit GraphRecording(cudaStream_t stream) : stream_(stream) {}
  ~GraphRecording() override;
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;

  void run(const std::function<void()>& calls) override;

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
  bool made_ = false;
};

}  // namespace ratplus::cuda
