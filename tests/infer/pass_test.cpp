// Inference in pieces and steps against one forward of the whole sequence, and against itself in other company.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>

#include "lib/infer/scorer.h"
#include "lib/session/session.h"
#include "tests/infer/runner.h"
#include "tests/support/ranks.h"
#include "tests/support/reference_file.h"

using namespace ratplus;
using test::InferenceCase;
using test::Mode;
using test::modes;
using test::Runner;

namespace {

std::vector<std::int32_t> random_tokens(std::int64_t n, std::int64_t vocabulary, std::mt19937& random) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
  std::uniform_int_distribution<std::int32_t> one(0, static_cast<std::int32_t>(vocabulary) - 1);
  for (auto& token : tokens) token = one(random);
  return tokens;
}

/// Logits [tokens, V] of one forward by the training code.
std::vector<float> whole_forward(const InferenceCase& x, const Mode& mode,
                                 const std::vector<std::int32_t>& tokens) {
  const auto solo = parallel::World::solo();
  session::Session session({.model = x.config,
                            .shapes = {1, std::ssize(tokens)},
                            .use = parallel::Use::evaluation,
                            .optimizer = {},
                            .device = mode.device,
                            .precision = mode.precision,
                            .threads = 2},
                           solo);
  session.set_initial_weights(3);
  auto& ops = session.ops();
  const auto rows = std::ssize(tokens), v = x.config.vocab_size;
  const Buffer memory(ops.device(), rows * v * 4), wide_memory(ops.device(), rows * v * 4);
  const Tensor logits(memory.data(), ops.compute_type(), {rows, v}, ops.device());
  const Tensor wide(wide_memory.data(), DType::f32, {rows, v}, ops.device());
  session.model().logits(tokens, x.plan, logits);
  ops.copy(wide, logits);
  std::vector<float> host(static_cast<std::size_t>(rows * v));
  ops.download(host.data(), wide);
  return host;
}

/// The prompt in pieces that end at random multiples of prompt_cut; the logits of all its rows.
std::vector<float> prefill(Runner& runner, int slot, std::span<const std::int32_t> prompt,
                           std::mt19937& random) {
  std::vector<float> all;
  for (std::size_t begin = 0; begin < prompt.size();) {
    const auto blocks = (prompt.size() - begin + infer::prompt_cut - 1) / infer::prompt_cut;
    const auto end = std::min(prompt.size(), begin + infer::prompt_cut * (1 + random() % blocks));
    const infer::Piece piece{slot, static_cast<std::int64_t>(begin), prompt.subspan(begin, end - begin)};
    runner.pass->run({&piece, 1}, {});
    std::vector<std::int64_t> rows(end - begin);
    std::iota(rows.begin(), rows.end(), 0);
    const auto logits = runner.logits(rows);
    all.insert(all.end(), logits.begin(), logits.end());
    begin = end;
  }
  return all;
}

/// What the cache of a layer's group should hold for the token at t.
std::vector<std::int64_t> attended(const Pattern& pattern, std::int64_t t) {
  std::vector<std::int64_t> keys;
  for (std::int64_t s = 0; s < t; ++s) {
    if (pattern.attends(t, s)) keys.push_back(s);
  }
  return keys;
}

void check_held(const Runner& runner, int slot) {
  for (std::size_t layer = 0; layer < runner.shape.layers.size(); ++layer) {
    const auto& groups = runner.shape.layers[layer].groups;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      auto held = runner.caches->held(slot, static_cast<std::int64_t>(layer), g);
      std::ranges::sort(held);
      CHECK(held == attended(groups[g].pattern, runner.caches->length(slot)));
    }
  }
}

double distance(std::span<const float> a, std::span<const float> b) {
  return test::relative_error({a.begin(), a.end()}, {b.begin(), b.end()});
}

}  // namespace

TEST_CASE("a prompt in pieces, then steps, give the logits of one forward") {
  constexpr std::int64_t total = 420, steps = 100;
  std::mt19937 random(7);
  for (const auto& mode : modes()) {
    for (const auto& x : test::inference_cases()) {
      CAPTURE(mode.name);
      CAPTURE(x.name);
      const auto v = static_cast<std::size_t>(x.config.vocab_size);
      const auto tokens = random_tokens(total, x.config.vocab_size, random);
      const auto whole = whole_forward(x, mode, tokens);
      const auto ops = test::ops_of(mode);
      constexpr std::array<std::int64_t, 22> prompts{1,  2,  3,  4,  5,   15,  16,  17,  24,  25,  28,
                                                     29, 63, 64, 65, 127, 128, 129, 192, 256, 257, 320};
      Runner runner(*ops, x, total, std::ssize(prompts), 384);
      std::vector<int> slots;
      std::vector<std::vector<float>> logits;
      for (const auto prompt : prompts) {
        slots.push_back(runner.caches->open(prompt + steps));
        logits.push_back(
            prefill(runner, slots.back(), std::span(tokens).first(static_cast<std::size_t>(prompt)), random));
        check_held(runner, slots.back());
      }
      std::vector<std::int64_t> rows(prompts.size());
      std::iota(rows.begin(), rows.end(), 0);
      for (std::int64_t i = 0; i < steps; ++i) {
        std::vector<infer::Step> all;
        for (std::size_t s = 0; s < prompts.size(); ++s)
          all.push_back({slots[s], tokens[static_cast<std::size_t>(prompts[s] + i)]});
        runner.pass->run({}, all);
        const auto of_steps = runner.logits(rows);
        for (std::size_t s = 0; s < prompts.size(); ++s) {
          const auto first = of_steps.begin() + static_cast<std::ptrdiff_t>(s * v);
          logits[s].insert(logits[s].end(), first, first + static_cast<std::ptrdiff_t>(v));
        }
      }
      for (std::size_t s = 0; s < prompts.size(); ++s) {
        CAPTURE(prompts[s]);
        check_held(runner, slots[s]);
        CHECK(distance(logits[s], std::span(whole).first(static_cast<std::size_t>(prompts[s] + steps) * v)) <
              (mode.precision == DType::bf16 ? 2 : 1) * mode.tolerance);  // in bf16 both sides round
        runner.caches->drop(slots[s]);
      }
      CHECK(runner.caches->bytes_in_use() == 0);
    }
  }
}

TEST_CASE("a sequence has the same bits alone and in any company, however its prompt is cut") {
  constexpr std::int64_t total = 400, sequences = 6;
  std::mt19937 random(11);
  for (const auto& mode : modes()) {
    for (const auto& x : test::inference_cases()) {
      CAPTURE(mode.name);
      CAPTURE(x.name);
      const auto ops = test::ops_of(mode, 2);
      Runner runner(*ops, x, total, sequences, 700);
      const auto v = static_cast<std::size_t>(x.config.vocab_size);
      struct Sequence {
        std::vector<std::int32_t> tokens;
        std::int64_t prompt;
        std::vector<float> alone, together;  // logits of the prompt's last token and of every step
        int slot = -1;
        std::int64_t next = 0;
      };
      std::vector<Sequence> all(sequences);
      for (auto& s : all) {
        s.prompt = 1 + static_cast<std::int64_t>(random() % 300);
        s.tokens = random_tokens(s.prompt + 1 + static_cast<std::int64_t>(random() % 60), x.config.vocab_size,
                                 random);
        const int slot = runner.caches->open(std::ssize(s.tokens));
        const auto logits =
            prefill(runner, slot, std::span(s.tokens).first(static_cast<std::size_t>(s.prompt)), random);
        s.alone.assign(logits.end() - static_cast<std::ptrdiff_t>(v), logits.end());
        for (std::int64_t t = s.prompt; t < std::ssize(s.tokens); ++t) {
          const infer::Step step{slot, s.tokens[static_cast<std::size_t>(t)]};
          runner.pass->run({}, {&step, 1});
          const std::int64_t row = 0;
          const auto of_step = runner.logits({&row, 1});
          s.alone.insert(s.alone.end(), of_step.begin(), of_step.end());
        }
        runner.caches->drop(slot);
      }
      // Every pass has some random choice of pieces and steps.
      for (bool busy = true; busy;) {
        busy = false;
        std::vector<infer::Piece> pieces;
        std::vector<infer::Step> steps;
        std::vector<std::pair<Sequence*, std::int64_t>> wanted;  // and the row
        std::vector<Sequence*> stepping;
        std::int64_t rows = 0;
        for (auto& s : all) {
          if (s.next == std::ssize(s.tokens)) continue;
          busy = true;
          if (random() % 3 == 0) continue;
          if (s.slot < 0) s.slot = runner.caches->open(std::ssize(s.tokens));
          if (s.next >= s.prompt) {
            stepping.push_back(&s);
            continue;
          }
          const auto blocks = (s.prompt - s.next + infer::prompt_cut - 1) / infer::prompt_cut;
          const auto end = std::min(
              s.prompt, s.next + infer::prompt_cut * (1 + static_cast<std::int64_t>(random() % 3) % blocks));
          if (rows + end - s.next > 690) continue;
          pieces.push_back({s.slot, s.next,
                            std::span(s.tokens).subspan(static_cast<std::size_t>(s.next),
                                                        static_cast<std::size_t>(end - s.next))});
          rows += end - s.next;
          if (end == s.prompt) wanted.emplace_back(&s, rows - 1);
          s.next = end;
        }
        for (auto* s : stepping) {
          steps.push_back({s->slot, s->tokens[static_cast<std::size_t>(s->next++)]});
          wanted.emplace_back(s, rows++);
        }
        if (rows == 0) continue;
        std::vector<std::int64_t> of_rows;
        for (const auto& [s, row] : wanted) of_rows.push_back(row);
        runner.pass->run(pieces, steps, of_rows);
        if (wanted.empty()) continue;
        const auto logits = runner.logits(of_rows);
        for (std::size_t i = 0; i < wanted.size(); ++i) {
          auto& kept = wanted[i].first->together;
          kept.insert(kept.end(), logits.begin() + static_cast<std::ptrdiff_t>(i * v),
                      logits.begin() + static_cast<std::ptrdiff_t>((i + 1) * v));
        }
        for (auto& s : all) {
          if (s.slot >= 0 && s.next == std::ssize(s.tokens)) runner.caches->drop(std::exchange(s.slot, -1));
        }
      }
      for (const auto& s : all) {
        REQUIRE(s.alone.size() == s.together.size());
        CHECK(std::memcmp(s.alone.data(), s.together.data(), s.alone.size() * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("scores are the log-softmax of one forward, whoever else is scored") {
  std::mt19937 random(13);
  for (const auto& mode : modes()) {
    for (const auto& x : test::inference_cases()) {
      CAPTURE(mode.name);
      CAPTURE(x.name);
      const auto v = static_cast<std::size_t>(x.config.vocab_size);
      const auto ops = test::ops_of(mode);
      Arena arena(ops->device());
      const infer::ScorerSettings settings{.tokens = 200, .rows = 450};
      std::unique_ptr<infer::Weights> weights;
      std::unique_ptr<infer::Scorer> scorer;
      const auto build = [&] {
        weights = std::make_unique<infer::Weights>(x.config, *ops, arena);
        scorer = std::make_unique<infer::Scorer>(x.plan, settings, *weights, *ops, arena);
        return arena.allocate(DType::u8, {ops->scratch_bytes(infer::Pass::op_shapes(x.config, 200))});
      };
      build();
      arena.commit();
      ops->use_scratch(build());
      scorer->prepare();
      weights->set_initial(3);
      std::vector<infer::ScoreRequest> requests;
      for (const std::int64_t n : {200, 1, 2, 130, 199, 64, 3}) {
        infer::ScoreRequest request{
            .tokens = random_tokens(n, x.config.vocab_size, random), .tops = 3, .next = n % 2 == 0};
        request.first = 1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
        requests.push_back(request);
      }
      std::vector<infer::Scored> together(requests.size());
      scorer->score(requests, [&](std::size_t i, infer::Scored scored) { together[i] = std::move(scored); });
      for (std::size_t i = 0; i < requests.size(); ++i) {
        const auto& request = requests[i];
        infer::Scored alone;
        scorer->score({&request, 1}, [&](std::size_t, infer::Scored scored) { alone = std::move(scored); });
        CHECK(alone.log_probability == together[i].log_probability);
        const auto whole = whole_forward(x, mode, request.tokens);
        REQUIRE(std::ssize(alone.log_probability) == std::ssize(request.tokens) - request.first);
        REQUIRE(alone.top.size() == alone.log_probability.size() + (request.next ? 1 : 0));
        for (std::size_t j = 0; j < alone.top.size(); ++j) {
          const float* row = whole.data() + (static_cast<std::size_t>(request.first) + j - 1) * v;
          double sum = 0;
          for (std::size_t c = 0; c < v; ++c) sum += std::exp(static_cast<double>(row[c]));
          const double tolerance = mode.tolerance * 20;  // of logits up to 20
          if (j < alone.log_probability.size()) {
            const auto token =
                static_cast<std::size_t>(request.tokens[static_cast<std::size_t>(request.first) + j]);
            CHECK(std::abs(alone.log_probability[j] - (row[token] - std::log(sum))) < tolerance);
          }
          CHECK(std::abs(alone.top[j][0].log_probability -
                         (*std::max_element(row, row + v) - std::log(sum))) < tolerance);
          CHECK(alone.top[j][0].log_probability >= alone.top[j][1].log_probability);
        }
      }
    }
  }
}
