// RowProducts: operation::RowProduct by our own kernels, on Hopper.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "kernels/ops.h"

namespace ratplus::cuda {

class RowProducts {
 public:
  RowProducts();
  ~RowProducts();
  RowProducts(const RowProducts&) = delete;
  RowProducts& operator=(const RowProducts&) = delete;

  /// Whether this program has the kernels for the current GPU.
  static bool built();
  /// Whether the tensors are bf16 rows of whole 16 bytes; their number does not matter.
  static bool takes(const operation::RowProduct& call);
  /// Whether a product of so many rows may take their norm, or a residual.
  static bool norms(std::int64_t rows, std::int64_t inner);
  /// The call's arguments are checked; takes() is true, and built() as well.
  void run(const operation::RowProduct& call, cudaStream_t stream);

 private:
  struct Maps;
  template <typename Shape, bool normed = false>
  void launch(const operation::RowProduct& call, cudaStream_t stream);

  template <typename Shape>
  void launch_persistent(const operation::RowProduct& call, cudaStream_t stream);

  std::unique_ptr<Maps> maps_;
  int multiprocessors_ = 1;
};

}  // namespace ratplus::cuda
