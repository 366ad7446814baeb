// Prompts that begin alike: computed once, with the bits of each alone.
#include <doctest/doctest.h>

#include <random>

#include "tests/infer/served_engine.h"

using namespace ratplus;

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t crowd_size = 20;
#else
constexpr std::size_t crowd_size = 50;
#endif

std::vector<std::int32_t> random_tokens(std::mt19937& random, std::int64_t count) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(random() % 97));
  return tokens;
}

/// Prompts that begin with those before them, cut anywhere, and go on by themselves; some are there twice.
std::vector<infer::Request> branching_requests(std::mt19937& random, std::int64_t tokens) {
  std::vector<infer::Request> requests;
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  while (requests.size() < crowd_size) {
    infer::Request request;
    if (!requests.empty() && random() % 4 != 0) {
      request.prompt = requests[random() % requests.size()].prompt;
      if (random() % 4 != 0)
        request.prompt.resize(static_cast<std::size_t>(below(std::ssize(request.prompt)) + 1));
    }
    const auto room = tokens - 30 - std::ssize(request.prompt);
    if (request.prompt.empty() || random() % 3 != 0) {
      const auto more = random_tokens(random, 1 + below(room));
      request.prompt.insert(request.prompt.end(), more.begin(), more.end());
    }
    request.max_tokens = 1 + below(30);
    request.sampling = {
        .temperature = 0.8, .repetition_penalty = random() % 2 == 0 ? 1.0 : 1.3, .seed = random()};
    request.log_probabilities = 2;
    requests.push_back(request);
  }
  return requests;
}

infer::EngineSettings settings_of(const test::InferenceCase& x, std::int64_t tokens, double prefixes) {
  infer::EngineSettings settings{.tokens = tokens, .slots = 5, .sequences = 4, .rows = 400};
  const infer::CacheShape shape(x.config, x.plan, tokens);
  const auto least = infer::Engine::least_prefix_bytes(shape, settings, DType::f32);
  settings.prefix_bytes = static_cast<std::int64_t>(prefixes * static_cast<double>(least));
  return settings;
}

}  // namespace

TEST_CASE(
    "requests whose prompts begin alike have the same bits with and without reuse, under every pattern") {
  for (const auto& mode : test::modes()) {
    std::int64_t hits = 0;
    for (const auto& x : test::inference_cases()) {
      CAPTURE(mode.name);
      CAPTURE(x.name);
      const auto ops = test::ops_of(mode), own = test::ops_of(mode);
      std::mt19937 random(11);
      constexpr std::int64_t tokens = 600;
      const auto requests = branching_requests(random, tokens);
      const auto settings = settings_of(x, tokens, 9.5);
      test::ServedEngine reusing(*ops, x, settings), plain(*own, x, settings_of(x, tokens, 0));
      std::map<std::int64_t, test::Output> outputs;
      std::map<std::int64_t, std::size_t> numbers;
      for (std::size_t next = 0; next < requests.size() || !reusing.engine->idle();) {
        for (auto arrivals = random() % 4; arrivals > 0 && next < requests.size(); --arrivals) {
          numbers[reusing.engine->add(requests[next])] = next;
          ++next;
        }
        if (random() % 9 == 0 && !numbers.empty()) {  // one leaves, others may wait for its prompt
          const auto gone =
              std::next(numbers.begin(), static_cast<std::ptrdiff_t>(random() % numbers.size()));
          reusing.engine->cancel(gone->first);
          outputs.erase(gone->first);
          numbers.erase(gone);
        }
        test::ServedEngine::collect(reusing.engine->step(), outputs);
        CHECK(reusing.engine->prefix_use().bytes <= settings.prefix_bytes);
      }
      const auto use = reusing.engine->prefix_use();
      hits += use.hits;
      CHECK(use.hits > 0);
      CHECK(use.tokens > 0);
      CHECK(use.snapshots > 1);
      CHECK(reusing.engine->caches().bytes_in_use() == 0);
      REQUIRE(outputs.size() == numbers.size());
      for (const auto& [number, i] : numbers) {
        const auto alone = plain.engine->add(requests[i]);
        CHECK(plain.run().at(alone).same_bits(outputs.at(number)));
      }
      reusing.engine->forget_prefixes();
      CHECK(reusing.engine->prefix_use().bytes == 0);
    }
    CHECK(hits > 75);
  }
}

TEST_CASE("answers to one prompt compute it once, without snapshots too") {
  const test::InferenceCase x{"", test::small_model({{}}), model::PatternPlan(Pattern{16, 24, 4})};
  const auto ops = make_cpu_ops(1);
  std::mt19937 random(2);
  test::ServedEngine served(*ops, x, {.tokens = 400, .slots = 6, .sequences = 6, .rows = 256});
  infer::Request request{.prompt = random_tokens(random, 300), .max_tokens = 9, .sampling = {.seed = 4}};
  for (request.choice = 0; request.choice < 6; ++request.choice) served.engine->add(request);
  const auto first = served.engine->step();  // of 300 tokens 256
  CHECK(first.empty());
  CHECK(served.engine->step().size() == 6);
  const auto use = served.engine->prefix_use();
  CHECK(use.hits == 5);
  CHECK(use.tokens == 1500);
  CHECK(use.snapshots == 0);
}

TEST_CASE("of those that wait for the prompt of one that leaves, the one with the most room computes it") {
  const test::InferenceCase x{"", test::small_model({{}}), model::PatternPlan(Pattern{16, 256, 4})};
  for (const double prefixes : {0.0, 9.5}) {
    CAPTURE(prefixes);
    const auto ops = make_cpu_ops(1), own = make_cpu_ops(1);
    std::mt19937 random(3);
    auto settings = settings_of(x, 1200, prefixes);
    settings.rows = 512, settings.sequences = 5;
    test::ServedEngine served(*ops, x, settings), alone(*own, x, settings_of(x, 1200, 0));
    const infer::Request before{.prompt = random_tokens(random, 1100), .max_tokens = 2};
    infer::Request request{
        .prompt = random_tokens(random, 200), .sampling = {.seed = 4}, .log_probabilities = 2};
    served.engine->add(before);
    std::map<std::int64_t, infer::Request> requests;
    for (const std::int64_t max_tokens : {512, 16, 512, 40}) {
      request.max_tokens = max_tokens;
      ++request.choice;
      requests[served.engine->add(request)] = request;
    }
    // The cache of 16 tokens more has no dilated entries, and those of 512 more do.
    REQUIRE_FALSE(served.engine->caches().has_all(215, 200, 711));
    CHECK(served.engine->step().empty());
    served.engine->cancel(requests.begin()->first);
    requests.erase(requests.begin());
    const auto outputs = served.run();
    CHECK(served.engine->prefix_use().hits == 2);
    CHECK(served.engine->caches().bytes_in_use() == 0);
    for (const auto& [number, each] : requests) {
      const auto of_alone = alone.engine->add(each);
      CHECK(alone.run().at(of_alone).same_bits(outputs.at(number)));
    }
  }
}

TEST_CASE("a prompt is kept to its last multiple of 128 tokens, and where another parted from it") {
  const test::InferenceCase x{"", test::small_model({{}}), model::PatternPlan(Pattern{16, 24, 4})};
  const auto ops = make_cpu_ops(1);
  std::mt19937 random(2);
  test::ServedEngine served(*ops, x, settings_of(x, 800, 8));
  auto& engine = *served.engine;
  const auto saved_by = [&](std::vector<std::int32_t> prompt) {
    const auto before = engine.prefix_use().tokens;
    engine.add({.prompt = std::move(prompt), .max_tokens = 2});
    served.run();
    return engine.prefix_use().tokens - before;
  };
  const auto with_end = [&](std::vector<std::int32_t> prompt, std::int64_t shared, std::int64_t more) {
    prompt.resize(static_cast<std::size_t>(shared));
    const auto end = random_tokens(random, more);
    prompt.insert(prompt.end(), end.begin(), end.end());
    return prompt;
  };
  const auto prompt = random_tokens(random, 700);
  CHECK(saved_by(prompt) == 0);
  CHECK(saved_by(prompt) == 640);
  CHECK(saved_by(with_end(prompt, 700, 50)) == 640);
  CHECK(saved_by(with_end(prompt, 400, 200)) == 0);  // leaves a snapshot at 384
  CHECK(saved_by(with_end(prompt, 400, 100)) == 384);
  CHECK(saved_by(with_end(prompt, 384, 1)) == 384);
  CHECK(saved_by(with_end(prompt, 384, 0)) == 0);  // one token at least is computed
  CHECK(saved_by(with_end(prompt, 127, 300)) == 0);
  engine.forget_prefixes();
  CHECK(saved_by(prompt) == 0);
  // The least recently used goes: more prompts than there is room for.
  for (int i = 0; i < 12; ++i) CHECK(saved_by(random_tokens(random, 130)) == 0);
  CHECK(saved_by(prompt) == 0);
  CHECK(saved_by(prompt) == 640);
  // Prompts that wait together: the first leaves a snapshot where they part.
  const auto shared = random_tokens(random, 300);
  const auto before = engine.prefix_use();
  for (int i = 0; i < 3; ++i) engine.add({.prompt = with_end(shared, 300, 200), .max_tokens = 2});
  served.run();
  CHECK(engine.prefix_use().hits - before.hits == 2);
  CHECK(engine.prefix_use().tokens - before.tokens == 2 * 256);
}
