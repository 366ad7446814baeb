#include "lib/bench/generate_bench.h"

#include <time.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/median.h"
#include "lib/infer/floor.h"

namespace ratplus::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Seconds of all threads of this process on processors.
double processor_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// Times of repeated work, by the clock and on processors.
class Samples {
 public:
  void begin() {
    processor_ = processor_seconds();
    begin_ = Clock::now();
  }
  void end() {
    seconds_.push_back(std::chrono::duration<double>(Clock::now() - begin_).count());
    on_processor_.push_back(processor_seconds() - processor_);
  }
  void write_to(GenerateTime& time) {
    time.seconds = median(seconds_), time.processor_seconds = median(on_processor_);
  }

 private:
  Clock::time_point begin_;
  double processor_ = 0;
  std::vector<double> seconds_, on_processor_;
};

/// Repeats the last `steps` steps of `batch` sequences for a while: a GPU that has just read at full rate is slower at first (an H200
/// after dense steps of 64 sequences by a third, for 0.05 s and more).
void settle(infer::Engine& engine, std::int64_t batch, std::int64_t length, std::int64_t steps) {
  constexpr double seconds = 0.25;
  const auto begin = Clock::now();
  const auto over = [&] { return std::chrono::duration<double>(Clock::now() - begin).count() >= seconds; };
  while (!over()) {
    std::vector<std::int64_t> sequences;
    for (std::int64_t i = 0; i < batch; ++i) sequences.push_back(engine.add_at(length - steps, steps));
    for (std::int64_t i = 0; i < steps && !over(); ++i) engine.step();
    for (; !sequences.empty(); sequences.pop_back())
      engine.cancel(sequences.back());  // the last costs the least
  }
}

}  // namespace

GenerateTimes time_generation(infer::Inference& inference, const GenerateBenchSettings& settings,
                              const std::function<void(const GenerateTime&)>& told) {
  auto& ops = inference.ops();
  const auto& config = inference.model().config;
  GenerateTimes result{.device = ops.device_name(),
                       .compute_type = ops.compute_type(),
                       .weight_type = inference.weight_type()};
  result.ceilings = measure_ceilings(ops);
  result.weight_bytes = inference.weight_bytes();
  const infer::Rates rates{result.ceilings.product_rate, result.ceilings.bandwidth};
  const auto compute = ops.compute_type();
  const infer::Types types{compute, inference.weight_type()};
  const auto add = [&](GenerateTime time) {
    told(time);
    result.times.push_back(std::move(time));
  };
  for (const auto length : settings.lengths) {
    for (const auto& plan : settings.patterns) {
      const infer::CacheShape shape(config, plan, length);
      GenerateTime time{.pattern = plan.describe(), .length = length};
      time.cache_bytes = static_cast<double>(shape.sequence_bytes(length, compute));
      if (settings.prompts) {
        inference.restart(plan, length, {.slots = 1, .rows = std::min<std::int64_t>(length, 4096)});
        const std::vector<std::int32_t> prompt(static_cast<std::size_t>(length), 1);
        Samples samples;
        for (int repeat = 0; repeat < 4; ++repeat) {
          inference.engine().add({.prompt = prompt, .max_tokens = 1, .sampling = {.temperature = 0}});
          ops.synchronize();
          samples.begin();
          while (!inference.engine().idle()) inference.engine().step();
          if (repeat > 0) samples.end();
        }
        samples.write_to(time);
        time.floor = infer::prompt_floor(config, shape, types, length, rates).seconds();
        add(time);
      }
      const std::int64_t steps = settings.steps + 2;  // the first two are not timed
      if (steps >= length) fail("--steps {}: sequences of {} tokens have fewer", settings.steps, length);
      for (const auto batch : settings.batches) {
        inference.restart(plan, length, {.slots = batch, .rows = infer::prompt_cut});
        auto& engine = inference.engine();
        const auto fitting = engine.settings().slots;
        if (fitting < batch) continue;
        settle(engine, fitting, length, steps);
        for (std::int64_t i = 0; i < fitting; ++i) engine.add_at(length - steps, steps);
        Samples samples;
        for (std::int64_t i = 0; i < steps; ++i) {
          samples.begin();
          engine.step();
          if (i >= 2) samples.end();
        }
        time.batch = fitting, time.largest = batch == 0;
        samples.write_to(time);
        time.floor =
            infer::step_floor(config, shape, types, fitting, length - settings.steps / 2, rates).seconds();
        add(time);
      }
    }
  }
  return result;
}

}  // namespace ratplus::bench
