// Runner: a pass with its weights and caches on a device, for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "lib/infer/pass.h"
#include "tests/infer/models.h"
#include "tests/support/modes.h"

namespace ratplus::test {

/// The Ops of a mode.
inline std::unique_ptr<Ops> ops_of(const Mode& mode, int threads = 1) {
  return mode.device == DeviceChoice::cuda ? make_cuda_ops(0, mode.precision) : make_cpu_ops(threads);
}

class Runner {
 public:
  Runner(Ops& on, const InferenceCase& x, std::int64_t tokens, std::int64_t slots, std::int64_t rows,
         std::uint64_t seed = 3, std::optional<DType> weight_type = {})
      : ops(on), shape(x.config, x.plan, tokens), arena_(on.device()), vocabulary_(x.config.vocab_size) {
    const infer::Pass::Settings settings{.rows = rows, .steps = slots, .logits = rows, .tokens = tokens};
    const auto build = [&] {
      weights =
          std::make_unique<infer::Weights>(x.config, ops, arena_, weight_type.value_or(ops.compute_type()));
      caches = std::make_unique<infer::Caches>(
          shape,
          infer::Caches::Settings{.slots = slots, .tokens = tokens, .sequences = static_cast<double>(slots)},
          ops, arena_);
      pass = std::make_unique<infer::Pass>(shape, settings, *weights, caches.get(), ops, arena_);
      return arena_.allocate(DType::u8, {ops.scratch_bytes(infer::Pass::op_shapes(x.config, tokens))});
    };
    build();
    arena_.commit();
    ops.use_scratch(build());
    caches->prepare();
    pass->prepare();
    weights->set_initial(seed);
  }

  /// Logits of these rows of the last run.
  std::vector<float> logits(std::span<const std::int64_t> rows) {
    std::vector<float> host(rows.size() * static_cast<std::size_t>(vocabulary_));
    ops.download(host.data(), pass->logits(rows));
    return host;
  }

  Ops& ops;
  infer::CacheShape shape;
  std::unique_ptr<infer::Weights> weights;
  std::unique_ptr<infer::Caches> caches;
  std::unique_ptr<infer::Pass> pass;

 private:
  Arena arena_;
  std::int64_t vocabulary_;
};

}  // namespace ratplus::test
