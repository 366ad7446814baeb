// ServedEngine: an engine with its memory and what it generates, for tests.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "lib/infer/engine.h"
#include "tests/infer/runner.h"

namespace ratplus::test {

struct Output {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probabilities;
  std::vector<infer::TokenScore> tops;
  infer::End end = infer::End::none;

  bool same_bits(const Output& other) const {
    return tokens == other.tokens && end == other.end && tops.size() == other.tops.size() &&
           std::memcmp(log_probabilities.data(), other.log_probabilities.data(),
                       log_probabilities.size() * sizeof(float)) == 0 &&
           std::equal(tops.begin(), tops.end(), other.tops.begin(), [](const auto& x, const auto& y) {
             return x.token == y.token &&
                    std::memcmp(&x.log_probability, &y.log_probability, sizeof(float)) == 0;
           });
  }
};

/// An engine with its memory.
class ServedEngine {
 public:
  ServedEngine(Ops& on, const InferenceCase& x, const infer::EngineSettings& settings) : arena_(on.device()) {
    const auto build = [&] {
      weights_ = std::make_unique<infer::Weights>(x.config, on, arena_);
      engine = std::make_unique<infer::Engine>(x.plan, settings, *weights_, on, arena_);
      return arena_.allocate(DType::u8,
                             {on.scratch_bytes(infer::Pass::op_shapes(x.config, settings.tokens))});
    };
    build();
    arena_.commit();
    on.use_scratch(build());
    engine->prepare();
    weights_->set_initial(3);
  }

  std::map<std::int64_t, Output> run() {
    std::map<std::int64_t, Output> outputs;
    while (!engine->idle()) collect(engine->step(), outputs);
    return outputs;
  }
  static void collect(const std::vector<infer::Event>& events, std::map<std::int64_t, Output>& outputs) {
    for (const auto& event : events) {
      auto& output = outputs[event.request];
      CHECK(output.end == infer::End::none);
      output.tokens.push_back(event.token);
      output.log_probabilities.push_back(event.log_probability);
      output.tops.insert(output.tops.end(), event.top.begin(), event.top.end());
      output.end = event.end;
    }
  }

  std::unique_ptr<infer::Engine> engine;

 private:
  Arena arena_;
  std::unique_ptr<infer::Weights> weights_;
};

}  // namespace ratplus::test
