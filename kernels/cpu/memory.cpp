// Copies, conversions, fills and sums of whole tensors.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/rows.h"

namespace ratplus::cpu {
namespace {

template <typename To, typename From, typename Convert>
void convert(Tensor dst, Tensor src, int threads, Convert&& one) {
  const std::int64_t length = common_row({dst, src});
  const Rows to(dst, length), from(src, length);
  for_pieces(dst.numel() / length, length, threads,
             [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
               To* out = to.row<To>(row);
               const From* in = from.row<From>(row);
#pragma omp simd
               for (std::int64_t i = begin; i < end; ++i) out[i] = one(in[i]);
             });
}

template <typename T>
void fill_with(Tensor x, T value, int threads) {
  const std::int64_t length = contiguous_tail(x);
  const Rows to(x, length);
  for_pieces(x.numel() / length, length, threads,
             [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
               std::fill(to.row<T>(row) + begin, to.row<T>(row) + end, value);
             });
}

}  // namespace

void CpuOps::compute(const operation::Copy& call) {
  const Tensor &dst = call.dst, &src = call.src;
  if (dst.numel() == 0) return;
  if (dst.dtype() == DType::f32 && src.dtype() == DType::bf16) {
    return convert<float, bf16_t>(dst, src, threads_, [](bf16_t x) { return to_float(x); });
  }
  if (dst.dtype() == DType::bf16 && src.dtype() == DType::f32) {
    return convert<bf16_t, float>(dst, src, threads_, [](float x) { return to_bf16(x); });
  }
  const std::int64_t length = common_row({dst, src});
  const std::int64_t element = size_of(dst.dtype());
  const Rows to(dst, length), from(src, length);
  for_pieces(
      dst.numel() / length, length, threads_, [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
        std::memcpy(to.row<std::byte>(row) + begin * element, from.row<std::byte>(row) + begin * element,
                    static_cast<std::size_t>((end - begin) * element));
      });
}

void CpuOps::compute(const operation::Fill& call) {
  const Tensor& x = call.x;
  const float value = call.value;
  if (x.numel() == 0) return;
  switch (x.dtype()) {
    case DType::f32:
      return fill_with(x, value, threads_);
    case DType::i32:
      return fill_with(x, static_cast<std::int32_t>(value), threads_);
    case DType::f64:
      return fill_with(x, static_cast<double>(value), threads_);
    default:
      require(false, "fill: {} is neither f32, f64 nor i32", to_string(x.dtype()));
  }
}

void CpuOps::compute(const operation::Add& call) {
  const Tensor &y = call.y, &x = call.x;
  if (y.numel() == 0) return;
  const std::int64_t length = common_row({y, x});
  const Rows to(y, length), from(x, length);
  for_pieces(y.numel() / length, length, threads_,
             [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
               float* out = to.row<float>(row);
               const float* in = from.row<float>(row);
#pragma omp simd
               for (std::int64_t i = begin; i < end; ++i) out[i] += in[i];
             });
}

void CpuOps::compute(const operation::Upload& call) {
  const Tensor& dst = call.dst;
  const void* host = call.host;
  if (dst.numel() > 0) std::memcpy(dst.raw(), host, static_cast<std::size_t>(dst.bytes()));
}

void CpuOps::compute(const operation::Download& call) {
  const Tensor& src = call.src;
  void* host = call.host;
  if (src.numel() > 0) std::memcpy(host, src.raw(), static_cast<std::size_t>(src.bytes()));
}

}  // namespace ratplus::cpu
