// Caches of keys and values (kernels/cache_layout.h): a sequence's tokens into its pages, and back to their positions.
#include "kernels/cuda/cache_rows.cuh"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/launch.h"

namespace ratplus::cuda {
namespace {

constexpr int threads = 128;

/// Rows of k and v [n, heads, P].
template <typename T>
struct TokenRows {
  T *k, *v;
  std::int64_t k_row, k_head, v_row, v_head;
};

template <typename T>
TokenRows<T> token_rows(const Tensor& k, const Tensor& v) {
  return {elements<T>(k), elements<T>(v), k.stride(0), k.stride(1), v.stride(0), v.stride(1)};
}

/// Block (t, m): one token's head m of the cache.
template <typename T>
__global__ void __launch_bounds__(threads)
    append_kernel(CacheRows<T> cache, CacheLayout layout, const int* table, TokenRows<T> rows,
                  std::int64_t first, std::int64_t end) {
  const std::int64_t t = blockIdx.x, s = first + t;
  const int m = static_cast<int>(blockIdx.y), head = cache.heads[m];
  const bool recent = s < layout.sinks || s >= end - layout.window;
  const std::int64_t entries[2] = {recent ? layout.recent_entry(s) : -1, layout.dilated_entry(s)};
  for (const std::int64_t entry : entries) {
    if (!cache.has(table, entry)) continue;
    T* key = cache.key(table, entry, m);
    T* value = cache.value(table, entry, m);
    for (int i = static_cast<int>(threadIdx.x); i < cache.head_dim; i += threads) {
      key[i] = rows.k[t * rows.k_row + head * rows.k_head + i];
      value[i] = rows.v[t * rows.v_row + head * rows.v_head + i];
    }
  }
}

/// Block (j, m): key j of those that the query at `first` attends to.
template <typename T>
__global__ void __launch_bounds__(threads)
    gather_kernel(TokenRows<T> rows, CacheRows<T> cache, CacheLayout layout, const int* table,
                  std::int64_t first) {
  const int m = static_cast<int>(blockIdx.y), head = cache.heads[m];
  const auto runs = layout.runs(first);
  const std::int64_t j = blockIdx.x;
  const std::int64_t s = layout.position(runs, j), entry = layout.entry(runs, j);
  const T *key = cache.key(table, entry, m), *value = cache.value(table, entry, m);
  for (int i = static_cast<int>(threadIdx.x); i < cache.head_dim; i += threads) {
    rows.k[s * rows.k_row + head * rows.k_head + i] = key[i];
    rows.v[s * rows.v_row + head * rows.v_head + i] = value[i];
  }
}

}  // namespace

void CudaOps::compute(const operation::CacheAppend& call) {
  const std::int64_t tokens = call.k.size(0), heads = call.cache.heads.size(0);
  if (tokens * heads == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    append_kernel<T>
        <<<dim3(static_cast<unsigned>(tokens), static_cast<unsigned>(heads)), threads, 0, stream_>>>(
            CacheRows<T>(call.cache, call.table.size(0), call.k.size(2)), call.cache.layout(),
            call.table.as<std::int32_t>(), token_rows<T>(call.k, call.v), call.first, call.first + tokens);
  });
  check_launch(call.name);
}

void CudaOps::compute(const operation::CacheGather& call) {
  const std::int64_t keys = call.cache.layout().runs(call.first).keys(), heads = call.cache.heads.size(0);
  if (keys * heads == 0) return;
  with_type(compute_, [&](auto type) {
    using T = decltype(type);
    gather_kernel<T>
        <<<dim3(static_cast<unsigned>(keys), static_cast<unsigned>(heads)), threads, 0, stream_>>>(
            token_rows<T>(call.k, call.v), CacheRows<T>(call.cache, call.table.size(0), call.k.size(2)),
            call.cache.layout(), call.table.as<std::int32_t>(), call.first);
  });
  check_launch(call.name);
}

}  // namespace ratplus::cuda
