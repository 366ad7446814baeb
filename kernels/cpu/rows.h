// Elementwise operations see their tensors as rows of contiguous elements, cut into pieces for the threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "base/error.h"
#include "kernels/tensor.h"

namespace ratplus::cpu {

/// Elements that lie without gaps at the end of the shape.
inline std::int64_t contiguous_tail(const Tensor& tensor) {
  std::int64_t count = 1;
  for (int i = tensor.rank(); i-- > 0;) {
    if (tensor.size(i) != 1 && tensor.stride(i) != count) break;
    count *= tensor.size(i);
  }
  return count;
}

/// Length of the rows that are contiguous in each of these tensors, which have one shape.
inline std::int64_t common_row(std::initializer_list<Tensor> tensors) {
  std::int64_t row = tensors.begin()->numel();
  for (const Tensor& tensor : tensors) row = std::min(row, contiguous_tail(tensor));
  return row;
}

/// A tensor as rows [count, length] at any distance from each other.
class Rows {
 public:
  Rows(const Tensor& tensor, std::int64_t length)
      : data_(static_cast<std::byte*>(tensor.raw())), element_(size_of(tensor.dtype())) {
    // Leading dimensions, those of the row dropped; dimensions of one element do not count.
    std::int64_t within = 1;
    for (int i = tensor.rank(); i-- > 0;) {
      if (within < length) {
        within *= tensor.size(i);
      } else if (tensor.size(i) != 1) {
        sizes_[rank_] = tensor.size(i);
        strides_[rank_++] = tensor.stride(i);
      }
    }
  }

  template <typename T>
  T* row(std::int64_t i) const {
    std::int64_t offset = 0;
    for (std::size_t d = 0; d < rank_; ++d) {
      offset += i % sizes_[d] * strides_[d];
      i /= sizes_[d];
    }
    return reinterpret_cast<T*>(data_ + offset * element_);
  }

 private:
  std::byte* data_;
  std::int64_t element_;
  std::size_t rank_ = 0;
  std::array<std::int64_t, Tensor::max_rank> sizes_{};    ///< innermost first
  std::array<std::int64_t, Tensor::max_rank> strides_{};  ///< elements
};

/// Calls body(row, begin, end) for pieces of all rows, over the threads. Every element is in one piece.
template <typename Body>
void for_pieces(std::int64_t rows, std::int64_t length, int threads, Body&& body) {
  constexpr std::int64_t piece = 4096;        // elements: well above the price of a call, well below a cache
  constexpr std::int64_t worthwhile = 16384;  // elements: less is done sooner by one thread
  const std::int64_t pieces = (length + piece - 1) / piece;
#pragma omp parallel for schedule(static) num_threads(threads) if (rows * length > worthwhile)
  for (std::int64_t i = 0; i < rows * pieces; ++i) {
    const std::int64_t begin = i % pieces * piece;
    body(i / pieces, begin, std::min(begin + piece, length));
  }
}

}  // namespace ratplus::cpu
