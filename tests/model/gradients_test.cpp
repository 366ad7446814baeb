// The whole model against PyTorch autograd in float64: losses, logits, and the gradient of every parameter.
#include <doctest/doctest.h>

#include <cmath>
#include <span>

#include "data/samples/cut_sequence.h"
#include "lib/model/mixers.h"
#include "lib/model/model.h"
#include "tests/support/modes.h"
#include "tests/support/ranks.h"
#include "tests/support/reference_file.h"

using namespace ratplus;
using test::Mode;
using test::modes;
using test::relative_error;

namespace {

struct Batch {
  std::vector<std::int32_t> inputs;
  std::vector<std::int32_t> labels;
  std::int64_t counted = 0;
};

Batch cut(const std::vector<std::int32_t>& tokens, std::int64_t batch, std::int64_t window,
          std::int32_t end_of_text) {
  Batch cut;
  cut.inputs.resize(static_cast<std::size_t>(batch * window));
  cut.labels.resize(cut.inputs.size());
  const auto T = static_cast<std::size_t>(window);
  for (std::size_t b = 0; b < static_cast<std::size_t>(batch); ++b) {
    cut.counted +=
        data::cut_sequence(std::span(tokens).subspan(b * (T + 1), T + 1), end_of_text,
                           std::span(cut.inputs).subspan(b * T, T), std::span(cut.labels).subspan(b * T, T));
  }
  return cut;
}

/// decoded: of each sequence's last position, as computed token by token from caches; may be empty.
void check_logits(session::Session& session, const Batch& batch, const model::PatternPlan& plan,
                  const std::vector<float>& stored, const std::vector<float>& decoded, std::int64_t window,
                  std::int64_t stride, double tolerance) {
  const auto& config = session.settings().model;
  const auto rows = static_cast<std::int64_t>(batch.inputs.size());
  auto& ops = session.ops();
  const Buffer memory(ops.device(), rows * config.vocab_size * 4), wide_memory(ops.device(), memory.bytes());
  const Tensor logits(memory.data(), ops.compute_type(), {rows, config.vocab_size}, ops.device());
  const Tensor wide(wide_memory.data(), DType::f32, {rows, config.vocab_size}, ops.device());
  session.model().logits(batch.inputs, plan, logits);
  ops.copy(wide, logits);
  std::vector<float> host(static_cast<std::size_t>(rows * config.vocab_size));
  ops.download(host.data(), wide);
  std::vector<float> picked;  // of the last sequence, positions stride - 1, 2 stride - 1, ...
  for (std::int64_t t = stride - 1; t < window; t += stride) {
    const float* row = host.data() + (rows - window + t) * config.vocab_size;
    picked.insert(picked.end(), row, row + config.vocab_size);
  }
  CHECK(relative_error(picked, stored) < tolerance);
  if (decoded.empty()) return;
  std::vector<float> last;
  for (std::int64_t row = window - 1; row < rows; row += window) {
    const float* logits_of_row = host.data() + row * config.vocab_size;
    last.insert(last.end(), logits_of_row, logits_of_row + config.vocab_size);
  }
  CHECK(relative_error(last, decoded) < tolerance);
}

void check_gradients(session::Session& session, const test::ReferenceFile& file, const std::string& group,
                     double tolerance) {
  auto& store = session.store();
  for (std::size_t u = 0; u < store.units().size(); ++u) {
    for (const auto& slot : store.units()[u].slots) {
      CAPTURE(slot.name);
      CHECK(relative_error(test::parameter(session.ops(), store.gradient_part(u), slot),
                           file.array<float>(group + "/gradients/" + slot.name)) < tolerance);
    }
  }
}

}  // namespace

namespace {

/// Every case of a file: the logits, the loss and the gradient of every parameter.
void check_cases(const char* name_of_file, std::size_t least) {
  const test::ReferenceFile file(name_of_file);
  const auto cases = file.group("cases").names();
  REQUIRE(cases.size() >= least);
  for (const auto& mode : modes()) {
    for (const auto& name : cases) {
      CAPTURE(mode.name);
      CAPTURE(name);
      const auto group = file.group("cases/" + name);
      const auto window = group.integer_attribute("window");
      const auto sequences = group.integer_attribute("batch");
      const auto plan = test::plan_of(group.string_attribute("patterns"));
      session::Session session({.model = test::model_of(group),
                                .shapes = {sequences, window},
                                .optimizer = {},
                                .device = mode.device,
                                .precision = mode.precision,
                                .threads = 2},
                               world());
      test::load_weights(session, file, group.string_attribute("weights"));
      const auto batch = cut(file.array<std::int32_t>(group.string_attribute("tokens")), sequences, window,
                             static_cast<std::int32_t>(group.integer_attribute("end_of_text")));
      const auto positions = static_cast<double>(batch.counted);
      const double loss = group.real_attribute("loss");

      check_logits(
          session, batch, plan, file.array<float>("cases/" + name + "/logits"),
          group.has("decode") ? file.array<float>("cases/" + name + "/decode") : std::vector<float>(), window,
          group.integer_attribute("logit_stride"), mode.tolerance);
      session.model().forward(batch.inputs, batch.labels, plan);
      CHECK(std::abs(session.model().take_loss() / positions - loss) < mode.tolerance * loss);

      session.store().begin_update();
      session.store().begin_micro_batch(true);
      session.model().forward_backward(batch.inputs, batch.labels, plan, 1 / positions);
      session.store().finish_gradients();
      CHECK(std::abs(session.model().take_loss() / positions - loss) < mode.tolerance * loss);
      CHECK(session.model().take_loss() == 0);
      check_gradients(session, file, "cases/" + name, mode.tolerance);
    }
  }
}

}  // namespace

TEST_CASE("losses, logits and gradients equal PyTorch's, for every pattern, with and without recurrence") {
  check_cases("gradients.h5", 14);
}

TEST_CASE("losses, logits and gradients of the RAT family and of shared keys equal PyTorch's") {
  check_cases("rat_family.h5", 14);
}

using model::MixerKind;

/// RAT+ alone, mixers of both kinds by layer, whose units have different layouts, the RAT family, and shared keys.
std::vector<model::ModelConfig> small_models() {
  const model::ModelConfig uniform{.layers = 2, .width = 32, .head_dim = 16, .vocab_size = 50};
  model::ModelConfig mixed = uniform;
  mixed.layers = 4;
  mixed.mixers = {
      {MixerKind::gated_attention}, {MixerKind::ratplus}, {MixerKind::ratplus}, {MixerKind::gated_attention}};
  const auto with = [&](std::int64_t layers, std::int64_t kv_heads, std::vector<model::MixerConfig> mixers) {
    model::ModelConfig config = uniform;
    config.layers = layers, config.width = 64, config.kv_heads = kv_heads, config.mixers = std::move(mixers);
    return config;
  };
  const model::MixerConfig rat{.kind = MixerKind::rat, .chunk = 6, .groups = 2};
  const model::MixerConfig local{.kind = MixerKind::local_attention, .window = 5};
  const model::MixerConfig rnn{.kind = MixerKind::rnn, .memory = 16};
  return {uniform,
          mixed,
          with(3, 0, {rat, local, rat}),
          with(3, 0, {{MixerKind::attention}, rnn, {MixerKind::ratplus}}),
          with(3, 2, {{MixerKind::attention}, {MixerKind::ratplus}, local}),
          with(2, 1, {{MixerKind::gated_attention}, {MixerKind::ratplus}})};
}

TEST_CASE("micro-batches add up to the gradient of the whole batch") {
  for (const auto& config : small_models()) {
    CAPTURE(model::describe_mixers(config));
    const model::PatternPlan plan(Pattern{4, 3, 1});
    const std::int64_t window = 40;
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(4 * (window + 1)));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<std::int32_t>((i * i + 7 * i) % 50);
    const auto batch = cut(tokens, 4, window, 2);

    const auto gradient = [&](const Mode& mode, std::int64_t micro_batch,
                              model::Recompute recompute = model::Recompute::none) {
      session::Session session({.model = config,
                                .shapes = {micro_batch, window, recompute},
                                .optimizer = {},
                                .device = mode.device,
                                .precision = mode.precision,
                                .threads = 1},
                               world());
      session.set_initial_weights(5);
      auto& store = session.store();
      store.begin_update();
      const auto rows = static_cast<std::size_t>(micro_batch * window);
      for (std::size_t at = 0; at < batch.inputs.size(); at += rows) {
        store.begin_micro_batch(at + rows == batch.inputs.size());
        session.model().forward_backward(std::span(batch.inputs).subspan(at, rows),
                                         std::span(batch.labels).subspan(at, rows), plan, 1e-2);
      }
      store.finish_gradients();
      std::vector<float> all;
      for (std::size_t u = 0; u < store.units().size(); ++u) {
        for (const auto& slot : store.units()[u].slots) {
          const auto part = test::parameter(session.ops(), store.gradient_part(u), slot);
          all.insert(all.end(), part.begin(), part.end());
        }
      }
      return all;
    };
    for (const auto& mode : modes()) {
      CAPTURE(mode.name);
      const auto whole = gradient(mode, 4);
      const auto in_two = gradient(mode, 2);
      CHECK(relative_error(in_two, whole) < mode.tolerance / 10);
      CHECK(relative_error(gradient(mode, 1), whole) < mode.tolerance / 10);
      // What is computed again is the same to the bit, and so is another run.
      CHECK(gradient(mode, 4) == whole);
      for (const auto recompute : {model::Recompute::cheap, model::Recompute::block}) {
        CAPTURE(to_string(recompute));
        CHECK(gradient(mode, 4, recompute) == whole);
        CHECK(gradient(mode, 2, recompute) == in_two);
      }
    }
  }
}

TEST_CASE("the gradient of a model with several mixers equals central differences") {
  for (const auto& config : small_models()) {
    CAPTURE(model::describe_mixers(config));
    const std::int64_t window = 20;
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(2 * (window + 1)));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<std::int32_t>((5 * i * i + i) % 50);
    const auto batch = cut(tokens, 2, window, 2);
    const model::PatternPlan plan(Pattern{4, 3, 1});
    session::Session session({.model = config,
                              .shapes = {2, window},
                              .optimizer = {},
                              .device = modes().front().device,
                              .precision = DType::f32,
                              .threads = 1},
                             world());
    session.set_initial_weights(5);
    auto& store = session.store();
    store.begin_update();
    store.begin_micro_batch(true);
    session.model().forward_backward(batch.inputs, batch.labels, plan, 1);
    store.finish_gradients();
    session.model().take_loss();
    // Each parameter by itself, along its own gradient: the loss grows by step times the gradient's norm.
    for (std::size_t u = 0; u < store.units().size(); ++u) {
      for (const auto& slot : store.units()[u].slots) {
        CAPTURE(slot.name);
        const auto gradient = test::parameter(session.ops(), store.gradient_part(u), slot);
        double norm = 0;
        for (const float g : gradient) norm += static_cast<double>(g) * g;
        norm = std::sqrt(norm);
        REQUIRE(norm > 0);
        float* weights = store.weights(u).as<float>() + slot.offset;
        const std::vector<float> before(weights, weights + slot.numel);
        const double step = 0.02;
        const auto loss_at = [&](double along) {
          for (std::size_t i = 0; i < before.size(); ++i) {
            weights[i] = static_cast<float>(before[i] + along * gradient[i] / norm);
          }
          session.model().forward(batch.inputs, batch.labels, plan);
          return session.model().take_loss();
        };
        const double slope = (loss_at(step) - loss_at(-step)) / (2 * step);
        std::copy(before.begin(), before.end(), weights);
        CHECK(std::abs(slope / norm - 1) < 5e-3);
      }
    }
  }
}

TEST_CASE("a model made for evaluation gives the losses of one made for training") {
  for (const auto& config : small_models()) {
    CAPTURE(model::describe_mixers(config));
    const std::int64_t window = 24;
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(2 * (window + 1)));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<std::int32_t>((3 * i * i + i) % 50);
    const auto batch = cut(tokens, 2, window, 2);
    const auto loss = [&](const Mode& mode, parallel::Use use) {
      session::Session session({.model = config,
                                .shapes = {2, window},
                                .use = use,
                                .optimizer = {},
                                .device = mode.device,
                                .precision = mode.precision,
                                .threads = 1},
                               world());
      session.set_initial_weights(11);
      session.model().forward(batch.inputs, batch.labels, model::PatternPlan(Pattern{8, 0, 1}));
      return session.model().take_loss();
    };
    for (const auto& mode : modes()) {
      CAPTURE(mode.name);
      const double training = loss(mode, parallel::Use::training);
      CHECK(training > 0);
      CHECK(loss(mode, parallel::Use::evaluation) == training);
    }
  }
}
