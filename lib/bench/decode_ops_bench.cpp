#include "lib/bench/decode_ops_bench.h"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "lib/bench/operation_timer.h"
#include "lib/model/linear.h"

namespace ratplus::bench {
namespace {

/// Weights [out, in] by turns, of so many bytes together that no cache holds them until they come again; of a matrix below 16 KiB
/// (64 on a GPU) 4096, which some cache may hold.
class Weights {
 public:
  Weights(Ops& ops, RandomTensors& random, std::int64_t out, std::int64_t in) {
    const auto bytes = out * in * size_of(ops.compute_type());
    const std::int64_t most = ops.device().kind == DeviceKind::cuda ? 256 << 20 : 64 << 20;
    const auto count = std::min<std::int64_t>((most + bytes - 1) / bytes, 4096);
    for (std::int64_t i = 0; i < count; ++i) w_.push_back(random.compute({out, in}));
  }
  const Tensor& next() { return w_[++turn_ % w_.size()]; }

 private:
  std::vector<Tensor> w_;
  std::size_t turn_ = 0;
};

std::vector<OpTime> time_products(Ops& ops, const OpsBenchSettings& s, std::int64_t batch) {
  const auto d = s.width;
  std::vector<OpTime> times;
  struct Product {
    std::int64_t out, in;
    const char* name;
  };
  for (const Product& product :
       {Product{5 * d, d, "[d,5d]"}, Product{d, d, "[d,d]"}, Product{4 * d, d, "[d,4d]"},
        Product{d, 4 * d, "[4d,d]"}, Product{s.vocab_size, d, "[d,V]"}}) {
    Arena arena(ops.device());
    Tensor x, y, scratch;
    const auto build = [&] {
      RandomTensors random(ops, arena);
      x = random.compute({batch, product.in}), y = random.compute({batch, product.out});
      scratch = arena.allocate(DType::u8, {ops.scratch_bytes({})});
      return Weights(ops, random, product.out, product.in);
    };
    build();
    arena.commit();
    auto weights = build();
    ops.use_scratch(scratch);
    times.push_back(time_both(ops, fmt::format("{} x {}, rows alone", batch, product.name),
                              [&] { model::linear::rows_alone(ops, y, x, weights.next()); }, {}));
  }
  return times;
}

OpTime time_mixer(Ops& ops, const OpsBenchSettings& s, std::int64_t batch, const Pattern& pattern) {
  constexpr std::int64_t entries = 16;  // of a page
  const auto heads = s.width / s.head_dim, p = s.head_dim;
  const CacheLayout layout(pattern);
  const auto pages = (layout.places(s.tokens) + entries - 1) / entries;
  const auto keys = layout.runs(s.tokens - 1).keys() + 1;
  Arena arena(ops.device());
  Tensor wide, z, states, slots, positions, rope, cache, tables, all_heads, first_heads, partials, arrivals,
      scratch;
  const auto i32 = [&](std::initializer_list<std::int64_t> shape) {
    return arena.allocate(DType::i32, shape);
  };
  const auto build = [&] {
    RandomTensors random(ops, arena);
    wide = random.compute({batch, 5 * heads, p}), z = random.compute({batch, heads, p});
    states = random.f32({batch, 2, heads, p});
    rope = arena.allocate(DType::f32, {s.tokens, 2, p / 2});
    cache = random.compute({batch * pages, heads * 2 * entries * p});
    slots = i32({batch}), positions = i32({batch}), tables = i32({batch, pages});
    all_heads = i32({heads}), first_heads = i32({heads + 1});
    const auto floats = operation::MixerStep::partial_floats(batch, heads, p, keys);
    if (floats > 0) partials = random.f32({floats});
    arrivals = i32({batch * heads});
    scratch = arena.allocate(DType::u8, {ops.scratch_bytes({1, s.tokens, heads, p, heads, true})});
  };
  build();
  arena.commit();
  build();
  ops.use_scratch(scratch);
  const auto upload = [&](const Tensor& x, std::int32_t first, std::int32_t step) {
    std::vector<std::int32_t> values(static_cast<std::size_t>(x.numel()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = first + step * static_cast<std::int32_t>(i);
    ops.upload(x, values.data());
  };
  for (const auto& x : {slots, tables, all_heads, first_heads}) upload(x, 0, 1);
  upload(positions, static_cast<std::int32_t>(s.tokens) - 1, 0), upload(arrivals, 0, 0);
  ops.rope_table(rope, 10000);
  const auto part = [&](std::int64_t i) { return wide.slice(1, i * heads, (i + 1) * heads); };
  return time_both(
      ops, fmt::format("{} steps, {}", batch, to_string(pattern)),
      [&] {
        ops.mixer_step({.z = z,
                        .o = part(0),
                        .q = part(1),
                        .k = part(2),
                        .v = part(3),
                        .f = part(4),
                        .states = states,
                        .slots = slots,
                        .positions = positions,
                        .rope = rope,
                        .cache = {.pages = cache, .entries = entries, .heads = all_heads, .pattern = pattern},
                        .tables = tables,
                        .heads = all_heads,
                        .first_heads = first_heads,
                        .most_keys = keys,
                        .partials = partials,
                        .arrivals = arrivals});
      },
      {});
}

}  // namespace

std::vector<OpTime> time_decode_ops(Ops& ops, const OpsBenchSettings& s) {
  std::vector<OpTime> times;
  for (const std::int64_t batch : {std::int64_t{1}, s.sequences}) {
    for (auto& time : time_products(ops, s, batch)) times.push_back(std::move(time));
    for (const auto& pattern : s.patterns) times.push_back(time_mixer(ops, s, batch, pattern));
  }
  return times;
}

}  // namespace ratplus::bench
