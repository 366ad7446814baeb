// The whole model against PyTorch autograd in float64: losses, logits, and the gradient of every parameter.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "data/samples/cut_sequence.h"
#include "kernels/cpu/bf16.h"
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

using Gradients = std::vector<std::vector<float>>;  ///< of every parameter, unit by unit

/// Of the sum of a batch's losses times scale.
Gradients gradients_of(session::Session& session, const Batch& batch, const model::PatternPlan& plan,
                       double scale) {
  auto& store = session.store();
  store.begin_update();
  store.begin_micro_batch(true);
  session.model().forward_backward(batch.inputs, batch.labels, plan, scale);
  store.finish_gradients();
  Gradients gradients;
  for (std::size_t u = 0; u < store.units().size(); ++u) {
    for (const auto& slot : store.units()[u].slots)
      gradients.push_back(test::parameter(session.ops(), store.gradient_part(u), slot));
  }
  return gradients;
}

std::vector<std::string> names_of(session::Session& session) {
  std::vector<std::string> names;
  for (const auto& unit : session.store().units()) {
    for (const auto& slot : unit.slots) names.push_back(slot.name);
  }
  return names;
}

/// Rounds the weights of a session in float32 on the CPU to those that one in bfloat16 computes with: biases of gates stay.
void round_weights(session::Session& session) {
  auto& store = session.store();
  for (std::size_t u = 0; u < store.units().size(); ++u) {
    if (store.units()[u].name == "gates") continue;
    const Tensor weights = store.weights(u);
    float* const w = weights.as<float>();
    for (std::int64_t i = 0; i < weights.numel(); ++i) {
      w[i] = cpu::to_float(cpu::to_bf16(w[i]));
    }
  }
}

void check_close(const std::vector<std::string>& names, const Gradients& found, const Gradients& exact,
                 double tolerance) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    CAPTURE(names[i]);
    CHECK(relative_error(found[i], exact[i]) < tolerance);
  }
}

/// Compares gradients in bfloat16 with float32's at the same rounded weights. Allowed of each tensor: the tolerance or, if it is
/// more, twice the change that rounding the weights makes (these models are made to be sensitive: weights of 0.25, peaked
/// attention, 16 or 32 channels).
void check_rounded(const std::vector<std::string>& names, const Gradients& found, const Gradients& at_rounded,
                   const Gradients& exact, double tolerance) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    CAPTURE(names[i]);
    const double of_weights = relative_error(at_rounded[i], exact[i]);
    CHECK(relative_error(found[i], at_rounded[i]) < std::max(tolerance, 2 * of_weights));
  }
}

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
      const session::SessionSettings settings{.model = test::model_of(group),
                                              .shapes = {sequences, window},
                                              .optimizer = {},
                                              .device = mode.device,
                                              .precision = mode.precision,
                                              .threads = 2};
      session::Session session(settings, world());
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
      CHECK(std::abs(session.model().take_loss() / positions - loss) < mode.loss_tolerance * loss);

      const auto names = names_of(session);
      const auto gradients = gradients_of(session, batch, plan, 1 / positions);
      CHECK(std::abs(session.model().take_loss() / positions - loss) < mode.loss_tolerance * loss);
      CHECK(session.model().take_loss() == 0);
      Gradients exact;
      for (const auto& parameter : names)
        exact.push_back(file.array<float>("cases/" + name + "/gradients/" + parameter));
      REQUIRE(gradients.size() == exact.size());
      if (mode.precision == DType::f32) check_close(names, gradients, exact, mode.tolerance);
      if (mode.name == "cuda f32") continue;
      auto plain = settings;
      plain.device = DeviceChoice::cpu, plain.precision = DType::f32;
      session::Session rounded(plain, world());
      test::load_weights(rounded, file, group.string_attribute("weights"));
      round_weights(rounded);
      const auto at_rounded = gradients_of(rounded, batch, plan, 1 / positions);
      if (mode.precision == DType::bf16) {
        check_rounded(names, gradients, at_rounded, exact, mode.tolerance);
      } else {
        check_close(names, at_rounded, exact, 2.6e-2);  // bounds what check_rounded allows
      }
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
      const double tolerance = mode.precision == DType::bf16 ? 5e-3 : 1e-6;
      CHECK(relative_error(in_two, whole) < tolerance);
      CHECK(relative_error(gradient(mode, 1), whole) < tolerance);
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

TEST_CASE("gradients in bfloat16 are float32's to 2e-2, tensor by tensor, at initial weights") {
  for (const auto& config : small_models()) {
    CAPTURE(model::describe_mixers(config));
    const std::int64_t window = 64, sequences = 4;
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(sequences * (window + 1)));
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = static_cast<std::int32_t>((i * i + 7 * i) % 50);
    const auto batch = cut(tokens, sequences, window, 2);
    std::vector<std::string> names;
    const auto gradients = [&](DeviceChoice device, DType precision, bool rounds) {
      session::Session session({.model = config,
                                .shapes = {sequences, window},
                                .optimizer = {},
                                .device = device,
                                .precision = precision,
                                .threads = 1},
                               world());
      session.set_initial_weights(5);
      if (rounds) round_weights(session);
      names = names_of(session);
      return gradients_of(session, batch, model::PatternPlan(Pattern{4, 3, 1}), 1e-2);
    };
    const auto exact = gradients(DeviceChoice::cpu, DType::f32, false);
    const auto at_rounded = gradients(DeviceChoice::cpu, DType::f32, true);
    check_close(names, at_rounded, exact, 1e-2);
    for (const auto& mode : modes()) {
      if (mode.precision == DType::bf16) {
        check_close(names, gradients(mode.device, mode.precision, false), exact, mode.tolerance);
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
