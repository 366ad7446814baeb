// Caches of keys and values (kernels/cache_layout.h).
#include <algorithm>

#include "kernels/cpu/cache_rows.h"
#include "kernels/cpu/cpu_ops.h"

namespace ratplus::cpu {

void CpuOps::compute(const operation::CacheAppend& call) {
  const CacheRows rows(call.cache, call.table, call.k.size(2));
  const CacheLayout layout = call.cache.layout();
  const std::int64_t tokens = call.k.size(0), end = call.first + tokens;
  const auto* heads = call.cache.heads.as<std::int32_t>();
#pragma omp parallel for schedule(static) num_threads(threads_)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t s = call.first + t;
    const bool recent = s < layout.sinks || s >= end - layout.window;
    for (const std::int64_t entry : {recent ? layout.recent_entry(s) : -1, layout.dilated_entry(s)}) {
      if (!rows.has(entry)) continue;
      for (std::int64_t m = 0; m < call.cache.heads.size(0); ++m) {
        rows.write(entry, m, head_row(call.k, t, heads[m]), head_row(call.v, t, heads[m]));
      }
    }
  }
}

void CpuOps::compute(const operation::CacheGather& call) {
  const CacheRows rows(call.cache, call.table, call.k.size(2));
  const CacheLayout layout = call.cache.layout();
  const auto runs = layout.runs(call.first);
  const auto* heads = call.cache.heads.as<std::int32_t>();
#pragma omp parallel for schedule(static) num_threads(threads_)
  for (std::int64_t j = 0; j < runs.keys(); ++j) {
    const std::int64_t entry = layout.entry(runs, j), s = layout.position(runs, j);
    for (std::int64_t m = 0; m < call.cache.heads.size(0); ++m) {
      rows.read(entry, m, head_row(call.k, s, heads[m]), head_row(call.v, s, heads[m]));
    }
  }
}

}  // namespace ratplus::cpu
