#include "lib/bench/layer_bench.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/median.h"
#include "lib/bench/operation_timer.h"
#include "lib/model/block.h"
#include "lib/model/feed_forward.h"
#include "lib/model/mixers.h"
#include "lib/model/parameters.h"
#include "lib/model/workspace.h"

namespace ratplus::bench {
namespace {

constexpr std::uint64_t seed = 7;
constexpr double timed_seconds = 0.5;  ///< that passes are repeated for
constexpr int least_passes = 5;
constexpr int most_passes = 100;

/// The segments of a pass through the layer, in order.
enum Segment { mixer_forward, feed_forward_forward, feed_forward_backward, mixer_backward, segments };

/// The calls of one segment of a pass, between marks.
class CallTimes final : public OpObserver {
 public:
  CallTimes(Ops& ops, Stopwatch& stopwatch) : ops_(ops), stopwatch_(stopwatch) { ops_.observe(this); }
  ~CallTimes() override { ops_.observe(nullptr); }
  CallTimes(const CallTimes&) = delete;
  CallTimes& operator=(const CallTimes&) = delete;

  void began(const OpCall&) override { began_ = stopwatch_.mark(); }
  void ended(const OpCall& call) override {
    calls.push_back({call.kind(), call.cost(), began_, stopwatch_.mark()});
  }

  struct Call {
    std::string kind;
    Cost cost;
    int began, ended;
  };
  std::vector<Call> calls;

 private:
  Ops& ops_;
  Stopwatch& stopwatch_;
  int began_ = 0;
};

/// A call of a segment: its median over the passes.
struct TimedCall {
  std::string kind;
  Cost cost;
  double seconds = 0;
};

/// One layer with a mixer M: its parameters, activations, and the gradient at its output.
template <typename M>
class Layer {
 public:
  Layer(Ops& ops, Arena& arena, const model::ModelConfig& config, const model::PassShapes& shapes)
      : ops_(ops),
        config_(config),
        here_{config, config.mixer(0)},
        unit_(model::Block::layout(0, config)),
        gates_(model::gates_layout(config)),
        work_(arena, ops.compute_type(), config, shapes, model::Block::wide_columns(config, here_.mixer),
              true),
        mixer_(arena, ops.compute_type(), here_, shapes, work_),
        feed_forward_(arena, ops.compute_type(), config, shapes, work_) {
    arena.category("weights");
    weights_ = arena.allocate(ops.compute_type(), {unit_.numel});
    if (gates_.numel > 0) gate_weights_ = arena.allocate(DType::f32, {gates_.numel});
    arena.category("gradients");
    gradient_ = arena.allocate(DType::f32, {unit_.numel});
    if (gates_.numel > 0) gate_gradient_ = arena.allocate(DType::f32, {gates_.numel});
    arena.category("inputs");
    RandomTensors random(ops, arena);
    x_ = random.f32({shapes.rows(), config.width});
    dy_ = random.f32({shapes.rows(), config.width});
    arena.category("scratch");
    scratch_ = arena.allocate(DType::u8, {ops.scratch_bytes(shapes.ops(config))});
    if (arena.committed()) prepare();
  }

  void run(Segment segment, HeadPatterns patterns) {
    std::size_t next = 0;
    const auto of_mixer = bind_mixer(weights_, gate_weights_, next);
    const auto of_feed_forward = model::bind<model::FeedForward::Parameters>(unit_, weights_, next, config_);
    next = 0;
    const auto mixer_gradient = bind_mixer(gradient_, gate_gradient_, next);
    const auto feed_forward_gradient =
        model::bind<model::FeedForward::Parameters>(unit_, gradient_, next, config_);
    // Gradients are added to what is there, as in all micro-batches of a step but the first.
    switch (segment) {
      case mixer_forward:
        mixer_.forward(ops_, of_mixer, x_, work_.delta, patterns, work_);
        break;
      case feed_forward_forward:
        feed_forward_.forward(ops_, of_feed_forward, mixer_.stream(), work_);
        break;
      case feed_forward_backward:
        feed_forward_.backward(ops_, of_feed_forward, feed_forward_gradient, false, work_);
        break;
      case mixer_backward:
        mixer_.backward(ops_, of_mixer, mixer_gradient, false, patterns, work_);
        break;
      case segments:
        break;
    }
  }

  /// The gradient at the layer's output, which a backward overwrites.
  void set_gradient() {
    ops_.copy(work_.dstream, dy_);
    if (work_.dlayer.raw() != work_.dstream.raw()) ops_.copy(work_.dlayer, dy_);
  }

  const model::LayerConfig& config() const { return here_; }

 private:
  typename M::Parameters bind_mixer(const Tensor& flat, const Tensor& gates, std::size_t& next) {
    using P = typename M::Parameters;
    P parameters = model::bind<P>(unit_, flat, next, here_);
    if constexpr (model::has_gate_bias<P>) {
      *P::gate_bias_of(parameters, here_).tensor = model::gate_bias_of(config_, 0, gates_, gates);
    }
    return parameters;
  }

  void upload_initial(const Tensor& to, const parallel::UnitLayout& unit, std::size_t index) {
    std::vector<float> values(static_cast<std::size_t>(unit.numel));
    model::initial_values(unit, index, 0, values, config_, seed);
    const Buffer staged(ops_.device(), unit.numel * size_of(DType::f32));
    ops_.upload(staged.as_tensor(DType::f32), values.data());
    ops_.copy(to, staged.as_tensor(DType::f32));
    ops_.synchronize();
  }

  void prepare() {
    ops_.use_scratch(scratch_);
    upload_initial(weights_, unit_, 1);
    if (gate_weights_) upload_initial(gate_weights_, gates_, 0);
    ops_.rope_table(work_.rope, config_.rope_base);
    for (const auto& rope : work_.chunk_ropes) ops_.rope_table(rope.table, config_.rope_base, rope.chunk);
  }

  Ops& ops_;
  model::ModelConfig config_;
  model::LayerConfig here_;
  parallel::UnitLayout unit_, gates_;
  model::Workspace work_;
  M mixer_;
  model::FeedForward feed_forward_;
  Tensor weights_, gate_weights_, gradient_, gate_gradient_, x_, dy_, scratch_;
};

/// A pass: f(segment) runs each segment; reset() comes before the backward and is not timed.
template <typename F, typename Reset>
std::array<double, segments> time_passes(Ops& ops, F&& f, Reset&& reset) {
  const auto stopwatch = ops.make_stopwatch();
  const auto pass = [&] {
    std::array<std::pair<int, int>, segments> marks;
    for (int s = 0; s < segments; ++s) {
      if (s == feed_forward_backward) reset();
      marks[static_cast<std::size_t>(s)].first = stopwatch->mark();
      f(static_cast<Segment>(s));
      marks[static_cast<std::size_t>(s)].second = stopwatch->mark();
    }
    return marks;
  };
  const auto seconds_of = [&](const std::pair<int, int>& marks) {
    return stopwatch->seconds(marks.first, marks.second);
  };
  pass();
  double whole = 0;
  for (const auto& marks : pass()) whole += seconds_of(marks);
  const int passes =
      static_cast<int>(std::clamp<double>(timed_seconds / std::max(whole, 1e-9), least_passes, most_passes));
  std::vector<std::array<std::pair<int, int>, segments>> all;
  for (int i = 0; i < passes; ++i) all.push_back(pass());
  std::array<double, segments> medians;
  for (std::size_t s = 0; s < segments; ++s) {
    std::vector<double> times;
    for (const auto& marks : all) times.push_back(seconds_of(marks[s]));
    medians[s] = median(std::move(times));
  }
  return medians;
}

/// The calls of every segment, each with its median over some passes.
template <typename F, typename Reset>
std::array<std::vector<TimedCall>, segments> time_calls(Ops& ops, F&& f, Reset&& reset) {
  const auto stopwatch = ops.make_stopwatch();
  std::array<std::vector<std::vector<CallTimes::Call>>, segments> all;
  for (int i = 0; i < least_passes; ++i) {
    for (std::size_t s = 0; s < segments; ++s) {
      if (s == feed_forward_backward) reset();
      CallTimes calls(ops, *stopwatch);
      f(static_cast<Segment>(s));
      all[s].push_back(std::move(calls.calls));
    }
  }
  std::array<std::vector<TimedCall>, segments> timed;
  for (std::size_t s = 0; s < segments; ++s) {
    const auto& first = all[s].front();
    for (std::size_t call = 0; call < first.size(); ++call) {
      std::vector<double> times;
      for (const auto& pass : all[s]) times.push_back(stopwatch->seconds(pass[call].began, pass[call].ended));
      timed[s].push_back({first[call].kind, first[call].cost, median(std::move(times))});
    }
  }
  return timed;
}

/// "recurrence_rope_forward" as "gate, recurrence, RoPE": a forward and its backward have one name.
std::string row_name(const std::string& kind, const model::MixerForm& form) {
  std::string name = kind;
  for (const std::string_view way : {"_forward", "_backward"}) {
    if (const auto at = name.find(way); at != std::string::npos) name.erase(at, way.size());
  }
  if (name == "residual_rms_norm") return "residual + RMSNorm";
  if (name == "recurrence_rope")
    return form.recurs() ? form.attends() ? "gate, recurrence, RoPE" : "gate, recurrence" : "RoPE";
  if (name == "add_column_sums") return "sums of the gate's gradient";
  if (name == "output_gate") return "output gate";
  if (name == "gelu") return "GELU";
  return name;
}

/// The products of a sublayer with two projections, in the order in which its forward and its backward call them.
std::vector<std::string> product_names(const std::string& first, const std::string& second, bool backward) {
  if (backward) return {second, second, first, first};
  return {first, second};
}

SublayerTimes sublayer(std::string name, const std::vector<TimedCall>& forward,
                       const std::vector<TimedCall>& backward, const std::string& first_product,
                       const std::string& second_product, const model::MixerForm& form) {
  SublayerTimes times;
  times.name = std::move(name);
  const auto add = [&](const std::vector<TimedCall>& calls, bool is_backward) {
    const auto products = product_names(first_product, second_product, is_backward);
    std::size_t product = 0;
    for (const auto& call : calls) {
      const bool is_product = call.cost.part == Part::products;
      if (is_product)
        require(product < products.size(), "{}: more products than its projections have", times.name);
      const auto row = is_product ? products[product++] : row_name(call.kind, form);
      auto operation = std::ranges::find(times.operations, row, &OpTime::name);
      if (operation == times.operations.end())
        operation = times.operations.insert(times.operations.end(), OpTime{.name = row});
      (is_backward ? operation->backward : operation->forward) += call.seconds;
      operation->operations += call.cost.operations;
      operation->bytes += call.cost.bytes;
      if (is_product) times.product_operations += call.cost.operations;
      if (call.cost.part == Part::norms) times.norm_bytes += call.cost.bytes;
      if (call.cost.part == Part::gelu) times.inner_bytes += call.cost.bytes;
      if (call.cost.part == Part::dense_attention || call.cost.part == Part::pattern_attention)
        times.attention_operations += call.cost.operations;
    }
    require(product == products.size(), "{}: {} products in place of {}", times.name, product,
            products.size());
  };
  add(forward, false), add(backward, true);
  return times;
}

/// Bytes of what lies between a mixer's projections, were it one kernel a way: the forward reads the rows of in_proj and
/// writes a gated output; the backward reads these rows, the output and its gradient, and writes the rows' gradient. The keys
/// and values that chunks end with are kept in between.
double mixer_bytes(const model::LayerConfig& here, std::int64_t wide, std::int64_t rows, DType compute) {
  const auto d = here.model.width;
  double elements = static_cast<double>(3 * wide + 3 * d);
  if (here.mixer.chunk > 0) elements += 6.0 * static_cast<double>(d) / static_cast<double>(here.mixer.chunk);
  return elements * static_cast<double>(rows * size_of(compute));
}

template <typename M>
LayerTimes time_layer(Ops& ops, const model::ModelConfig& config, const model::PassShapes& shapes,
                      HeadPatterns patterns) {
  Arena arena(ops.device());
  { const Layer<M> counted(ops, arena, config, shapes); }
  arena.commit();
  Layer<M> layer(ops, arena, config, shapes);
  const auto& here = layer.config();
  const auto run = [&](Segment segment) { layer.run(segment, patterns); };
  const auto reset = [&] { layer.set_gradient(); };
  const auto whole = time_passes(ops, run, reset);
  const auto calls = time_calls(ops, run, reset);
  const auto d = config.width, wide = M::wide_columns(here);
  const auto product = [](const char* name, std::int64_t in, std::int64_t out) {
    return fmt::format("{}, {} to {}", name, in, out);
  };
  const auto form = M::form(here);
  LayerTimes times;
  times.mixer = model::describe(here.mixer);
  if (form.attends()) {
    const auto own = M::own_pattern(here.mixer);
    const std::vector<std::vector<Pattern>> given = {{patterns.begin(), patterns.end()}};
    times.pattern = own ? to_string(*own) : model::PatternPlan(given).describe();
  }
  times.of_mixer = sublayer("mixer", calls[mixer_forward], calls[mixer_backward], product("in_proj", d, wide),
                            product("out_proj", d, d), form);
  times.of_mixer.forward = whole[mixer_forward], times.of_mixer.backward = whole[mixer_backward];
  times.of_mixer.inner_bytes = mixer_bytes(here, wide, shapes.rows(), ops.compute_type());
  times.of_feed_forward =
      sublayer("feed-forward layer", calls[feed_forward_forward], calls[feed_forward_backward],
               product("fc1", d, 4 * d), product("fc2", 4 * d, d), form);
  times.of_feed_forward.forward = whole[feed_forward_forward];
  times.of_feed_forward.backward = whole[feed_forward_backward];
  times.memory = arena.plan();
  return times;
}

}  // namespace

double SublayerTimes::floor(const Ceilings& ceilings) const {
  return product_operations / ceilings.product_rate + norm_bytes / ceilings.bandwidth +
         std::max(attention_operations / ceilings.product_rate, inner_bytes / ceilings.bandwidth);
}

std::vector<LayerTimes> time_layers(Ops& ops, const LayerBenchSettings& settings) {
  std::vector<LayerTimes> times;
  std::vector<std::pair<model::MixerConfig, std::vector<Pattern>>> done;
  for (std::int64_t layer = 0; layer < settings.model.layers; ++layer) {
    for (const auto& plan : settings.patterns) {
      const auto& mixer = settings.model.mixer(layer);
      const auto given = plan.layer(layer);
      std::vector<Pattern> patterns(given.begin(), given.end());
      if (const auto own = model::own_pattern(mixer)) patterns = {*own};
      if (std::ranges::find(done, std::pair(mixer, patterns)) != done.end()) continue;
      model::ModelConfig one = settings.model;
      one.layers = 1, one.mixers = {mixer};
      times.push_back(model::with_mixer(mixer.kind, [&]<typename M>(std::type_identity<M>) {
        return time_layer<M>(ops, one, settings.shapes, patterns);
      }));
      done.emplace_back(mixer, std::move(patterns));
    }
  }
  return times;
}

}  // namespace ratplus::bench
