// The output gate (docs/model.md, section 4) and GELU (docs/model.md, section 9).
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/rows.h"

namespace ratplus::cpu {
namespace {}  // namespace

void CpuOps::compute(const operation::OutputGateForward& call) {
  const Tensor &z = call.z, &a = call.a, &o = call.o;
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

void CpuOps::compute(const operation::OutputGateBackward& call) {
  const Tensor &da = call.da, &dgate = call.dgate, &dz = call.dz, &a = call.a, &o = call.o;
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

void CpuOps::compute(const operation::GeluForward& call) {
  const Tensor &z = call.z, &h = call.h;
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

void CpuOps::compute(const operation::GeluBackward& call) {
  const Tensor &dh = call.dh, &dz = call.dz, &h = call.h;
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
