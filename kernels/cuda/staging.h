// Staging: pinned host memory through which small uploads go, so that they neither wait for the GPU nor make it
// wait for the host.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

namespace ratplus::cuda {

class Staging {
 public:
  /// The largest upload it takes: the tokens of a micro-batch are far below.
  static constexpr std::int64_t slot_bytes = std::int64_t{1} << 20;

  Staging();
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Copies `bytes` of host memory, at most slot_bytes; the host's memory is free on return.
  void upload(void* device, const void* host, std::int64_t bytes, cudaStream_t stream);

 private:
  struct Slot {
    void* memory = nullptr;
    cudaEvent_t copied = nullptr;
  };
  std::array<Slot, 4> slots_{};
  std::size_t next_ = 0;
};

}  // namespace ratplus::cuda
