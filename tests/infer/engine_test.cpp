// The engine: what it generates, whoever else is there.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "base/error.h"
#include "lib/infer/engine.h"
#include "tests/infer/served_engine.h"

using namespace ratplus;
using test::Output;
using Served = test::ServedEngine;

namespace {

// Under the sanitizers a request takes ten times as long.
#ifdef __SANITIZE_ADDRESS__
constexpr int crowd_size = 120;
#else
constexpr int crowd_size = 1000;
#endif

test::InferenceCase ratplus_case() {
  return {"RAT+ 16,24,4", test::small_model({{}}), model::PatternPlan(Pattern{16, 24, 4})};
}

infer::Request random_request(std::mt19937& random, std::int64_t vocabulary, std::int64_t tokens) {
  infer::Request request;
  const auto prompt = 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(tokens - 41));
  for (std::int64_t i = 0; i < prompt; ++i)
    request.prompt.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocabulary)));
  request.max_tokens = 1 + static_cast<std::int64_t>(random() % 40);
  request.sampling = {.temperature = random() % 2 == 0 ? 0.0 : 0.8,
                      .top_k = 20,
                      .top_p = 0.95,
                      .repetition_penalty = random() % 2 == 0 ? 1.0 : 1.3,
                      .seed = random()};
  request.log_probabilities = random() % 3;
  return request;
}

}  // namespace

TEST_CASE("1,000 requests of all lengths, in random company: each has the bits that it has alone") {
  for (const auto& mode : test::modes()) {
    CAPTURE(mode.name);
    const auto x = ratplus_case();
    const auto ops = test::ops_of(mode);
    std::mt19937 random(5);
    constexpr std::int64_t tokens = 320;
    Served crowd(*ops, x, {.tokens = tokens, .slots = 17, .sequences = 9, .rows = 500});
    std::vector<infer::Request> requests;
    for (int i = 0; i < crowd_size; ++i)
      requests.push_back(random_request(random, x.config.vocab_size, tokens));
    std::map<std::int64_t, Output> together;
    for (std::size_t next = 0; next < requests.size() || !crowd.engine->idle();) {
      for (auto arrivals = random() % 4; arrivals > 0 && next < requests.size(); --arrivals)
        crowd.engine->add(requests[next++]);
      Served::collect(crowd.engine->step(), together);
    }
    CHECK(crowd.engine->caches().bytes_in_use() == 0);
    REQUIRE(together.size() == requests.size());
    const auto own = test::ops_of(mode);
    Served alone(*own, x, {.tokens = tokens, .slots = 1, .sequences = 1, .rows = 129});
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto number = alone.engine->add(requests[i]);
      const auto output = alone.run().at(number);
      CHECK(output.same_bits(together.at(static_cast<std::int64_t>(i))));
      CHECK(std::ssize(output.tokens) == requests[i].max_tokens);
    }
  }
}

TEST_CASE("stop tokens, cancelling and what is refused") {
  const auto x = ratplus_case();
  const auto ops = make_cpu_ops(1);
  Served served(*ops, x, {.tokens = 100, .slots = 2, .sequences = 2, .rows = 256});
  infer::Request greedy{.prompt = {1, 2, 3}, .max_tokens = 30, .sampling = {.temperature = 0}};
  served.engine->add(greedy);
  const auto whole = served.run().begin()->second;
  CHECK(whole.end == infer::End::length);
  // Stops with the first occurrence of a token that comes.
  greedy.stop_tokens = {whole.tokens[7]};
  const auto place = std::ranges::find(whole.tokens, whole.tokens[7]) - whole.tokens.begin();
  served.engine->add(greedy);
  const auto stopped = served.run().begin()->second;
  CHECK(stopped.end == infer::End::stop_token);
  CHECK(std::ssize(stopped.tokens) == place + 1);
  CHECK(std::equal(stopped.tokens.begin(), stopped.tokens.end(), whole.tokens.begin()));

  const auto first = served.engine->add(greedy), second = served.engine->add(greedy),
             third = served.engine->add(greedy);
  served.engine->step();
  served.engine->cancel(first);
  served.engine->cancel(third);
  served.engine->cancel(12345);
  const auto left = served.run();
  CHECK(left.size() == 1);
  CHECK(left.begin()->first == second);
  CHECK(served.engine->caches().bytes_in_use() == 0);

  const auto refused = [&](infer::Request request, const char* message) {
    std::string text;
    try {
      served.engine->check(request, "request 7");
    } catch (const Error& error) {
      text = error.what();
    }
    CAPTURE(text);
    CHECK(text.find(message) != std::string::npos);
    CHECK(text.find("request 7") == 0);
  };
  refused({.prompt = {}}, "the prompt is empty");
  refused({.prompt = {97}}, "token 97 is outside the model's vocabulary of 97");
  refused({.prompt = {-1}}, "token -1");
  refused({.prompt = {1}, .max_tokens = 0}, "at least 1");
  refused({.prompt = {1, 2}, .max_tokens = 99},
          "the prompt has 2 tokens and 99 more are asked for, and a sequence has at most 100");
  refused({.prompt = {1}, .stop_tokens = {200}}, "stop token 200");
  refused({.prompt = {1}, .sampling = {.temperature = -1}}, "temperature");
  refused({.prompt = {1}, .log_probabilities = 21}, "at most 20");
}

TEST_CASE("log-probabilities of the model's own logits beside penalties are those without their neighbours") {
  const auto x = ratplus_case();
  const auto ops = make_cpu_ops(1);
  std::mt19937 random(9);
  constexpr std::int64_t tokens = 120;
  Served crowd(*ops, x, {.tokens = tokens, .slots = 80, .sequences = 80, .rows = 2000});
  std::vector<infer::Request> requests;
  for (int i = 0; i < 80; ++i) {  // more than are drawn at a time
    requests.push_back(random_request(random, x.config.vocab_size, 60));
    if (i % 3 == 0) requests.back().log_probabilities = {};
    requests.back().sampling.banned = {static_cast<std::int32_t>(i)};
    crowd.engine->add(requests.back());
  }
  const auto together = crowd.run();
  const auto own = make_cpu_ops(1);
  Served alone(*own, x, {.tokens = tokens, .slots = 1, .sequences = 1, .rows = 129});
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto number = alone.engine->add(requests[i]);
    const auto output = alone.run().at(number);
    CHECK(output.same_bits(together.at(static_cast<std::int64_t>(i))));
    CHECK(std::ranges::count(output.tokens, static_cast<std::int32_t>(i)) == 0);
    if (!requests[i].log_probabilities || *requests[i].log_probabilities == 0) continue;
    // The likeliest by the model's own logits, though it may be banned.
    CHECK(output.log_probabilities.front() <= output.tops.front().log_probability);
  }
}
