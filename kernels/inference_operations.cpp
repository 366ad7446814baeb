#include "kernels/inference_operations.h"

#include <algorithm>
#include <span>
#include <utility>

#include "kernels/checks.h"

namespace ratplus::operation {
namespace {

void check_i32(const Target& target, const Tensor& x, CheckedShape shape, const char* op, const char* name) {
  check_tensor(x, target.kind, DType::i32, shape, op, name);
}

void check_cache(const Target& target, const CachePages& cache, std::int64_t heads, std::int64_t head_dim,
                 const char* op) {
  require(cache.pages.rank() == 2 && cache.heads.rank() == 1, "{}: no cache", op);
  const auto held = cache.heads.size(0);
  require(cache.entries == 8 || cache.entries == 16, "{}: pages of {} entries, not of 8 or 16", op,
          cache.entries);
  require(held <= heads, "{}: a cache of {} heads of {}", op, held, heads);
  check_tensor(cache.pages, target.kind, target.compute,
               {cache.pages.size(0), held * 2 * cache.entries * head_dim}, op, "pages");
  check_i32(target, cache.heads, {held}, op, "heads of the cache");
  validate(cache.pattern, op);
}

/// Rows [n, heads, P] of k and v.
void check_rows(const Target& target, const Tensor& k, const Tensor& v, const char* op) {
  require(k.rank() == 3, "{}: k has {} dimensions, not 3", op, k.rank());
  for (const auto& [x, which] : {std::pair{k, "k"}, std::pair{v, "v"}}) {
    check_tensor(x, target.kind, target.compute, {k.size(0), k.size(1), k.size(2)}, op, which);
  }
}

/// Bytes of k and v of this many entries of the cache.
double entry_bytes(const CachePages& cache, double entries) {
  const auto entry_elements = cache.pages.size(1) / cache.entries;
  return entries * static_cast<double>(entry_elements * size_of(cache.pages.dtype()));
}

}  // namespace

void PackWeight::check(const Target& target) const {
  require(w.rank() == 2, "{}: w has {} dimensions, not 2", name, w.rank());
  check_tensor(w, target.kind, target.type_of_weights(w), {w.size(0), w.size(1)}, name, "w");
  check_contiguous(w, name, "w");
}
Cost PackWeight::cost(const Target& target) const {
  return {.bytes = target.kind == DeviceKind::cpu ? bytes_of({w, w}) : 0};
}

void RowProduct::check(const Target& target) const {
  require(y.rank() == 2 && x.rank() == 2 && w.rank() == 2, "{}: a factor is no matrix", name);
  const auto rows = y.size(0), columns = y.size(1), inner = x.size(1);
  check_tensor(y, target.kind, y.dtype() == DType::f32 ? DType::f32 : target.compute, {rows, columns}, name,
               "y");
  check_tensor(x, target.kind, norm_weight ? DType::f32 : target.compute, {rows, inner}, name, "x");
  check_tensor(w, target.kind, target.type_of_weights(w), {columns, inner}, name, "w");
  if (norm_weight) check_tensor(norm_weight, target.kind, target.compute, {inner}, name, "norm_weight");
  if (residual) check_tensor(residual, target.kind, DType::f32, {rows, columns}, name, "residual");
  require(!residual || (!norm_weight && rows <= most_normed_rows), "{}: a residual of {} rows{}", name, rows,
          norm_weight ? ", with a norm" : "");
  check_contiguous(w, name, "w");
}
Cost RowProduct::cost(const Target& target) const {
  return {.part = Part::products,
          .pace = Pace::row_product,
          .operations = 2 * static_cast<double>(y.numel()) * static_cast<double>(x.size(1)),
          .bytes = bytes_of({y, x, w}),
          .tensor_cores = target.compute == DType::bf16};
}

void ProductChain::check(const Target& target) const {
  require(!products.empty(), "{}: no products", name);
  for (const auto& product : products) product.check(target);
}
Cost ProductChain::cost(const Target& target) const {
  Cost all = products.front().cost(target);
  if (products.front().y.size(0) == 1) all.pace = Pace::product_chain;
  all.links = static_cast<int>(std::ssize(products));
  for (const auto& product : std::span(products).subspan(1)) {
    const Cost one = product.cost(target);
    all.operations += one.operations, all.bytes += one.bytes;
  }
  return all;
}

void CacheAppend::check(const Target& target) const {
  check_rows(target, k, v, name);
  check_cache(target, cache, k.size(1), k.size(2), name);
  check_i32(target, table, {table.size(0)}, name, "table");
  require(first >= 0, "{}: the first token is at {}", name, first);
}
Cost CacheAppend::cost(const Target&) const {
  const auto layout = cache.layout();
  const auto end = first + k.size(0);
  const auto kept = std::min(layout.places(end), k.size(0));
  return {.part = Part::recurrence, .bytes = 2 * entry_bytes(cache, static_cast<double>(kept))};
}

void CacheGather::check(const Target& target) const {
  check_rows(target, k, v, name);
  check_cache(target, cache, k.size(1), k.size(2), name);
  check_i32(target, table, {table.size(0)}, name, "table");
  require(first >= 0 && first <= k.size(0), "{}: {} tokens of {} rows", name, first, k.size(0));
}
Cost CacheGather::cost(const Target&) const {
  const auto keys = cache.layout().runs(first).keys();
  return {.part = Part::recurrence, .bytes = 2 * entry_bytes(cache, static_cast<double>(keys))};
}

void MixerStep::check(const Target& target) const {
  require(z.rank() == 3 && v.rank() == 3, "{}: z or v is no row of heads", name);
  const auto batch = z.size(0), all_heads = z.size(1), head_dim = z.size(2), key_heads = v.size(1);
  const auto rows = [&](const Tensor& x, std::int64_t of, const char* which) {
    require(of > 0 && x.rank() == 3, "{}: {} is no row of heads", name, which);
    check_tensor(x, target.kind, target.compute, {batch, of, head_dim}, name, which);
  };
  rows(z, all_heads, "z"), rows(v, key_heads, "v");
  require(all_heads % key_heads == 0, "{}: {} heads share {} of keys", name, all_heads, key_heads);
  if (o) rows(o, all_heads, "o");
  require(q.empty() == k.empty(), "{}: queries without keys, or the reverse", name);
  check_i32(target, slots, {batch}, name, "slots");
  check_i32(target, positions, {batch}, name, "positions");
  require(chunk >= 0, "{}: chunks of {}", name, chunk);
  if (gated()) {
    rows(f, key_heads, "f");
    if (gate_bias) check_tensor(gate_bias, target.kind, DType::f32, {key_heads, head_dim}, name, "gate_bias");
    require(states.rank() == 4, "{}: a gate without states", name);
    check_tensor(states, target.kind, DType::f32, {states.size(0), 2, key_heads, head_dim}, name, "states");
  } else {
    require(gate_bias.empty() && chunk == 0, "{}: a bias or chunks without a gate", name);
  }
  if (!attends()) {
    require(all_heads == key_heads, "{}: values of {} heads for {}", name, key_heads, all_heads);
    return;
  }
  rows(q, q.rank() == 3 ? q.size(1) : 0, "q"), rows(k, k.rank() == 3 ? k.size(1) : 0, "k");
  require(all_heads % q.size(1) == 0 && key_heads % k.size(1) == 0 && (gated() || k.size(1) == key_heads),
          "{}: queries of {} heads and keys of {} for {} and {}", name, q.size(1), k.size(1), all_heads,
          key_heads);
  require(head_dim % 2 == 0 && rope.rank() == 3, "{}: no rotary table, or an odd head dimension", name);
  check_tensor(rope, target.kind, DType::f32, {rope.size(0), 2, head_dim / 2}, name, "rope");
  check_cache(target, cache, key_heads, head_dim, name);
  require(tables.rank() == 2, "{}: no tables", name);
  check_i32(target, tables, {tables.size(0), tables.size(1)}, name, "tables");
  check_i32(target, heads, {heads.rank() == 1 ? heads.size(0) : -1}, name, "heads");
  check_i32(target, first_heads, {cache.heads.size(0) + 1}, name, "first_heads");
  if (keeps_state) check_i32(target, keeps_state, {cache.heads.size(0)}, name, "keeps_state");
  require(most_keys >= 1, "{}: no key", name);
}
/// Of the largest number of keys.
Cost MixerStep::cost(const Target& target) const {
  const auto keys = static_cast<double>(most_keys) * static_cast<double>(z.size(0));
  const auto of_heads = attends() ? static_cast<double>(heads.size(0) * z.size(2)) : 0;
  const auto share = gated() ? bytes_of({states}) / static_cast<double>(states.size(0)) : 0;
  const bool dense = cache.pattern.dense() && attends();
  return {.part = dense       ? Part::dense_attention
                  : attends() ? Part::pattern_attention
                              : Part::recurrence,
          .pace = Pace::mixer_step,
          .operations = 4 * keys * of_heads,
          .bytes = bytes_of({z, o, q, k, v, f}) + 2 * share * static_cast<double>(z.size(0)) +
                   (attends() ? entry_bytes(cache, keys) : 0),
          .tensor_cores = target.compute == DType::bf16};
}

}  // namespace ratplus::operation
