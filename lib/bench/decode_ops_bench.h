// Times of the operations of a decode step: one token of each of some sequences.
#pragma once

#include <vector>

#include "lib/bench/ops_bench.h"

namespace ratplus::bench {

/// Products of a layer's weights with one row a sequence, and the step of RAT+'s mixer over caches of settings.tokens tokens, for
/// each number of sequences and each pattern.
std::vector<OpTime> time_decode_ops(Ops& ops, const OpsBenchSettings& settings);

}  // namespace ratplus::bench
