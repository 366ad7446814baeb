// The step of a mixer over caches of all lengths, against float64; on a GPU it cuts the keys of long ones into parts.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

namespace {

struct StepCase {
  std::int64_t p, heads, key_heads, entries;
  Pattern pattern;
  bool gated;
  std::vector<std::int64_t> positions;  ///< of the sequences
};

/// Of one sequence: z [H, P], and after the step its state [2, Hk, P] and its cache's keys and values [t + 1, Hk, P], with
/// zeros for a token that no later query attends to.
struct StepResult {
  Values z, state, keys, values;
};

/// All inputs by position, the same for every batch.
struct Inputs {
  Tensor k, v;             // C [most, Hk, P] of the tokens before
  Tensor o, q, k1, v1, f;  // C [sequences, heads, P] of the token
  Tensor states, bias, rope;
};

std::int64_t most_position(const StepCase& x) {
  return *std::ranges::max_element(x.positions);
}

Inputs make_inputs(Bench& bench, const StepCase& x) {
  const auto c = bench.compute();
  const auto sequences = std::ssize(x.positions), most = most_position(x);
  const auto random = [&](DType type, const Shape& shape, std::uint32_t stream) {
    return bench.tensor(type, shape, normal_values(count(shape), stream));
  };
  const auto rows = [&](std::int64_t heads, std::uint32_t stream) {
    const Shape shape{sequences, heads, x.p};
    return bench.strided(c, shape, normal_values(count(shape), stream));
  };
  const Shape before{std::max<std::int64_t>(most, 1), x.key_heads, x.p};
  Inputs in{.k = random(c, before, 1),
            .v = random(c, before, 2),
            .o = x.gated ? rows(x.heads, 3) : Tensor(),
            .q = rows(x.heads, 4),
            .k1 = rows(x.key_heads, 5),
            .v1 = rows(x.key_heads, 6),
            .f = x.gated ? rows(x.key_heads, 7) : Tensor(),
            .states = x.gated ? random(DType::f32, {sequences, 2, x.key_heads, x.p}, 8) : Tensor(),
            .bias = x.gated ? random(DType::f32, {x.key_heads, x.p}, 9) : Tensor(),
            .rope = bench.poisoned(DType::f32, {most + 1, 2, x.p / 2})};
  bench->rope_table(in.rope, 10000);
  return in;
}

/// q again, [B, H, P], as a product by ones on the diagonal leaves it in the last moment before a step.
Tensor arriving(Bench& bench, const Tensor& q) {
  const auto rows = q.size(0), width = q.size(1) * q.size(2);
  Values ones(static_cast<std::size_t>(width * width));
  for (std::int64_t i = 0; i < width; ++i) ones[static_cast<std::size_t>(i * (width + 1))] = 1;
  const Tensor x = bench.tensor(bench.compute(), {rows, width}, bench.read(q)),
               w = bench.tensor(bench.compute(), {width, width}, ones);
  bench->pack_weight(w);
  const Tensor y = bench.poisoned(bench.compute(), {rows, width});
  bench->fill(
      y, std::nan(""));  // waits for all before it: a step after it may read early what those calls wrote
  bench->row_product(y, x, w);
  return y.view({rows, q.size(1), q.size(2)});
}

/// One step of the sequences [begin, end) of the case, whose pages are in no order. at_rest: q is computed just before, and the
/// caches may be read earlier.
std::vector<StepResult> run_step(const Backend& backend, const StepCase& x, std::int64_t begin,
                                 std::int64_t end, bool at_rest = false) {
  Bench bench(backend, {1, most_position(x) + 1, x.heads, x.p, x.key_heads});
  const Inputs in = make_inputs(bench, x);
  const auto batch = end - begin, sequences = std::ssize(x.positions);
  const CacheLayout layout(x.pattern);
  const auto pages_of = [&](std::int64_t tokens) {
    return (layout.places(tokens) + x.entries - 1) / x.entries;
  };
  std::int64_t pages = 0, most_keys = 1;
  for (const auto t : x.positions) pages += pages_of(t + 1);
  const auto row = pages_of(most_position(x) + 1);
  Values tables(static_cast<std::size_t>(sequences * row), -1), positions, slots;
  for (std::int64_t b = 0, page = pages; b < sequences; ++b) {
    const auto t = x.positions[static_cast<std::size_t>(b)];
    for (std::int64_t i = 0; i < pages_of(t + 1); ++i)
      tables[static_cast<std::size_t>(b * row + i)] = static_cast<double>(--page);
    if (b < begin || b >= end) continue;
    positions.push_back(static_cast<double>(t)), slots.push_back(static_cast<double>(b));
    most_keys = std::max(most_keys, layout.runs(t).keys() + 1);
  }
  const auto numbers = [&](std::int64_t n, std::int64_t step) {
    Values values;
    for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<double>(i * step));
    return bench.tensor(DType::i32, {n}, values);
  };
  const operation::CachePages cache{
      .pages = bench.strided_poisoned(bench.compute(), {pages, x.key_heads * 2 * x.entries * x.p}),
      .entries = x.entries,
      .heads = numbers(x.key_heads, 1),
      .pattern = x.pattern};
  const Tensor table = bench.tensor(DType::i32, {sequences, row}, tables);
  for (std::int64_t b = begin; b < end; ++b) {
    const auto t = x.positions[static_cast<std::size_t>(b)];
    if (t == 0) continue;
    bench->cache_append(
        {.cache = cache, .table = table.select(0, b), .k = in.k.slice(0, 0, t), .v = in.v.slice(0, 0, t)});
  }
  const auto part = [&](const Tensor& all) { return all.empty() ? all : all.slice(0, begin, end); };
  const Tensor z = bench.strided_poisoned(bench.compute(), {batch, x.heads, x.p});
  const auto floats = operation::MixerStep::partial_floats(batch, x.heads, x.p, most_keys);
  const Tensor arrivals =
      bench.tensor(DType::i32, {batch * x.key_heads}, Values(static_cast<std::size_t>(batch * x.key_heads)));
  const Tensor place = bench.tensor(DType::i32, {batch}, slots),
               position = bench.tensor(DType::i32, {batch}, positions), heads = numbers(x.heads, 1),
               first_heads = numbers(x.key_heads + 1, x.heads / x.key_heads);
  const Tensor partials = floats > 0 ? bench.poisoned(DType::f32, {floats}) : Tensor();
  const Tensor q = at_rest ? arriving(bench, part(in.q)) : part(in.q);
  bench->mixer_step({.z = z,
                     .o = part(in.o),
                     .q = q,
                     .k = part(in.k1),
                     .v = part(in.v1),
                     .f = part(in.f),
                     .gate_bias = in.bias,
                     .states = in.states,
                     .slots = place,
                     .positions = position,
                     .rope = in.rope,
                     .cache = cache,
                     .tables = table,
                     .heads = heads,
                     .first_heads = first_heads,
                     .most_keys = most_keys,
                     .at_rest = at_rest,
                     .partials = partials,
                     .arrivals = arrivals});
  CHECK(bench.read(arrivals) == Values(static_cast<std::size_t>(batch * x.key_heads)));
  std::vector<StepResult> results;
  for (std::int64_t b = begin; b < end; ++b) {
    const auto t = x.positions[static_cast<std::size_t>(b)];
    const Shape held{t + 1, x.key_heads, x.p};
    const Values zero(static_cast<std::size_t>(count(held)));
    const Tensor k = bench.tensor(bench.compute(), held, zero), v = bench.tensor(bench.compute(), held, zero);
    bench->cache_gather({.k = k, .v = v, .cache = cache, .table = table.select(0, b), .first = t + 1});
    results.push_back({.z = bench.read(z.select(0, b - begin)),
                       .state = x.gated ? bench.read(in.states.select(0, b)) : Values(),
                       .keys = bench.read(k),
                       .values = bench.read(v)});
  }
  return results;
}

/// The same in float64, of the numbers that the backend was given.
std::vector<StepResult> reference_step(const Backend& backend, const StepCase& x) {
  Bench bench(backend);
  const Inputs in = make_inputs(bench, x);
  const auto p = x.p, half = p / 2, of_keys = x.key_heads * p;
  const auto values_of = [&](const Tensor& tensor) { return tensor.empty() ? Values() : bench.read(tensor); };
  const Values k = values_of(in.k), v = values_of(in.v), o = values_of(in.o), q = values_of(in.q),
               k1 = values_of(in.k1), v1 = values_of(in.v1), f = values_of(in.f),
               states = values_of(in.states), bias = values_of(in.bias), rope = values_of(in.rope);
  const auto at = [](const Values& values, std::int64_t i) { return values[static_cast<std::size_t>(i)]; };
  const auto sigmoid = [](double value) { return 1 / (1 + std::exp(-value)); };
  std::vector<StepResult> results;
  for (std::int64_t b = 0; b < std::ssize(x.positions); ++b) {
    const auto t = x.positions[static_cast<std::size_t>(b)];
    const auto rotated = [&](const Values& row) {
      Values out(row.size());
      for (std::int64_t i = 0; i < std::ssize(row); ++i) {
        const auto j = i % p, pair = j % half;
        const double cosine = at(rope, t * p + pair), sine = at(rope, t * p + half + pair);
        out[static_cast<std::size_t>(i)] = j < half ? at(row, i) * cosine - at(row, i + half) * sine
                                                    : at(row, i) * cosine + at(row, i - half) * sine;
      }
      return out;
    };
    StepResult result;
    Values own[2];
    for (const std::int64_t which : {0, 1}) {
      for (std::int64_t i = 0; i < of_keys; ++i) {
        double value = at(which == 0 ? k1 : v1, b * of_keys + i);
        if (x.gated) {
          const double g = sigmoid(at(f, b * of_keys + i) + at(bias, i));
          value = g * (t == 0 ? 0 : at(states, (b * 2 + which) * of_keys + i)) + (1 - g) * value;
          result.state.push_back(value);
        }
        own[which].push_back(value);
      }
    }
    own[0] = rotated(own[0]);
    const auto held = [&](const Values& before, const Values& now) {
      Values rows(static_cast<std::size_t>((t + 1) * of_keys));
      for (std::int64_t s = 0; s <= t; ++s) {
        if (!x.pattern.attends(t + 1, s)) continue;
        for (std::int64_t i = 0; i < of_keys; ++i)
          rows[static_cast<std::size_t>(s * of_keys + i)] = s == t ? at(now, i) : at(before, s * of_keys + i);
      }
      return rows;
    };
    result.keys = held(k, own[0]), result.values = held(v, own[1]);
    for (std::int64_t h = 0; h < x.heads; ++h) {
      const auto row = (b * x.heads + h) * p, of_key = h / (x.heads / x.key_heads) * p;
      const Values query = rotated(Values(q.begin() + row, q.begin() + row + p));
      Values sums(static_cast<std::size_t>(p));
      double sum = 0;
      for (std::int64_t s = 0; s <= t; ++s) {
        if (!x.pattern.attends(t, s)) continue;
        const double* key = s == t ? own[0].data() + of_key : k.data() + s * of_keys + of_key;
        const double* value = s == t ? own[1].data() + of_key : v.data() + s * of_keys + of_key;
        const double weight = std::exp(std::inner_product(query.begin(), query.end(), key, 0.0) /
                                       std::sqrt(static_cast<double>(p)));
        sum += weight;
        for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += weight * value[i];
      }
      for (std::int64_t i = 0; i < p; ++i)
        result.z.push_back(at(sums, i) / sum * (x.gated ? sigmoid(at(o, row + i)) : 1));
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace

TEST_CASE("mixer_step: one token over caches of all lengths, and each sequence's bits its own") {
  constexpr auto none = Pattern::no_dilation;
  const std::vector<StepCase> cases = {
      {128, 2, 2, 16, {}, true, {0, 1, 31, 32, 33, 255, 256, 257, 383, 384, 385, 640, 4097, 16385}},
      {128, 2, 1, 16, {}, false, {17, 16384, 100, 4096}},
      {128, 20, 2, 8, {}, true, {5, 384, 0, 95, 383, 130}},
      {64, 8, 2, 8, {16, 24, 4}, true, {3, 27, 28, 29, 600, 4000}},
      {128, 3, 3, 16, {4, 300, 5}, true, {400, 304, 305, 306, 1000, 2500}},
      {32, 4, 1, 16, {none, 400, 3}, false, {12, 403, 404, 700, 128}},
      {256, 4, 1, 16, {}, true, {16, 400, 1023}},
      {96, 16, 2, 8, {2, 0, 0}, false, {1, 70, 900}},
      {20, 3, 3, 8, {}, true, {9, 63, 640, 65}},
  };
  FOR_EACH_BACKEND(backend) {
    for (const StepCase& x : cases) {
      CAPTURE(x.p);
      CAPTURE(x.heads);
      CAPTURE(to_string(x.pattern));
      const auto sequences = std::ssize(x.positions);
      const auto results = run_step(backend, x, 0, sequences), wanted = reference_step(backend, x);
      for (std::int64_t b = 0; b < sequences; ++b) {
        CAPTURE(x.positions[static_cast<std::size_t>(b)]);
        const StepResult& result = results[static_cast<std::size_t>(b)];
        const StepResult& reference = wanted[static_cast<std::size_t>(b)];
        CHECK(relative_error(result.z, reference.z) < backend.tolerance);
        CHECK(relative_error(result.keys, reference.keys, 1e-30) < backend.tolerance);
        CHECK(relative_error(result.values, reference.values, 1e-30) < backend.tolerance);
        if (x.gated) CHECK(relative_error(result.state, reference.state) < 1e-5);
      }
      // Other neighbours: the first half, the second, and one alone.
      for (const auto& [begin, end] :
           {std::pair{std::int64_t{0}, sequences / 2}, {sequences / 2, sequences}, {1, 2}}) {
        const auto some = run_step(backend, x, begin, end);
        for (auto b = begin; b < end; ++b) {
          const StepResult& together = results[static_cast<std::size_t>(b)];
          const StepResult& apart = some[static_cast<std::size_t>(b - begin)];
          CHECK(same_bits(apart.z, together.z));
          CHECK(same_bits(apart.state, together.state));
          CHECK(same_bits(apart.keys, together.keys));
        }
      }
    }
  }
}

TEST_CASE("mixer_step: caches that are at rest are read early, and the bits are the same") {
  // More blocks than a GPU runs at once, of caches of one part; and few blocks, of caches of several parts.
  std::vector<std::int64_t> many(170);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<std::int64_t>(i * 37 % 380);
  const std::vector<StepCase> cases = {{128, 4, 4, 16, {}, true, many},
                                       {64, 8, 4, 16, {16, 0, 4}, true, many},
                                       {64, 8, 4, 8, {64, 0, 4}, true, many},
                                       {64, 4, 4, 16, {16, 24, 4}, false, many},
                                       {128, 2, 2, 16, {}, true, {2100, 700, 4000}}};
  FOR_EACH_BACKEND(backend) {
    for (const StepCase& x : cases) {
      CAPTURE(x.p);
      CAPTURE(to_string(x.pattern));
      const auto sequences = std::ssize(x.positions);
      const auto plain = run_step(backend, x, 0, sequences), early = run_step(backend, x, 0, sequences, true);
      for (std::size_t b = 0; b < plain.size(); ++b) {
        CAPTURE(x.positions[b]);
        CHECK(same_bits(early[b].z, plain[b].z));
        CHECK(same_bits(early[b].state, plain[b].state));
        CHECK(same_bits(early[b].keys, plain[b].keys));
        CHECK(same_bits(early[b].values, plain[b].values));
      }
    }
  }
}

TEST_CASE(
    "mixer_step: the parts of a GPU cover all keys, none is empty, and no cache has more than its bound") {
  using Step = operation::MixerStep;
  std::int64_t most = 0, bound = 0;
  for (std::int64_t keys = 0; keys < 40000; ++keys) {
    const auto parts = Step::parts_of(keys), part = Step::part_of(keys);
    most = std::max(most, parts);
    bool good = Step::part_begin(keys, 0) == 0 && Step::part_begin(keys, parts) == keys &&
                Step::parts(keys) >= most && Step::parts(keys) >= bound;
    bound = Step::parts(keys);
    for (std::int64_t i = 0; i < parts; ++i) {
      const auto begin = Step::part_begin(keys, i), size = Step::part_begin(keys, i + 1) - begin;
      good = good && begin % Step::part_tile == 0 && size >= (keys > 0 ? 1 : 0) && size < 3 * part / 2;
    }
    REQUIRE_MESSAGE(good, keys);
  }
}
