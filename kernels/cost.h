// Cost: the operations and bytes of one call. Each operation states its own (kernels/operations.h); the benchmarks, the
// plan of a step and its share of peak read them.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/tensor.h"

namespace ratplus {

/// The part of a training step to which a call belongs, as `ratplus plan` and `ratplus bench step` list them.
enum class Part : std::uint8_t {
  products,
  dense_attention,
  pattern_attention,
  recurrence,
  norms,
  gelu,
  gate,
  loss,
  sums,
  update,
  transfer  ///< between host and device, beside the computation
};
inline constexpr int part_count = 10;  ///< without transfer
const char* to_string(Part part);

/// The measured rate that a call runs at (lib/plan/speeds.h): of copies, of norms, ...
enum class Pace : std::uint8_t {
  copy,
  norm,
  recurrence,
  gate,
  gelu,
  loss,
  sum,
  adamw,
  product,
  row_product,    ///< of inference, whose blocks wait for the rows before
  product_chain,  ///< several of one row in one kernel
  mixer_step,
  attention_forward,
  attention_backward
};

struct Cost {
  Part part = Part::sums;
  Pace pace = Pace::copy;
  double operations = 0;    ///< additions and multiplications that are carried out, repeated ones included
  double bytes = 0;         ///< of each tensor, once for each time that it is read or written
  double keys_a_query = 0;  ///< of attention: the mean number that a query attends to
  bool dense_over_chunks =
      false;                 ///< attention under (D, 0, 0) as dense attention (AttentionForward::dense_chunk)
  int links = 1;             ///< products of a call, one after the other
  bool tensor_cores = true;  ///< false where a GPU's kernel for this call cannot use them
};

/// Sum of the bytes of the tensors that are there. A tensor that is read and written is given twice.
inline double bytes_of(std::initializer_list<Tensor> tensors) {
  double bytes = 0;
  for (const auto& x : tensors) bytes += x ? static_cast<double>(x.bytes()) : 0;
  return bytes;
}

}  // namespace ratplus
