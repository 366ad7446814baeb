// CacheRows: the keys and values of sequences in a cache's pages, for kernels.
#pragma once

#include <cstdint>

#include "kernels/cuda/vector.cuh"
#include "kernels/inference_operations.h"

namespace ratplus::cuda {

template <typename T>
struct CacheRows {
  CacheRows(const operation::CachePages& cache, std::int64_t most_pages, std::int64_t p)
      : data(elements<T>(cache.pages)),
        stride(cache.pages.stride(0)),
        heads(cache.heads.empty() ? nullptr : cache.heads.as<std::int32_t>()),
        entries(static_cast<int>(cache.entries)),
        pages(static_cast<int>(most_pages)),
        head_dim(static_cast<int>(p)) {}

  __device__ __forceinline__ bool has(const int* table, std::int64_t entry) const {
    return entry >= 0 && entry / entries < pages && table[entry / entries] >= 0;
  }
  /// Head m of the cache; the entries of a page follow each other.
  __device__ __forceinline__ T* key(const int* table, std::int64_t entry, int m) const {
    const int e = static_cast<int>(entry);
    return data + table[e / entries] * stride + (m * 2 * entries + e % entries) * head_dim;
  }
  __device__ __forceinline__ T* value(const int* table, std::int64_t entry, int m) const {
    return key(table, entry, m) + entries * head_dim;
  }

  T* data;
  std::int64_t stride;
  const int* heads;
  int entries, pages, head_dim;
};

}  // namespace ratplus::cuda
