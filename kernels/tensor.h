// Tensor: a typed, strided view of memory that something else owns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/bf16.h"
#include "kernels/device.h"

namespace ratplus {

/// Element types. bf16 is stored as its 16 high bits of a float32.
enum class DType : std::uint8_t { f32, bf16, i32, u8, f64 };

std::int64_t size_of(DType dtype);  ///< bytes of one element
const char* to_string(DType dtype);

template <typename T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct dtype_of<bf16_t> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

/// A view of up to five dimensions. Strides count elements; a fresh view is contiguous, row-major. Copying a
/// Tensor copies the view, not the elements. A default-constructed Tensor is empty and stands for "absent".
class Tensor {
 public:
  static constexpr int max_rank = 5;

  Tensor() = default;
  Tensor(void* data, DType dtype, std::span<const std::int64_t> shape, Device device = {});
  Tensor(void* data, DType dtype, std::initializer_list<std::int64_t> shape, Device device = {})
      : Tensor(data, dtype, std::span(shape.begin(), shape.size()), device) {}

  bool empty() const { return data_ == nullptr; }
  explicit operator bool() const { return data_ != nullptr; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int rank() const { return rank_; }
  std::int64_t size(int dim) const { return shape_[static_cast<std::size_t>(dim)]; }
  std::int64_t stride(int dim) const { return strides_[static_cast<std::size_t>(dim)]; }
  std::span<const std::int64_t> shape() const { return {shape_.data(), static_cast<std::size_t>(rank_)}; }
  std::int64_t numel() const;
  std::int64_t bytes() const { return numel() * size_of(dtype_); }
  bool contiguous() const;
  std::string describe() const;  ///< "f32 [2, 4096, 2048]", for messages

  /// The elements, once the type is checked (std::logic_error otherwise).
  template <typename T>
  T* as() const {
    check_dtype(dtype_of<T>::value);
    return static_cast<T*>(data_);
  }
  void* raw() const { return data_; }

  /// The same elements under another shape; the view must be contiguous and the counts equal.
  Tensor view(std::initializer_list<std::int64_t> shape) const;
  /// Elements [begin, end) of dimension dim.
  Tensor slice(int dim, std::int64_t begin, std::int64_t end) const;
  /// The same elements with a leading dimension of 1.
  Tensor as_batch() const;
  /// Index i of dimension dim, which is dropped.
  Tensor select(int dim, std::int64_t i) const;
  /// Dimension dim of n elements as two, [n / inner, inner]; `inner` divides n.
  Tensor split(int dim, std::int64_t inner) const;

 private:
  void check_dtype(DType wanted) const;

  void* data_ = nullptr;
  DType dtype_ = DType::f32;
  Device device_{};
  int rank_ = 0;
  std::array<std::int64_t, max_rank> shape_{};
  std::array<std::int64_t, max_rank> strides_{};
};

}  // namespace ratplus
