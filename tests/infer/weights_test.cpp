// Weights in bfloat16 on the CPU: the bits of the same values in float32, from half the memory.
#include "lib/infer/weights.h"

#include <doctest/doctest.h>

#include <numeric>

#include "lib/model/parameters.h"
#include "lib/weights/source.h"
#include "tests/infer/runner.h"

using namespace ratplus;
using weights::StoredType;

namespace {

/// A model's initial values, rounded as a file of a type holds them.
class InitialValues : public weights::WeightsSource {
 public:
  InitialValues(const model::ModelConfig& config, StoredType type)
      : type_(type), units_(model::unit_layouts(config)) {
    info_.model = config;
  }

  const char* format() const override { return "test"; }
  const checkpoint::Info& info() const override { return info_; }
  const std::vector<parallel::UnitLayout>& units() const override { return units_; }
  StoredType stored_type(std::size_t unit, std::size_t slot) const override {
    if (unit == other.unit && slot == other.slot) return other.type;
    return units_[unit].full_precision ? StoredType::float32 : type_;
  }
  void read(std::size_t unit, parallel::UnitRange range, float* out) override {
    const std::span<float> values(out, static_cast<std::size_t>(range.size()));
    model::initial_values(units_[unit], unit, range.begin, values, info_.model, 5);
    for (float& value : values) value *= 1.1F;  // norms' weights, which begin as 1, are rounded, too
    if (units_[unit].full_precision || type_ == StoredType::float32) return;
    std::vector<char> bytes(values.size() * 2);
    REQUIRE(checkpoint::encode(type_, values, bytes.data()));
    checkpoint::decode(type_, bytes.data(), values);
  }
  void expect_one_reading() override {}

  /// A parameter that is stored in another type.
  struct Other {
    std::size_t unit = 1000, slot = 0;
    StoredType type = StoredType::float32;
  };
  Other other = {};

 private:
  StoredType type_;
  checkpoint::Info info_;
  std::vector<parallel::UnitLayout> units_;
};

/// Logits of a prompt in two pieces, then of steps.
std::vector<float> logits_of(const test::InferenceCase& x, StoredType stored, DType type) {
  constexpr std::int64_t total = 150, prompt = 140;
  const auto ops = make_cpu_ops(2);
  test::Runner runner(*ops, x, total, 2, 128, 3, type);
  InitialValues source(x.config, stored);
  runner.weights->load(source);
  CHECK(runner.weights->layer(1).fc1.dtype() == type);
  CHECK(runner.weights->layer(1).ln.dtype() == DType::f32);
  std::vector<std::int32_t> tokens(total);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>((i * i + 3 * i) % static_cast<std::size_t>(x.config.vocab_size));
  const int slot = runner.caches->open(total);
  std::vector<float> all;
  const auto add = [&](std::int64_t count) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
    const auto logits = runner.logits(rows);
    all.insert(all.end(), logits.begin(), logits.end());
  };
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 128}, {128, prompt}}) {
    const auto piece =
        std::span(tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
    const infer::Piece of_prompt{slot, begin, piece};
    runner.pass->run({&of_prompt, 1}, {});
    add(end - begin);
  }
  for (std::int64_t t = prompt; t < total; ++t) {
    const infer::Step step{slot, tokens[static_cast<std::size_t>(t)]};
    runner.pass->run({}, {&step, 1});
    add(1);
  }
  return all;
}

}  // namespace

TEST_CASE("weights that are bfloat16 numbers give the same logits from memory in bfloat16 and in float32") {
  for (const auto& x : test::inference_cases()) {
    CAPTURE(x.name);
    const auto expected = logits_of(x, StoredType::bfloat16, DType::f32);
    CHECK(logits_of(x, StoredType::bfloat16, DType::bf16) == expected);
    CHECK(logits_of(x, StoredType::float32, DType::bf16) == expected);
    CHECK(logits_of(x, StoredType::float32, DType::f32) != expected);
  }
}

TEST_CASE("weights in bfloat16 take half the memory") {
  const auto config = test::inference_cases().front().config;
  const auto ops = make_cpu_ops(1);
  const auto bytes = [&](DType type) {
    Arena arena(ops->device());
    const infer::Weights counted(config, *ops, arena, type);
    return static_cast<double>(arena.total_bytes());
  };
  CHECK(bytes(DType::bf16) < 0.55 * bytes(DType::f32));
}

TEST_CASE("weights are bfloat16 where each parameter is stored so, but for biases of gates") {
  const auto config = test::small_model({{.kind = model::MixerKind::rat, .chunk = 16, .groups = 2}});
  InitialValues source(config, StoredType::bfloat16);
  CHECK(weights::is_bfloat16(source));
  int full = 0;
  for (std::size_t unit = 0; unit < source.units().size(); ++unit) {
    const auto& layout = source.units()[unit];
    full += layout.full_precision ? 1 : 0;
    for (std::size_t slot = 0; slot < layout.slots.size(); ++slot) {
      CAPTURE(layout.slots[slot].name);
      for (const auto type : {StoredType::float32, StoredType::float16}) {
        source.other = {unit, slot, type};
        CHECK(weights::is_bfloat16(source) == layout.full_precision);
      }
    }
  }
  CHECK(full == 1);
  CHECK_FALSE(weights::is_bfloat16(InitialValues(config, StoredType::float32)));
}
