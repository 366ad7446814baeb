// The output gate (docs/model.md, section 4) and GELU (docs/model.md, section 9).
#include "kernels/cpu/checks.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"

namespace ratplus::cpu {
namespace {

void check_same(std::initializer_list<Tensor> tensors, const char* op) {
  const Tensor& first = *tensors.begin();
  for (const Tensor& tensor : tensors) {
    require(tensor.dtype() == DType::f32 && tensor.device().kind == DeviceKind::cpu,
            "{}: a tensor is not f32 on cpu", op);
    require(std::ranges::equal(tensor.shape(), first.shape()), "{}: tensors differ in shape", op);
    require(tensor.empty() == (tensor.numel() == 0), "{}: a tensor is missing", op);
  }
}

}  // namespace

void CpuOps::output_gate_forward(Tensor z, Tensor a, Tensor o) {
  check_same({z, a, o}, "output_gate_forward");
  if (z.numel() == 0) return;
  const std::int64_t length = common_row({z, a, o});
  const Rows z_rows(z, length), a_rows(a, length), o_rows(o, length);
  for_pieces(z.numel() / length, length, threads_,
             [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
               float* out = z_rows.row<float>(row);
               const float* value = a_rows.row<float>(row);
               const float* gate = o_rows.row<float>(row);
#pragma omp simd
               for (std::int64_t i = begin; i < end; ++i) out[i] = value[i] * sigmoid(gate[i]);
             });
}

void CpuOps::output_gate_backward(Tensor da, Tensor dgate, Tensor dz, Tensor a, Tensor o) {
  check_same({da, dgate, dz, a, o}, "output_gate_backward");
  if (da.numel() == 0) return;
  const std::int64_t length = common_row({da, dgate, dz, a, o});
  const Rows da_rows(da, length), dgate_rows(dgate, length), dz_rows(dz, length);
  const Rows a_rows(a, length), o_rows(o, length);
  for_pieces(da.numel() / length, length, threads_,
             [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
               float* dvalue = da_rows.row<float>(row);
               float* dopening = dgate_rows.row<float>(row);
               const float* dout = dz_rows.row<float>(row);
               const float* value = a_rows.row<float>(row);
               const float* gate = o_rows.row<float>(row);
#pragma omp simd
               for (std::int64_t i = begin; i < end; ++i) {
                 const float g = sigmoid(gate[i]);
                 const float d = dout[i];
                 dvalue[i] = d * g;
                 dopening[i] = d * value[i] * (g * (1.0f - g));
               }
             });
}

void CpuOps::gelu_forward(Tensor z, Tensor h) {
  check_same({z, h}, "gelu_forward");
  if (z.numel() == 0) return;
  const std::int64_t length = common_row({z, h});
  const Rows z_rows(z, length), h_rows(h, length);
  for_pieces(z.numel() / length, length, threads_,
             [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
               float* out = z_rows.row<float>(row);
               const float* in = h_rows.row<float>(row);
#pragma omp simd
               for (std::int64_t i = begin; i < end; ++i) out[i] = in[i] * normal(in[i]).cdf;
             });
}

void CpuOps::gelu_backward(Tensor dh, Tensor dz, Tensor h) {
  check_same({dh, dz, h}, "gelu_backward");
  if (dh.numel() == 0) return;
  const std::int64_t length = common_row({dh, dz, h});
  const Rows dh_rows(dh, length), dz_rows(dz, length), h_rows(h, length);
  for_pieces(dh.numel() / length, length, threads_,
             [&](std::int64_t row, std::int64_t begin, std::int64_t end) {
               float* din = dh_rows.row<float>(row);
               const float* dout = dz_rows.row<float>(row);
               const float* in = h_rows.row<float>(row);
#pragma omp simd
               for (std::int64_t i = begin; i < end; ++i) {
                 const Normal n = normal(in[i]);  // gelu'(h) = Phi(h) + h phi(h)
                 din[i] = dout[i] * (n.cdf + in[i] * n.pdf);
               }
             });
}

}  // namespace ratplus::cpu
