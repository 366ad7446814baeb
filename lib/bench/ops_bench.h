// Times of the operations of one layer, each beside its floor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace ratplus::bench {

struct OpsBenchSettings {
  std::int64_t batch = 1;
  std::int64_t tokens = 4096;
  std::int64_t width = 512;
  std::int64_t head_dim = 128;
  std::int64_t vocab_size = 8192;
  std::int64_t sequences = 8;  ///< of decode steps, beside one
  std::vector<Pattern> patterns = {{1, 0, 0}, {64, 0, 0}, {16, 0, 4}, {16, 256, 4}};
};

/// The best rates of this machine, measured by the backend itself.
struct Ceilings {
  double product_rate = 0;  ///< operations a second of a large matrix product
  double bandwidth = 0;     ///< bytes a second, read and written, of a large copy
  double to_host = 0;       ///< bytes a second from a GPU to locked pages of the host; 0 on a CPU
};

struct OpTime {
  std::string name;
  double forward = 0;     ///< seconds, median
  double backward = 0;    ///< seconds, median; 0 where there is none
  double operations = 0;  ///< both together: additions and multiplications that the mathematics needs
  double bytes = 0;       ///< both together: every tensor read or written once
  /// The larger of operations over the product rate and bytes over the bandwidth, in seconds.
  double floor(const Ceilings& ceilings) const;
};

Ceilings measure_ceilings(Ops& ops);
/// One entry an operation, in the order of the layer; attention once a pattern.
std::vector<OpTime> time_ops(Ops& ops, const OpsBenchSettings& settings);

}  // namespace ratplus::bench
