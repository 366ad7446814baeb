// CacheRows: the keys and values of sequences in a cache's pages, for kernels.
#pragma once

#include <bit>
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
        page_bits(std::countr_zero(static_cast<unsigned>(cache.entries))),
        pages(static_cast<int>(most_pages)),
        head_dim(static_cast<int>(p)) {}

  /// The page of an entry; negative: none.
  __device__ __forceinline__ int page(const int* table, std::int64_t entry) const {
    return entry >= 0 && entry >> page_bits < pages ? table[entry >> page_bits] : -1;
  }
  __device__ __forceinline__ bool has(const int* table, std::int64_t entry) const {
    return page(table, entry) >= 0;
  }
  /// Head m of the cache: of a page the keys of its entries follow each other, then their values.
  __device__ __forceinline__ T* key_in_page(int page, int entry, int m) const {
    return data + page * stride + (m * 2 * entries + (entry & (entries - 1))) * head_dim;
  }
  __device__ __forceinline__ T* key(const int* table, std::int64_t entry, int m) const {
    const int e = static_cast<int>(entry);
    return key_in_page(table[e >> page_bits], e, m);
  }
  __device__ __forceinline__ T* value(const int* table, std::int64_t entry, int m) const {
    return key(table, entry, m) + entries * head_dim;
  }

  T* data;
  std::int64_t stride;
  const int* heads;
  int entries, page_bits, pages, head_dim;  ///< entries: 2^page_bits
};

}  // namespace ratplus::cuda
