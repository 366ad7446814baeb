// Models of every mixer give the same losses, gradients and weights on any number of ranks and with any sharding.
#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <span>

#include "lib/model/mixers.h"
#include "lib/session/session.h"
#include "tests/support/ranks.h"

using namespace ratplus;
using model::MixerConfig;
using model::MixerKind;
using parallel::Sharding;

namespace {

constexpr std::int64_t window = 21, batch = 12, vocabulary = 50;

std::vector<model::ModelConfig> models() {
  const MixerConfig rat{.kind = MixerKind::rat, .chunk = 6, .groups = 2};
  const MixerConfig local{.kind = MixerKind::local_attention, .window = 5};
  const MixerConfig rnn{.kind = MixerKind::rnn, .memory = 16};
  const auto of = [](std::int64_t kv_heads, std::vector<MixerConfig> mixers) {
    return model::ModelConfig{.layers = 4,
                              .width = 64,
                              .head_dim = 16,
                              .kv_heads = kv_heads,
                              .vocab_size = vocabulary,
                              .mixers = std::move(mixers)};
  };
  return {of(0, {rat, local, rat, local}), of(0, {rnn, {MixerKind::attention}, rat, {MixerKind::ratplus}}),
          of(2, {{MixerKind::attention}, {MixerKind::ratplus}, local, {MixerKind::gated_attention}})};
}

/// Two updates by the gradient alone, in micro-batches of one sequence: the batch is divided over the world's ranks.
struct Training {
  Training(const model::ModelConfig& config, const parallel::Settings& parallel, const parallel::World& over)
      : world(over),
        session({.model = config,
                 .shapes = {1, window},
                 .parallel = parallel,
                 .optimizer = {},
                 .precision = DType::f32,
                 .threads = 1},
                over) {
    session.set_initial_weights(3);
    for (int update = 0; update < 2; ++update) losses.push_back(run(update));
  }

  double run(int update) {
    auto& store = session.store();
    const std::int64_t each = batch / world.size();
    std::vector<std::int32_t> inputs(window), labels(window);
    store.begin_update();
    for (std::int64_t i = 0; i < each; ++i) {
      const std::int64_t sequence = world.rank() * each + i;
      for (std::int64_t t = 0; t < window; ++t) {
        const auto token = [&](std::int64_t at) {
          return static_cast<std::int32_t>((5 * at * at + at + 11 * sequence + 7 * update) % vocabulary);
        };
        inputs[static_cast<std::size_t>(t)] = token(t);
        labels[static_cast<std::size_t>(t)] = token(t + 1);
      }
      store.begin_micro_batch(i + 1 == each);
      session.model().forward_backward(inputs, labels, model::PatternPlan(), 1.0 / (batch * window));
    }
    store.finish_gradients();
    gradients.clear();
    for (std::size_t u = 0; u < store.units().size(); ++u) {
      const auto gradient = store.gradient_part(u), master = store.master(u);
      float* weights = master.as<float>();
      const float* slope = gradient.as<float>();
      gradients.emplace_back(slope, slope + gradient.numel());
      for (std::int64_t i = 0; i < gradient.numel(); ++i) weights[i] -= 0.5F * slope[i];
      store.publish(u);
    }
    return world.sum(session.model().take_loss()) / (batch * window);
  }

  const parallel::World& world;
  session::Session session;
  std::vector<double> losses;
  std::vector<std::vector<float>> gradients;  ///< of the last update, by unit: this rank's part
};

/// ||part - whole|| / ||whole|| over all ranks' parts of a unit.
double difference(Training& parts, Training& whole, std::size_t unit) {
  const auto owned = parts.session.store().owned(unit);
  double squares = 0, norm = 0;
  for (std::int64_t i = owned.begin; i < owned.end; ++i) {
    const double a = parts.gradients[unit][static_cast<std::size_t>(i - owned.begin)];
    const double b = whole.gradients[unit][static_cast<std::size_t>(i)];
    squares += (a - b) * (a - b);
    norm += b * b;
  }
  return std::sqrt(world().sum(squares) / world().sum(norm));
}

}  // namespace

TEST_CASE("models of every mixer agree over ranks and shardings") {
  const auto alone = parallel::World::solo();
  for (const auto& config : models()) {
    CAPTURE(model::describe_mixers(config));
    Training whole(config, {}, alone);
    CHECK(whole.losses[1] < whole.losses[0]);
    for (const auto shard : {Sharding::none, Sharding::optimizer, Sharding::full}) {
      for (const auto reduce : {parallel::Reduce::f32, parallel::Reduce::bf16}) {
        CAPTURE(std::string(to_string(shard)));
        CAPTURE(std::string(to_string(reduce)));
        Training parts(config, {.shard = shard, .reduce = reduce}, world());
        const bool rounded = reduce == parallel::Reduce::bf16 && world().size() > 1;
        CHECK(std::abs(parts.losses[0] - whole.losses[0]) < 1e-6 * whole.losses[0]);
        CHECK(std::abs(parts.losses[1] - whole.losses[1]) < (rounded ? 1e-3 : 1e-6) * whole.losses[1]);
        const auto& units = parts.session.store().units();
        CHECK((units.back().name == "gates") == model::has_gates(config));
        for (std::size_t u = 0; u < units.size(); ++u) {
          CAPTURE(units[u].name);
          CHECK(difference(parts, whole, u) < (rounded ? 2e-2 : 5e-5));
        }
      }
    }
  }
}

TEST_CASE("the biases of gates are summed in float32 where other gradients travel in bfloat16") {
  if (world().size() == 1) return;  // nothing travels
  const auto alone = parallel::World::solo();
  const auto config = models().front();
  const auto gates = static_cast<std::size_t>(config.layers + 1);
  for (const auto shard : {Sharding::none, Sharding::full}) {
    CAPTURE(std::string(to_string(shard)));
    Training whole(config, {}, alone),
        parts(config, {.shard = shard, .reduce = parallel::Reduce::bf16}, world());
    // From the same weights again: the first update's gradients, before any rounding has reached the weights.
    for (Training* training : {&whole, &parts}) {
      training->session.set_initial_weights(3);
      training->run(0);
    }
    CHECK(difference(parts, whole, gates) < 1e-5);
    CHECK(difference(parts, whole, gates - 1) > 1e-4);
  }
}
