#include "kernels/cuda/recording.h"

#include "kernels/cuda/checks.h"

namespace ratplus::cuda {

GraphRecording::~GraphRecording() {
  if (graph_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  cudaGraphExecDestroy(graph_);
}

void GraphRecording::run(const std::function<void()>& calls) {
  if (!made_) {
    calls();
    made_ = true;
    return;
  }
  if (graph_ == nullptr) {
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "recording operations");
    cudaGraph_t graph = nullptr;
    try {
      calls();
    } catch (...) {
      cudaStreamEndCapture(stream_, &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream_, &graph), "recording operations");
    const auto status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(status, "recording operations");
  }
  check_cuda(cudaGraphLaunch(graph_, stream_), "replaying operations");
}

}  // namespace ratplus::cuda
