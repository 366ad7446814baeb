#include "lib/infer/sampling.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>

#include "kernels/buffer.h"
#include "kernels/ops.h"
#include "tests/support/messages.h"

using namespace ratplus;
using namespace ratplus::infer;
using test::contains;
using test::message_of;

namespace {

constexpr float infinite = std::numeric_limits<float>::infinity();
constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

/// The message about parameters with one change.
template <typename Change>
std::string message(const Change& change) {
  SamplingParameters parameters;
  change(parameters);
  return message_of([&] { check(parameters, 100, "request 7"); });
}

struct Entry {
  float factor, addend;
  bool operator==(const Entry&) const = default;
};
using Entries = std::map<std::int32_t, Entry>;

Entries entries_of(const TokenCounts& counts) {
  LogitEntries entries;
  counts.append_entries(3, entries);
  Entries found;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    CHECK(entries.row[i] == 3);
    CHECK(found.emplace(entries.token[i], Entry{entries.factor[i], entries.addend[i]}).second);
  }
  return found;
}

}  // namespace

TEST_CASE("sampling parameters: the defaults and the ends of all ranges are good") {
  using P = SamplingParameters;
  CHECK(message([](P&) {}).empty());
  CHECK(message([](P& p) {
          p.temperature = 0, p.top_k = 1'000'000'000'000, p.top_p = 0, p.min_p = 1;
          p.repetition_penalty = 0.01, p.presence_penalty = -2, p.frequency_penalty = 2;
          p.biases = {{0, -100}, {99, 100}}, p.banned = {0, 99, 99};
        }).empty());
}

TEST_CASE("sampling parameters: each bad value is refused with its place and name") {
  using P = SamplingParameters;
  const auto refused = [](const std::string& text, const std::string& words) {
    CAPTURE(text);
    CHECK(text.starts_with("request 7: "));
    CHECK(contains(text, words));
  };
  for (const double bad : {-0.1, nothing, std::numeric_limits<double>::infinity(), 1e300}) {
    CAPTURE(bad);
    refused(message([&](P& p) { p.temperature = bad; }), "temperature = ");
    refused(message([&](P& p) { p.top_p = bad; }), "top_p = ");
    refused(message([&](P& p) { p.min_p = bad; }), "min_p = ");
    refused(message([&](P& p) { p.repetition_penalty = bad; }), "repetition_penalty = ");
    if (bad == -0.1) continue;
    refused(message([&](P& p) { p.presence_penalty = bad; }), "presence_penalty = ");
    refused(message([&](P& p) { p.frequency_penalty = -bad; }), "frequency_penalty = ");
    refused(message([&](P& p) { p.biases = {{4, static_cast<float>(bad)}}; }), "logit_bias adds ");
  }
  refused(message([](P& p) { p.repetition_penalty = 0; }),
          "repetition_penalty = 0 is not a number from 0.01");
  refused(message([](P& p) { p.top_k = -1; }), "top_k = -1 is negative; 0 keeps all tokens");
  refused(message([](P& p) { p.top_p = 1.01; }), "top_p = 1.01 is not a number from 0 to 1");
  for (const std::int32_t token : {-1, 100, std::numeric_limits<std::int32_t>::max()}) {
    refused(message([&](P& p) { p.biases = {{token, 1.0F}}; }), "logit_bias names the token ");
    refused(message([&](P& p) { p.banned = {token}; }), "but the model's tokens are 0 to 99");
  }
  refused(message([](P& p) { p.biases = {{5, 1.0F}, {5, 2.0F}}; }), "names the token 5 twice");
  refused(message([](P& p) {
            for (std::int32_t token = 0; token < 100; ++token) p.banned.push_back(token);
          }),
          "all 100 tokens are banned");
}

TEST_CASE("sampling parameters: a row of the operation") {
  const SamplingRow row =
      sampling_row({.temperature = 0.5, .top_k = std::int64_t{1} << 40, .top_p = 0.9, .min_p = 0.25});
  CHECK(row.temperature == 0.5F);
  CHECK(row.top_k == std::numeric_limits<std::int32_t>::max());
  CHECK(row.top_p == 0.9F);
  CHECK(row.min_p == 0.25F);
}

TEST_CASE("uniform numbers: a function of seed, number and choice, evenly spread in [0, 1)") {
  CHECK(uniform_number(1, 2) == uniform_number(1, 2));
  CHECK(uniform_number(1, 2) != uniform_number(2, 2));
  CHECK(uniform_number(1, 2) != uniform_number(1, 3));
  CHECK(uniform_number(1, 2, 1) != uniform_number(1, 2));
  CHECK(uniform_number(std::uint64_t{1} << 40, 2) != uniform_number(0, 2));
  constexpr int cells = 16, draws = 32000;
  std::vector<int> counts(cells);
  for (int i = 0; i < draws; ++i) {
    const float u = uniform_number(42, i);
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    ++counts[static_cast<std::size_t>(u * cells)];
  }
  double chi_square = 0;
  for (const int count : counts) {
    chi_square += (count - draws / cells) * (count - draws / cells) / static_cast<double>(draws / cells);
  }
  CHECK(chi_square < 55);  // 15 degrees of freedom: once in a million seeds
}

TEST_CASE("token counts: nothing to change without penalties, whatever the tokens") {
  TokenCounts counts({}, std::vector<std::int32_t>{1, 2, 3});
  counts.add(5);
  CHECK(entries_of(counts).empty());
}

TEST_CASE("token counts: penalties of the prompt's and of generated tokens, biases and bans") {
  SamplingParameters parameters{.repetition_penalty = 1.25,
                                .presence_penalty = 0.5,
                                .frequency_penalty = 0.25,
                                .biases = {{7, 2.0F}, {2, -1.0F}},
                                .banned = {9, 3}};
  const std::vector<std::int32_t> prompt{2, 3, 2};
  TokenCounts counts(parameters, prompt);
  CHECK(entries_of(counts) ==
        Entries{{2, {1.25F, -1}}, {3, {1.25F, -infinite}}, {7, {1, 2}}, {9, {1, -infinite}}});
  for (const std::int32_t token : {4, 7, 4, 4, 2}) counts.add(token);
  CHECK(entries_of(counts) == Entries{{2, {1.25F, -1.75F}},
                                      {3, {1.25F, -infinite}},
                                      {4, {1.25F, -1.25F}},
                                      {7, {1.25F, 1.25F}},
                                      {9, {1, -infinite}}});
  parameters.penalize_prompt = false;
  TokenCounts generated_only(parameters, prompt);
  CHECK(entries_of(generated_only) ==
        Entries{{2, {1, -1}}, {3, {1, -infinite}}, {7, {1, 2}}, {9, {1, -infinite}}});
  generated_only.add(2);
  CHECK(entries_of(generated_only).at(2) == Entry{1.25F, -1.75F});
}

TEST_CASE("token counts: the entries of two sequences go through the operation, and draw what is left") {
  const std::vector<std::int32_t> none;
  TokenCounts first({.repetition_penalty = 2}, none), second({.banned = {1, 2}}, none);
  first.add(1), second.add(0);
  LogitEntries entries;
  first.append_entries(0, entries), second.append_entries(1, entries);
  std::vector<float> logits{1, 3, 2, 1, 3, 2}, temperature(2, 0), one(2, 1), zero(2, 0);
  std::vector<std::int32_t> tokens(2, -5), all(2, 0);
  const auto f32 = [](std::vector<float>& x) {
    return Tensor(x.data(), DType::f32, {static_cast<std::int64_t>(x.size())});
  };
  const auto i32 = [](std::vector<std::int32_t>& x) {
    return Tensor(x.data(), DType::i32, {static_cast<std::int64_t>(x.size())});
  };
  const auto ops = make_cpu_ops(1);
  const Tensor rows(logits.data(), DType::f32, {2, 3});
  ops->adjust_logits({.logits = rows,
                      .row = i32(entries.row),
                      .token = i32(entries.token),
                      .factor = f32(entries.factor),
                      .addend = f32(entries.addend)});
  ops->sample_tokens({.tokens = i32(tokens),
                      .logits = rows,
                      .temperature = f32(temperature),
                      .top_k = i32(all),
                      .top_p = f32(one),
                      .min_p = f32(zero),
                      .uniform = f32(zero)});
  CHECK(logits == std::vector<float>{1, 1.5, 2, 1, -infinite, -infinite});
  CHECK(tokens == std::vector<std::int32_t>{2, 0});
  entries.clear();
  CHECK(entries.size() == 0);
  CHECK(entries.addend.empty());
}
