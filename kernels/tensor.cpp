#include "kernels/tensor.h"

#include <algorithm>

#include "base/error.h"

namespace ratplus {

std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::u8:
      return 1;
    case DType::f64:
      return 8;
  }
  return 0;
}

const char* to_string(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i32:
      return "i32";
    case DType::u8:
      return "u8";
    case DType::f64:
      return "f64";
  }
  return "?";
}

Tensor::Tensor(void* data, DType dtype, std::span<const std::int64_t> shape, Device device)
    : data_(data), dtype_(dtype), device_(device), rank_(static_cast<int>(shape.size())) {
  require(shape.size() <= max_rank, "a tensor has at most {} dimensions, not {}", int{max_rank},
          shape.size());
  std::int64_t stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    require(shape[i] >= 0, "dimension {} of a tensor is {}", i, shape[i]);
    shape_[i] = shape[i];
    strides_[i] = stride;
    stride *= shape[i];
  }
}

std::int64_t Tensor::numel() const {
  if (rank_ == 0) return 0;
  std::int64_t count = 1;
  for (const std::int64_t size : shape()) count *= size;
  return count;
}

bool Tensor::contiguous() const {
  std::int64_t stride = 1;
  for (std::size_t i = static_cast<std::size_t>(rank_); i-- > 0;) {
    if (shape_[i] != 1 && strides_[i] != stride) return false;
    stride *= shape_[i];
  }
  return true;
}

std::string Tensor::describe() const {
  if (rank_ == 0) return "empty";
  std::string text = fmt::format("{} [", ratplus::to_string(dtype_));
  for (int i = 0; i < rank_; ++i) text += fmt::format("{}{}", i == 0 ? "" : ", ", size(i));
  return text + "]";
}

Tensor Tensor::view(std::initializer_list<std::int64_t> shape) const {
  Tensor result(data_, dtype_, shape, device_);
  if (!contiguous() || result.numel() != numel()) {
    throw std::logic_error(fmt::format("{}{} cannot be viewed as {}", contiguous() ? "" : "strided ",
                                       describe(), result.describe()));
  }
  return result;
}

Tensor Tensor::slice(int dim, std::int64_t begin, std::int64_t end) const {
  require(dim >= 0 && dim < rank_, "dimension {} of a tensor of rank {}", dim, rank_);
  const auto d = static_cast<std::size_t>(dim);
  require(begin >= 0 && begin <= end && end <= shape_[d], "slice [{}, {}) of a dimension of {}", begin, end,
          shape_[d]);
  Tensor result = *this;
  if (data_) result.data_ = static_cast<std::byte*>(data_) + begin * strides_[d] * size_of(dtype_);
  result.shape_[d] = end - begin;
  return result;
}

Tensor Tensor::select(int dim, std::int64_t i) const {
  require(dim >= 0 && dim < rank_ && rank_ > 1, "cannot drop dimension {} of a tensor of rank {}", dim,
          rank_);
  Tensor result = slice(dim, i, i + 1);
  for (auto d = static_cast<std::size_t>(dim); d + 1 < static_cast<std::size_t>(rank_); ++d) {
    result.shape_[d] = result.shape_[d + 1];
    result.strides_[d] = result.strides_[d + 1];
  }
  --result.rank_;
  return result;
}

Tensor Tensor::split(int dim, std::int64_t inner) const {
  require(dim >= 0 && dim < rank_ && rank_ < max_rank, "cannot split dimension {} of a tensor of rank {}",
          dim, rank_);
  const auto d = static_cast<std::size_t>(dim), rank = static_cast<std::size_t>(rank_);
  require(inner > 0 && shape_[d] % inner == 0, "{} does not divide a dimension of {}", inner, shape_[d]);
  Tensor result = *this;
  for (std::size_t i = rank; i > d; --i) {
    result.shape_[i] = shape_[i - 1];
    result.strides_[i] = strides_[i - 1];
  }
  result.shape_[d] = shape_[d] / inner, result.shape_[d + 1] = inner;
  result.strides_[d] = strides_[d] * inner;
  ++result.rank_;
  return result;
}

Tensor Tensor::as_batch() const {
  require(rank_ > 0 && rank_ < max_rank, "no dimension before {}", describe());
  Tensor result = *this;
  std::copy_n(shape_.begin(), rank_, result.shape_.begin() + 1);
  std::copy_n(strides_.begin(), rank_, result.strides_.begin() + 1);
  result.shape_[0] = 1;
  result.strides_[0] = shape_[0] * strides_[0];
  ++result.rank_;
  return result;
}

void Tensor::check_dtype(DType wanted) const {
  require(dtype_ == wanted, "the elements of a tensor are {}, not {}", ratplus::to_string(dtype_),
          ratplus::to_string(wanted));
}

}  // namespace ratplus
