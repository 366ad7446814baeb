// CacheRows: the keys and values of one sequence in a cache's pages.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "kernels/inference_operations.h"

namespace ratplus::cpu {

/// One head's channels of row i of [rows, heads, P].
inline float* head_row(const Tensor& x, std::int64_t i, std::int64_t head) {
  return x.as<float>() + i * x.stride(0) + head * x.stride(1);
}

struct CacheRows {
  CacheRows(const operation::CachePages& cache, const std::int32_t* pages_of_sequence,
            std::int64_t most_pages, std::int64_t p)
      : data(cache.pages.as<float>()),
        stride(cache.pages.stride(0)),
        entries(cache.entries),
        head_dim(p),
        table(pages_of_sequence),
        pages(most_pages) {}
  CacheRows(const operation::CachePages& cache, const Tensor& sequence, std::int64_t p)
      : CacheRows(cache, sequence.as<std::int32_t>(), sequence.size(0), p) {}

  bool has(std::int64_t entry) const {
    return entry >= 0 && entry / entries < pages && table[entry / entries] >= 0;
  }
  /// Head m of a page: keys by channel [P, E], so that a query meets all entries at once, then values by entry [E, P].
  float* keys(std::int64_t entry, std::int64_t m) const {
    require(has(entry), "entry {} of a cache has no page", entry);
    return data + table[entry / entries] * stride + m * 2 * entries * head_dim;
  }
  float* values(std::int64_t entry, std::int64_t m) const { return keys(entry, m) + entries * head_dim; }
  void write(std::int64_t entry, std::int64_t m, const float* k, const float* v) const {
    float* to = keys(entry, m) + entry % entries;
    for (std::int64_t i = 0; i < head_dim; ++i) to[i * entries] = k[i];
    std::copy_n(v, head_dim, values(entry, m) + entry % entries * head_dim);
  }
  void read(std::int64_t entry, std::int64_t m, float* k, float* v) const {
    const float* from = keys(entry, m) + entry % entries;
    for (std::int64_t i = 0; i < head_dim; ++i) k[i] = from[i * entries];
    std::copy_n(values(entry, m) + entry % entries * head_dim, head_dim, v);
  }

  float* data;
  std::int64_t stride;
  std::int64_t entries;
  std::int64_t head_dim;
  const std::int32_t* table;
  std::int64_t pages;
};

}  // namespace ratplus::cpu
