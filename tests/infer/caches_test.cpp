#include <doctest/doctest.h>

#include <algorithm>

#include "tests/infer/runner.h"

using namespace ratplus;

TEST_CASE("a cache's entries are distinct, and as many as the pattern promises") {
  constexpr auto none = Pattern::no_dilation;
  for (const Pattern pattern :
       {Pattern{1, 5, 3}, Pattern{16, 0, 4}, Pattern{16, 24, 4}, Pattern{none, 32, 2}, Pattern{none, 0, 0},
        Pattern{4, 3, 2}, Pattern{7, 130, 9}, Pattern{3, 2, 7}}) {
    CAPTURE(to_string(pattern));
    const CacheLayout layout(pattern);
    std::vector<std::int64_t> entry_of_position;  // where each token lies that something can still attend to
    for (std::int64_t t = 0; t < 300; ++t) {
      const auto runs = layout.runs(t);
      std::vector<std::int64_t> entries, positions;
      for (std::int64_t j = 0; j < runs.keys(); ++j) {
        entries.push_back(layout.entry(runs, j));
        positions.push_back(layout.position(runs, j));
        // The entry is one that the token was written to.
        const auto s = positions.back();
        CHECK((entries.back() == layout.recent_entry(s) || entries.back() == layout.dilated_entry(s)));
        CHECK(entries.back() < layout.places(t));
      }
      std::vector<std::int64_t> wanted;
      for (std::int64_t s = 0; s < t; ++s) {
        if (pattern.attends(t, s)) wanted.push_back(s);
      }
      std::ranges::sort(positions);
      CHECK(positions == wanted);
      std::ranges::sort(entries);
      CHECK(std::ranges::adjacent_find(entries) == entries.end());
      CHECK((entries.empty() || (entries.front() == 0 && entries.back() == runs.keys() - 1)));
    }
    const auto dilated = pattern.dilation == none ? 0 : 4096 / pattern.dilation;
    CHECK(layout.places(4096) <= pattern.sinks + pattern.window + dilated + 1);
  }
}

namespace {

/// Logits after each of these tokens, one step each.
std::vector<float> run_steps(test::Runner& runner, int slot, std::span<const std::int32_t> tokens) {
  std::vector<float> all;
  for (const auto token : tokens) {
    const infer::Step step{slot, token};
    runner.pass->run({}, {&step, 1});
    const std::int64_t row = 0;
    const auto logits = runner.logits({&row, 1});
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

std::vector<std::int32_t> numbers(std::int64_t count, std::int64_t factor) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(i * factor % 97));
  return tokens;
}

}  // namespace

TEST_CASE("a copy of a sequence goes on as the first does, and neither disturbs the other") {
  for (const auto& mode : test::modes()) {
    for (const auto& x : test::inference_cases()) {
      CAPTURE(mode.name);
      CAPTURE(x.name);
      const auto ops = test::ops_of(mode);
      test::Runner runner(*ops, x, 400, 3, 256);
      const auto prompt = numbers(230, 31), one = numbers(40, 7), other = numbers(60, 11);
      const int first = runner.caches->open(400);
      for (const std::int64_t begin : {0, 128}) {
        const infer::Piece piece{
            first, begin,
            std::span(prompt).subspan(static_cast<std::size_t>(begin)).first(begin == 0 ? 128 : 102)};
        runner.pass->run({&piece, 1}, {});
      }
      const auto before = runner.caches->bytes_in_use();
      const int second = runner.caches->copy(first, 300), third = runner.caches->copy(first, 290);
      CHECK(runner.caches->length(second) == 230);
      CHECK(runner.caches->bytes_in_use() <= 3 * before);
      const auto of_second = run_steps(runner, second, one);
      const auto of_first = run_steps(runner, first, other);
      CHECK(run_steps(runner, third, one) == of_second);
      runner.caches->drop(second);
      runner.caches->drop(third);
      const int fourth = runner.caches->open(400);  // on pages that others had
      for (const std::int64_t begin : {0, 128}) {
        const infer::Piece piece{
            fourth, begin,
            std::span(prompt).subspan(static_cast<std::size_t>(begin)).first(begin == 0 ? 128 : 102)};
        runner.pass->run({&piece, 1}, {});
      }
      CHECK(run_steps(runner, fourth, other) == of_first);
      runner.caches->drop(first);
      runner.caches->drop(fourth);
      CHECK(runner.caches->bytes_in_use() == 0);
      CHECK(runner.caches->open_sequences() == 0);
    }
  }
}

TEST_CASE("a sequence can be cut where nothing that it would need is gone") {
  const auto ops = make_cpu_ops(1);
  const auto cut_works = [&](const test::InferenceCase& x, std::int64_t length) {
    test::Runner runner(*ops, x, 200, 1, 256);
    const int slot = runner.caches->open(200);
    const auto tokens = numbers(90, 31), more = numbers(20, 5);
    run_steps(runner, slot, tokens);
    if (!runner.caches->can_cut(slot, length)) return false;
    runner.caches->cut(slot, length);
    const auto after = run_steps(runner, slot, more);
    runner.caches->drop(slot);
    const int again = runner.caches->open(200);
    run_steps(runner, again, std::span(tokens).first(static_cast<std::size_t>(length)));
    CHECK(run_steps(runner, again, more) == after);
    return true;
  };
  using model::MixerKind;
  CHECK(cut_works({"", test::small_model({{.kind = MixerKind::attention}}), model::PatternPlan()}, 33));
  CHECK(cut_works(
      {"", test::small_model({{.kind = MixerKind::gated_attention}}), model::PatternPlan(Pattern{16, 0, 4})},
      41));
  CHECK(cut_works({"", test::small_model({{}}), model::PatternPlan()}, 0));
  CHECK_FALSE(cut_works({"", test::small_model({{}}), model::PatternPlan()}, 33));
  CHECK_FALSE(cut_works(
      {"", test::small_model({{.kind = MixerKind::attention}}), model::PatternPlan(Pattern{16, 24, 4})}, 88));
}

TEST_CASE("a sequence is opened only where its whole length has room") {
  const auto ops = make_cpu_ops(1);
  const test::InferenceCase x{"", test::small_model({{}}), model::PatternPlan(Pattern{16, 0, 4})};
  test::Runner runner(*ops, x, 512, 2, 256);
  CHECK(runner.caches->fits(512));
  CHECK_FALSE(runner.caches->fits(513));
  const int a = runner.caches->open(512), b = runner.caches->open(1);
  CHECK_FALSE(runner.caches->fits(1));
  runner.caches->drop(a);
  CHECK(runner.caches->fits(512));
  CHECK_THROWS_AS(runner.caches->drop(a), std::logic_error);
  CHECK_THROWS_AS(runner.caches->advance(b, 2), std::logic_error);
  const auto elements = 3 * (4 * 2 * 8 * 16);  // layers x a page of 8 entries of 4 heads of 16 channels
  CHECK(runner.shape.sequence_bytes(512, DType::f32) == 5 * (elements * 4 + 4) + 3 * 2 * 64 * 4);
}
