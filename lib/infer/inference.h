// Inference: a model's weights on this rank's device with an engine or a scorer, sized to the device's memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "lib/infer/engine.h"
#include "lib/infer/scorer.h"
#include "lib/weights/source.h"
#include "parallel/world.h"

namespace ratplus::infer {

/// A user's request for a model. Empty or 0: as the weights' own job says, else a job's defaults.
struct ModelRequest {
  std::string pattern = {};  ///< as config::parse_plan reads it
  std::optional<DeviceChoice> device = {};
  std::optional<DType> precision = {};  ///< of a GPU's products, and of matrices on the CPU
  int threads = 0;
  std::int64_t head_dim = 0;  ///< channels of a head, for weights that do not say
  std::int64_t tokens = 0;    ///< of a sequence at most, prompt and generated; 0: as in training
  bool longer = false;        ///< tokens may be more than in training
  std::optional<double> rope_base = std::nullopt;
  double rope_scale = 1;  ///< divides positions
};

/// A model that a request names, not yet loaded.
struct ResolvedModel {
  std::shared_ptr<weights::WeightsSource> source;
  model::ModelConfig config;
  model::PatternPlan plan;
  std::int64_t trained_tokens = 0;  ///< tokens of a training sequence
  std::int64_t tokens = 0;
  double rope_scale = 1;
  DeviceChoice device = DeviceChoice::automatic;
  DType precision = DType::bf16;  ///< of a GPU's products
  /// Of matrices on the CPU; bf16: the source has all of them so, or they are to be rounded.
  DType cpu_weights = DType::f32;
  int threads = 0;
  std::string note;  ///< a line for the user: another pattern than the weights were adapted to; may be empty

  const checkpoint::Info& info() const { return source->info(); }
};

/// Opens the weights at `path` (weights::resolve) and fills in what the request leaves out. Throws Error where they cannot be
/// read, where the pattern does not fit, or where more tokens than in training are asked for without `longer`.
ResolvedModel resolve(const ModelRequest& request, const std::filesystem::path& path);

/// How many sequences an engine should take, and how.
struct EngineRequest {
  std::int64_t slots = 0;  ///< sequences in flight at most; 0: as many as fit, up to most_slots
  std::int64_t rows = 0;   ///< tokens of a pass at most; 0: 512 on the CPU, 4096 on a GPU
  std::int64_t prefix_bytes =
      0;  ///< for snapshots of prompts' beginnings, of all engines together; 0: none is kept
  static constexpr std::int64_t most_slots = 8192;
};

/// The most sequences, up to `wanted`, whose bytes_of are at most `limit`; 0 where one is too many.
std::int64_t largest_fitting(std::int64_t wanted, std::int64_t limit,
                             const std::function<std::int64_t(std::int64_t)>& bytes_of);

/// Engines and scorers by pattern for a server: `request` is each engine's, `score_rows` are the tokens of a scorer's pass.
struct ServingRequest {
  std::vector<model::PatternPlan> plans;
  EngineRequest request = {};
  std::int64_t score_rows = 0;  ///< 0: 1024 on the CPU, 16384 on a GPU
};

/// The weights and their users, on a device. Each rank has the whole model.
class Inference {
 public:
  /// The device and its memory; weights are zero until load() or set_initial().
  Inference(const ResolvedModel& model, const EngineRequest& request, const parallel::World& world);
  Inference(const ResolvedModel& model, const ScorerSettings& settings, const parallel::World& world);
  /// An engine and a scorer for each plan. Throws Error where a plan does not fit the model, or memory is short.
  Inference(const ResolvedModel& model, const ServingRequest& request, const parallel::World& world);

  /// Reads all weights once.
  void load() { load(*model_.source); }
  /// The same from another source of the same model, between two requests; it is rounded to weight_type().
  void load(weights::WeightsSource& source);
  void set_initial(std::uint64_t seed);

  /// Another engine over the same weights, in place of the one before.
  void restart(const model::PatternPlan& plan, std::int64_t tokens, const EngineRequest& request);

  Ops& ops() { return *ops_; }
  /// Sums over the engines.
  PrefixUse prefix_use() const;
  DType weight_type() const { return weights_->type(); }
  /// Whether load() takes this model's weights as resolve() would have them kept: not where they are to be kept in float32 and the
  /// memory is for bfloat16, on the CPU.
  bool keeps(const ResolvedModel& other) const;
  /// What the bits of results depend on: "bf16" or "f32", the type of products, or "f32, rounded weights", on the CPU.
  std::string arithmetic() const;
  /// Bytes of weights, and of all else.
  std::int64_t weight_bytes() const { return weight_memory_->total_bytes(); }
  std::int64_t bytes() const { return weight_bytes() + memory_->total_bytes(); }
  const ResolvedModel& model() const { return model_; }
  /// Of the first and the third constructor; there by the plan's place.
  Engine& engine(std::size_t plan = 0) { return *parts_.engines.at(plan); }
  /// Of the second and the third constructor; there by the plan's place.
  Scorer& scorer(std::size_t plan = 0) { return *parts_.scorers.at(plan); }

 private:
  struct Parts {
    std::vector<std::unique_ptr<Engine>> engines;
    std::vector<std::unique_ptr<Scorer>> scorers;
    Tensor scratch;
  };
  Inference(const ResolvedModel& model, const parallel::World& world);
  Tensor take_scratch(std::int64_t tokens, Arena& arena) const;
  void forget_prefixes();
  Parts make_parts(const std::vector<model::PatternPlan>& plans, const EngineSettings* engine,
                   const ScorerSettings* scorer, Arena& arena) const;
  EngineSettings fit(const std::vector<model::PatternPlan>& plans, const EngineRequest& request,
                     const ScorerSettings* scorer) const;
  void prepare();
  template <typename Make>
  void take_memory(Make make);
  /// Bytes for all but the weights; -1 where unknown.
  std::int64_t limit() const;

  ResolvedModel model_;
  std::unique_ptr<Ops> ops_;
  std::int64_t available_;
  std::unique_ptr<Arena> weight_memory_;
  std::unique_ptr<Weights> weights_;
  std::unique_ptr<Arena> memory_;
  Parts parts_;
};

}  // namespace ratplus::infer
