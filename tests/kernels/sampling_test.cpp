#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/random.h"
#include "kernels/sampling_weights.h"
#include "tests/kernels/support.h"

using namespace ratplus;
using namespace ratplus::test;

namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN(),
                 inf = std::numeric_limits<double>::infinity();

/// How one row is drawn from.
struct Rule {
  double temperature = 1;
  std::int64_t top_k = 0;
  double top_p = 1, min_p = 0;
};

Values uniform_values(std::int64_t n, std::uint32_t stream) {
  constexpr std::uint64_t steps = std::uint64_t{1} << 24;
  Values values;
  for (std::int64_t i = 0; i < n; ++i) {
    values.push_back(static_cast<double>(random_below(steps, seed(), Purpose::test, stream, i)) * 0x1p-24);
  }
  return values;
}

/// The tokens that a backend draws from rows of logits, with one rule a row, or one for all.
Values draw(Bench& bench, const Values& logits, const std::vector<Rule>& rules, const Values& uniform,
            bool strided = false) {
  const auto rows = std::ssize(uniform), vocab = std::ssize(logits) / rows;
  Values temperature, top_k, top_p, min_p;
  for (std::int64_t i = 0; i < rows; ++i) {
    const Rule& rule = rules[rules.size() == 1 ? 0 : static_cast<std::size_t>(i)];
    temperature.push_back(rule.temperature), top_k.push_back(static_cast<double>(rule.top_k));
    top_p.push_back(rule.top_p), min_p.push_back(rule.min_p);
  }
  const auto f32 = [&](const Values& values) { return bench.tensor(DType::f32, {rows}, values); };
  const Tensor tokens = bench.poisoned(DType::i32, {rows});
  const Tensor x = strided ? bench.strided(DType::f32, {rows, vocab}, logits)
                           : bench.tensor(DType::f32, {rows, vocab}, logits);
  const Values before = bench.read(x);
  bench->sample_tokens({.tokens = tokens,
                        .logits = x,
                        .temperature = f32(temperature),
                        .top_k = bench.tensor(DType::i32, {rows}, top_k),
                        .top_p = f32(top_p),
                        .min_p = f32(min_p),
                        .uniform = f32(uniform)});
  CHECK(same_bits(bench.read(x), before));
  return bench.read(tokens);
}

/// The weights of a row after the three filters, in float64, by sorting. `slack` moves the border of top_p by this share.
Values weights_of(const Values& logits, const Rule& rule, double slack = 0) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  Values weights;
  for (const double logit : logits) weights.push_back(std::exp((logit - largest) / rule.temperature));
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
  double least = -inf;
  if (rule.top_k > 0 && rule.top_k < std::ssize(logits)) {
    least = logits[order[static_cast<std::size_t>(rule.top_k - 1)]];
  }
  const auto leave_out = [&] {
    for (std::size_t j = 0; j < logits.size(); ++j) weights[j] = logits[j] < least ? 0 : weights[j];
  };
  leave_out();
  if (rule.top_p < 1) {
    const double need = rule.top_p * (1 + slack) * std::accumulate(weights.begin(), weights.end(), 0.0);
    double sum = 0;
    for (const std::size_t j : order) {
      least = logits[j];
      sum += weights[j];
      if (sum >= need) break;
    }
    leave_out();
  }
  for (double& weight : weights) weight = weight < rule.min_p ? 0 : weight;
  return weights;
}

/// Whether `token` is the one that uniform draws by these weights, or its neighbour at a border within rounding.
bool is_drawn(const Values& weights, double uniform, double token) {
  if (!(token >= 0) || token >= static_cast<double>(weights.size())) return false;
  const auto at = weights.begin() + static_cast<std::ptrdiff_t>(token);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double from = std::accumulate(weights.begin(), at, 0.0) / total, to = from + *at / total;
  constexpr double rounding = 1e-6;
  return *at > 0 && from - rounding <= uniform && uniform < to + rounding;
}

bool is_drawn(const Values& logits, const Rule& rule, double uniform, double token) {
  return is_drawn(weights_of(logits, rule), uniform, token) ||
         is_drawn(weights_of(logits, rule, 1e-5), uniform, token) ||
         is_drawn(weights_of(logits, rule, -1e-5), uniform, token);
}

/// Sum of (count - expected)^2 / expected; infinite where a token of no weight was drawn. `degrees`: of freedom.
double chi_square(const Values& tokens, const Values& weights, int& degrees) {
  Values counts(weights.size());
  for (const double token : tokens) counts.at(static_cast<std::size_t>(token)) += 1;
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  degrees = -1;
  for (std::size_t j = 0; j < weights.size(); ++j) {
    const double expected = weights[j] / total * static_cast<double>(tokens.size());
    if (expected == 0 && counts[j] > 0) return inf;
    if (expected == 0) continue;
    ++degrees;
    sum += (counts[j] - expected) * (counts[j] - expected) / expected;
  }
  return sum;
}

/// Exceeded by a right sampler once in a million times (Wilson and Hilferty, 1931).
double chi_square_limit(int degrees) {
  const double spread = 2.0 / (9.0 * degrees);
  return degrees * std::pow(1 - spread + 4.7534 * std::sqrt(spread), 3);
}

struct Scores {
  Values label, tokens, tops;
};

Scores score(Bench& bench, const Tensor& logits, const std::vector<std::int32_t>& labels, std::int64_t n) {
  const auto rows = logits.size(0);
  const Tensor label = bench.poisoned(DType::f32, {rows});
  operation::ScoreTokens call{.log_probability = label, .logits = logits, .labels = bench.labels(labels)};
  if (n > 0) {
    call.top_tokens = bench.poisoned(DType::i32, {rows, n});
    call.top_log_probability = bench.poisoned(DType::f32, {rows, n});
  }
  bench->score_tokens(call);
  if (n == 0) return {bench.read(label), {}, {}};
  return {bench.read(label), bench.read(call.top_tokens), bench.read(call.top_log_probability)};
}

Values part(const Values& x, std::int64_t begin, std::int64_t size) {
  return {x.begin() + begin, x.begin() + begin + size};
}

}  // namespace

TEST_CASE("adjust_logits: factors, addends and bans at single logits, and no others") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Values x = {3, -3, 0, 1.5, -2, 8};
    for (const bool strided : {false, true}) {
      const Tensor logits =
          strided ? bench.strided(DType::f32, {2, 3}, x) : bench.tensor(DType::f32, {2, 3}, x);
      bench->adjust_logits({.logits = logits,
                            .row = bench.labels({0, 0, 1, 1, 0}),
                            .token = bench.labels({1, 0, 2, 1, 2}),
                            .factor = bench.tensor(DType::f32, {5}, {1.5, 1.5, 2, 1, 7}),
                            .addend = bench.tensor(DType::f32, {5}, {0, -0.25, 1, -inf, 0.5})});
      CHECK(bench.read(logits) == Values{1.75, -4.5, 0.5, 1.5, -inf, 5});
    }
    const Tensor logits = bench.tensor(DType::f32, {2, 3}, x);
    const Tensor empty = bench.tensor(DType::f32, {0}, {}), no_ids = bench.labels({});
    bench->adjust_logits(
        {.logits = logits, .row = no_ids, .token = no_ids, .factor = empty, .addend = empty});
    CHECK(bench.read(logits) == x);
  }
}

TEST_CASE("the keys of logits have the order of the logits") {
  const Values x = {-inf, -3e38, -1, -1e-40, 0, 1e-45, 1e-38, 1, 2, 3e38, inf};
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    const auto key = [&](std::size_t j) {
      return order_key(std::bit_cast<std::uint32_t>(static_cast<float>(x[j])));
    };
    CHECK(key(i) < key(i + 1));
  }
  CHECK(order_key(std::bit_cast<std::uint32_t>(-0.0f)) == order_key(0));
}

TEST_CASE("sample_tokens: every rule, against sorting in float64, over vocabularies of models") {
  const std::vector<Rule> rules = {{.temperature = 1},
                                   {.temperature = 0.7, .top_k = 50},
                                   {.temperature = 1, .top_p = 0.9},
                                   {.temperature = 1.3, .min_p = 0.05},
                                   {.temperature = 0.9, .top_k = 40, .top_p = 0.95, .min_p = 0.02},
                                   {.temperature = 2, .top_k = 1000, .top_p = 0.5},
                                   {.temperature = 5, .top_p = 0.999},
                                   {.temperature = 0.3, .top_k = 2}};
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    for (const std::int64_t vocab : {1, 2, 7, 31, 33, 1023, 2777, 32000, 50257}) {
      CAPTURE(vocab);
      const std::int64_t rows = 2 * std::ssize(rules);
      std::vector<Rule> each = rules;
      each.insert(each.end(), rules.begin(), rules.end());
      Values logits = normal_values(rows * vocab, 11, 3);
      for (std::int64_t j = 0; j < vocab; j += 3)
        logits[static_cast<std::size_t>(j)] = j % 2 == 0 ? -inf : 0.5;
      if (vocab == 1) logits[0] = 2;
      const Values uniform = uniform_values(rows, 12);
      for (const bool strided : {false, true}) {
        const Values tokens = draw(bench, logits, each, uniform, strided);
        for (std::int64_t i = 0; i < rows; ++i) {
          CAPTURE(i);
          const auto at = static_cast<std::size_t>(i);
          CAPTURE(tokens[at]);
          CHECK(is_drawn(part(logits, i * vocab, vocab), each[at], uniform[at], tokens[at]));
        }
      }
    }
  }
}

TEST_CASE("sample_tokens: the distribution of many draws, and a wrong one is found out") {
  const Values logits = {0.3, 2.1, -inf, 1.4, -1.2, 0.9, 2.1, -0.4, 3.0, 0.0, -2.5, 1.1};
  constexpr std::int64_t rows = 40000;
  Values all;
  for (std::int64_t i = 0; i < rows; ++i) all.insert(all.end(), logits.begin(), logits.end());
  const Values uniform = uniform_values(rows, 13);
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    int degrees = 0;
    for (const Rule& rule : {Rule{}, Rule{.temperature = 0.6}, Rule{.temperature = 3, .top_k = 5},
                             Rule{.top_p = 0.8}, Rule{.temperature = 1.5, .min_p = 0.2}}) {
      CAPTURE(rule.temperature);
      const Values tokens = draw(bench, all, {rule}, uniform);
      const double found = chi_square(tokens, weights_of(logits, rule), degrees);
      REQUIRE(degrees >= 1);
      CHECK(found < chi_square_limit(degrees));
    }
    // A temperature that is 5 % off, a filter that is left out, and one token too many.
    const Values warmer = draw(bench, all, {{.temperature = 1.05}}, uniform);
    const double of_warmer = chi_square(warmer, weights_of(logits, {}), degrees);
    CHECK(of_warmer > chi_square_limit(degrees));
    const Values unfiltered = draw(bench, all, {{.temperature = 1}}, uniform);
    CHECK(chi_square(unfiltered, weights_of(logits, {.top_k = 9}), degrees) > chi_square_limit(8));
    Values correlated = uniform;  // a generator that never gives the upper quarter
    for (double& u : correlated) u *= 0.75;
    CHECK(chi_square(draw(bench, all, {{}}, correlated), weights_of(logits, {}), degrees) >
          chi_square_limit(degrees));
  }
}

TEST_CASE("sample_tokens: a row's token does not depend on the rows beside it") {
  constexpr std::int64_t rows = 9, vocab = 5003;
  const Values logits = normal_values(rows * vocab, 14, 2), uniform = uniform_values(rows, 15);
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const std::vector<Rule> rules(rows, {.temperature = 1.1, .top_k = 2000, .top_p = 0.97, .min_p = 0.001});
    const Values together = draw(bench, logits, rules, uniform);
    for (std::int64_t i = 0; i < rows; ++i) {
      const auto at = static_cast<std::size_t>(i);
      CHECK(draw(bench, part(logits, i * vocab, vocab), {rules[at]}, {uniform[at]}) == Values{together[at]});
    }
  }
}

TEST_CASE("sample_tokens: the largest at temperature 0 and near it; all alike at a huge one") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Values logits = {-1, 4, 4, 2, -2, -3, -1, -1};
    for (const double u : {0.0, 0.4, 0.99}) {
      CHECK(draw(bench, logits, {{.temperature = 0, .top_k = 3, .top_p = 0.1, .min_p = 1}}, {u, u}) ==
            Values{1, 2});
      // Two that are equal, and one that stands alone.
      CHECK(draw(bench, logits, {{.temperature = 1e-30}}, {u, u}) ==
            Values{u < 0.5 ? 1.0 : 2.0, u < 0.5 ? 2.0 : 3.0});
    }
    const Values rows = {-1, 4, 4, 2, -2, -3, -5, -4};
    CHECK(draw(bench, rows, {{.temperature = 1e-30}}, {0.99, 0.99}) == Values{2, 0});
    for (const std::int64_t j : {0, 1, 2, 3}) {
      const double u = (static_cast<double>(j) + 0.5) / 4;
      CHECK(draw(bench, rows, {{.temperature = 1e30}}, {u, u}) == Values(2, static_cast<double>(j)));
    }
  }
}

TEST_CASE("sample_tokens: borders of the filters, and equal logits stay together") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const double a = std::log(4), b = std::log(2);
    const Values logits = {0, a, b, b, 0, 0};  // weights 1 4 2 2 1 1 of 11, by id
    const auto tokens_of = [&](const Rule& rule) {
      Values tokens, rows, uniform;
      for (int i = 0; i < 50; ++i) rows.insert(rows.end(), logits.begin(), logits.end());
      for (int i = 0; i < 50; ++i) uniform.push_back((i + 0.5) / 50);
      tokens = draw(bench, rows, {rule}, uniform);
      std::sort(tokens.begin(), tokens.end());
      tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
      return tokens;
    };
    const Values all = {0, 1, 2, 3, 4, 5};
    CHECK(tokens_of({}) == all);
    CHECK(tokens_of({.top_k = 1}) == Values{1});
    CHECK(tokens_of({.top_k = 2}) == Values{1, 2, 3});
    CHECK(tokens_of({.top_k = 3}) == Values{1, 2, 3});
    CHECK(tokens_of({.top_k = 4}) == all);
    CHECK(tokens_of({.top_k = 6}) == all);
    CHECK(tokens_of({.top_k = 2'000'000'000}) == all);
    CHECK(tokens_of({.top_p = 0}) == Values{1});
    CHECK(tokens_of({.top_p = 3.9 / 11}) == Values{1});
    CHECK(tokens_of({.top_p = 4.1 / 11}) == Values{1, 2, 3});
    CHECK(tokens_of({.top_p = 7.9 / 11}) == Values{1, 2, 3});
    CHECK(tokens_of({.top_p = 8.1 / 11}) == all);
    CHECK(tokens_of({.top_p = 1}) == all);
    CHECK(tokens_of({.top_k = 2, .top_p = 0.49}) == Values{1});  // 4 of the 8 that are left
    CHECK(tokens_of({.top_k = 2, .top_p = 0.51}) == Values{1, 2, 3});
    CHECK(tokens_of({.min_p = 0.24}) == all);
    CHECK(tokens_of({.min_p = 0.26}) == Values{1, 2, 3});
    CHECK(tokens_of({.min_p = 1}) == Values{1});
    CHECK(tokens_of({.temperature = 2, .min_p = 0.45}) == all);  // weights 1/2, 1, sqrt 1/2
    CHECK(tokens_of({.temperature = 2, .min_p = 0.6}) == Values{1, 2, 3});
  }
}

TEST_CASE(
    "sample_tokens: rows without a distribution give -1, bans are never drawn, and both zeros are equal") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    const Values rows = {1,    none, 2,     //
                         -inf, -inf, -inf,  //
                         1,    inf,  2,     //
                         -inf, -inf, 5,     //
                         none, none, none,  //
                         -0.0, 0.0,  -inf};
    for (const double temperature : {0.0, 1.0}) {
      for (const Rule& filter : {Rule{}, Rule{.top_k = 2}, Rule{.top_p = 0.5}, Rule{.min_p = 0.5}}) {
        Rule rule = filter;
        rule.temperature = temperature;
        const Values tokens = draw(bench, rows, {rule}, Values(6, 0.9));
        CHECK(tokens == Values{-1, -1, -1, 2, -1, temperature == 0 ? 0.0 : 1.0});
      }
    }
    // One token; and uniform numbers at their ends.
    CHECK(draw(bench, {-7, -7}, {{.top_k = 1}}, {0, 0.9999999}) == Values{0, 0});
    CHECK(draw(bench, {1, 1, 1, -inf, 1, 1, 1, -inf}, {{}}, {0, 1 - 0x1p-24}) == Values{0, 2});
  }
}

TEST_CASE("score_tokens: log-probabilities of labels and of the largest logits, against float64") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    for (const std::int64_t vocab : {1, 7, 33, 2777, 32000, 50257}) {
      CAPTURE(vocab);
      constexpr std::int64_t rows = 7;
      const std::int64_t n = std::min<std::int64_t>(vocab, 20);
      Values values = normal_values(rows * vocab, 21, 4);
      const auto at = [&](std::int64_t row, std::int64_t j) -> double& {
        return values[static_cast<std::size_t>(row * vocab + j)];
      };
      for (std::int64_t j = 0; j < vocab; ++j) {
        at(3, j) = 1;                            // all equal
        if (j % 3 != 0) at(4, j) = -inf;         // bans
        at(5, j) = static_cast<double>(j) / 64;  // ascending
      }
      std::vector<std::int32_t> labels = random_ids(rows, vocab, 22);
      labels[0] = 0, labels[1] = static_cast<std::int32_t>(vocab - 1), labels[2] = -1;
      for (const DType type : {DType::f32, bench.compute()}) {
        for (const bool strided : {false, true}) {
          const Tensor logits = strided ? bench.strided(type, {rows, vocab}, values)
                                        : bench.tensor(type, {rows, vocab}, values);
          const Values x = bench.read(logits);
          const Scores scores = score(bench, logits, labels, n);
          CHECK(same_bits(bench.read(logits), x));
          CHECK(same_bits(score(bench, logits, labels, 0).label, scores.label));
          for (std::int64_t i = 0; i < rows; ++i) {
            CAPTURE(i);
            const Values row = part(x, i * vocab, vocab);
            const double largest = *std::max_element(row.begin(), row.end());
            double sum = 0;
            for (const double logit : row) sum += std::exp(logit - largest);
            const auto expected = [&](std::int64_t j) {
              return row[static_cast<std::size_t>(j)] - largest - std::log(sum);
            };
            std::vector<std::int64_t> order(row.size());
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
              return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
            });
            const double label = scores.label[static_cast<std::size_t>(i)];
            const auto id = labels[static_cast<std::size_t>(i)];
            if (id < 0) {
              CHECK(label == 0);
            } else if (expected(id) == -inf) {
              CHECK(label == -inf);
            } else {
              CHECK(std::abs(label - expected(id)) < 2e-5 + 1e-7 * std::abs(label));
            }
            for (std::int64_t k = 0; k < n; ++k) {
              CAPTURE(k);
              const auto place = static_cast<std::size_t>(i * n + k);
              const auto token = order[static_cast<std::size_t>(k)];
              CHECK(scores.tokens[place] == static_cast<double>(token));
              if (expected(token) == -inf) {
                CHECK(scores.tops[place] == -inf);
              } else {
                CHECK(std::abs(scores.tops[place] - expected(token)) <
                      2e-5 + 1e-7 * std::abs(expected(token)));
              }
              if (id == token) CHECK(same_bits({scores.tops[place]}, {label}));
            }
            // A row by itself has the same bits.
            const Scores alone = score(bench, logits.slice(0, i, i + 1), {id}, n);
            CHECK(same_bits(alone.label, {label}));
            CHECK(same_bits(alone.tops, part(scores.tops, i * n, n)));
          }
        }
      }
    }
  }
}

TEST_CASE("score_tokens: the label that is the largest has the top's float; rows without a distribution") {
  FOR_EACH_BACKEND(backend) {
    Bench bench(backend);
    constexpr std::int64_t rows = 16, vocab = 911;
    const Tensor logits = bench.tensor(DType::f32, {rows, vocab}, normal_values(rows * vocab, 23, 5));
    const Scores tops = score(bench, logits, std::vector<std::int32_t>(rows, -1), 1);
    const Scores labels =
        score(bench, logits, std::vector<std::int32_t>(tops.tokens.begin(), tops.tokens.end()), 1);
    CHECK(same_bits(labels.label, tops.tops));

    const Values bad = {1, none, 2, -inf, -inf, -inf, 1, inf, 2, 1e4, -1e4, 9999};
    const Scores scores = score(bench, bench.tensor(DType::f32, {4, 3}, bad), {0, 1, -1, 2}, 2);
    CHECK(std::isnan(scores.label[0]));
    CHECK(std::isnan(scores.label[1]));
    CHECK(scores.label[2] == 0);
    CHECK(scores.label[3] == doctest::Approx(-1 - std::log(1 + std::exp(-1))).epsilon(1e-6));
    CHECK(scores.tokens == Values{-1, -1, -1, -1, -1, -1, 0, 2});
    CHECK(std::all_of(scores.tops.begin(), scores.tops.begin() + 6, [](double x) { return std::isnan(x); }));
  }
}

TEST_CASE("operations of generation refuse what does not fit") {
  Bench bench(backends().front());
  const Tensor logits = bench.tensor(DType::f32, {2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor two = bench.tensor(DType::f32, {2}, {1, 1}), ids = bench.labels({0, 1});
  const operation::SampleTokens sample{.tokens = ids,
                                       .logits = logits,
                                       .temperature = two,
                                       .top_k = ids,
                                       .top_p = two,
                                       .min_p = two,
                                       .uniform = two};
  auto wrong = sample;
  wrong.top_k = bench.labels({0, 1, 2});
  CHECK_THROWS_AS(bench->sample_tokens(wrong), std::logic_error);
  if (bench->device().kind == DeviceKind::cpu) {  // a GPU's tokens are not read for a check
    CHECK_THROWS_AS(
        bench->adjust_logits(
            {.logits = logits, .row = ids, .token = bench.labels({0, 3}), .factor = two, .addend = two}),
        std::logic_error);
    CHECK_THROWS_AS(score(bench, logits, {0, 3}, 0), std::logic_error);
  }
  CHECK_THROWS_AS(score(bench, logits, {0, 1}, 4), std::logic_error);
}
