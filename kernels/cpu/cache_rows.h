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
  CacheRows(const operation::CachePages& cache, const std::int32_t* pages_of_sequence, std::int64_t most_pages,
            std::int64_t p)
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
  /// Head m of the cache; the entries of a page follow each other.
  float* key(std::int64_t entry, std::int64_t m) const { return page(entry, m) + entry % entries * head_dim; }
  float* value(std::int64_t entry, std::int64_t m) const { return key(entry, m) + entries * head_dim; }
  void write(std::int64_t entry, std::int64_t m, const float* k, const float* v) const {
    std::copy_n(k, head_dim, key(entry, m));
    std::copy_n(v, head_dim, value(entry, m));
  }

  float* data;
  std::int64_t stride;
  std::int64_t entries;
  std::int64_t head_dim;
  const std::int32_t* table;
  std::int64_t pages;

 private:
  float* page(std::int64_t entry, std::int64_t m) const {
    require(has(entry), "entry {} of a cache has no page", entry);
    return data + table[entry / entries] * stride + m * 2 * entries * head_dim;
  }
};

}  // namespace ratplus::cpu
