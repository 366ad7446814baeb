#include "lib/model/parameters.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace ratplus;
using model::ModelConfig;

TEST_CASE("the published sizes have the published numbers of parameters (docs/model.md, section 20)") {
  CHECK(model::parameter_count({.layers = 24, .width = 2048}) == 1'474'922'496);
  CHECK(model::parameter_count({.layers = 32, .width = 4096}) == 7'647'531'008);
  CHECK(std::abs(static_cast<double>(model::parameter_count({.layers = 28, .width = 2560})) - 2.65e9) <
        0.01e9);
}

TEST_CASE("units hold every parameter once, without overlap, under the reference's names") {
  const ModelConfig config{.layers = 2, .width = 48, .head_dim = 16, .vocab_size = 31};
  const auto units = model::unit_layouts(config);
  REQUIRE(units.size() == 3);
  CHECK(units[0].resident);
  CHECK(units[0].slots[0].name == "embedding.wte.weight");
  CHECK(units[0].slots[1].name == "backbone.ln.weight");
  REQUIRE(units[2].slots.size() == 6);
  CHECK(units[2].slots[0].name == "backbone.layers.1.seq_layer.input_norm.weight");
  CHECK(units[2].slots[1].name == "backbone.layers.1.seq_layer.in_proj.weight");
  CHECK(units[2].slots[1].shape == std::vector<std::int64_t>{5 * 48, 48});
  CHECK(units[2].slots[2].name == "backbone.layers.1.seq_layer.out_proj.weight");
  CHECK(units[2].slots[3].name == "backbone.layers.1.hidden_layer.ln.weight");
  CHECK(units[2].slots[4].name == "backbone.layers.1.hidden_layer.fc1.weight");
  CHECK(units[2].slots[5].name == "backbone.layers.1.hidden_layer.fc2.weight");
  for (const auto& unit : units) {
    std::int64_t end = 0;
    for (const auto& slot : unit.slots) {
      CHECK(slot.offset >= end);
      CHECK(slot.offset % parallel::UnitLayout::alignment == 0);
      end = slot.offset + slot.numel;
    }
    CHECK(end <= unit.numel);
  }
}

TEST_CASE("a model may be dense unless each of its mixers has a sparse pattern of its own") {
  const model::MixerConfig rat{.kind = model::MixerKind::rat, .chunk = 16, .groups = 2},
      local{.kind = model::MixerKind::local_attention, .window = 64},
      rnn{.kind = model::MixerKind::rnn, .memory = 16};
  model::ModelConfig config;
  CHECK(config.may_be_dense());
  config.mixers = {rat, local, rnn};
  CHECK_FALSE(config.may_be_dense());
  config.mixers.push_back({.kind = model::MixerKind::attention});
  CHECK(config.may_be_dense());
}

TEST_CASE("without recurrence, in_proj has no gate rows") {
  const ModelConfig config{.layers = 1,
                           .width = 48,
                           .head_dim = 16,
                           .vocab_size = 31,
                           .mixers = {{model::MixerKind::gated_attention}}};
  CHECK(model::unit_layouts(config)[1].slots[1].shape == std::vector<std::int64_t>{4 * 48, 48});
}

TEST_CASE("initial values: any range gives the same elements; matrices are normal, norms are one") {
  const ModelConfig config{.layers = 1, .width = 64, .head_dim = 16, .vocab_size = 500};
  const auto units = model::unit_layouts(config);
  for (std::size_t u = 0; u < units.size(); ++u) {
    std::vector<float> whole(static_cast<std::size_t>(units[u].numel));
    model::initial_values(units[u], u, 0, whole, config, 3);
    for (const std::int64_t first : {1, 63, 1000, 4097}) {
      std::vector<float> part(200);
      model::initial_values(units[u], u, first, part, config, 3);
      CHECK(std::equal(part.begin(), part.end(), whole.begin() + first));
    }
    for (const auto& slot : units[u].slots) {
      CAPTURE(slot.name);
      double sum = 0;
      double squares = 0;
      for (std::int64_t i = slot.offset; i < slot.offset + slot.numel; ++i) {
        const double x = whole[static_cast<std::size_t>(i)];
        sum += x;
        squares += x * x;
      }
      const auto n = static_cast<double>(slot.numel);
      if (slot.shape.size() == 1) {
        CHECK(sum == n);
      } else {  // five standard errors
        CHECK(std::abs(sum / n) < 5 * 0.02 / std::sqrt(n));
        CHECK(std::abs(std::sqrt(squares / n) / 0.02 - 1) < 5 / std::sqrt(2 * n));
      }
    }
  }
}

TEST_CASE("initial values of two parameters, units or seeds are different") {
  const ModelConfig config{.layers = 2, .width = 64, .head_dim = 16, .vocab_size = 64};
  const auto units = model::unit_layouts(config);
  std::vector<float> a(4096);
  std::vector<float> b(4096);
  const auto fc1 = units[1].slots[4].offset;
  model::initial_values(units[1], 1, fc1, a, config, 3);
  model::initial_values(units[2], 2, fc1, b, config, 3);
  CHECK(a != b);
  model::initial_values(units[1], 1, fc1, b, config, 4);
  CHECK(a != b);
  model::initial_values(units[1], 1, units[1].slots[5].offset, b, config, 3);
  CHECK(a != b);
}
