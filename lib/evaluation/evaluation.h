// Evaluation: which weights are evaluated, on which data and how, from a request and from the weights' own job.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"
#include "kernels/device.h"
#include "kernels/tensor.h"
#include "lib/config/job.h"
#include "lib/evaluation/validation.h"
#include "lib/session/session_parts.h"
#include "lib/weights/source.h"
#include "parallel/world.h"

namespace ratplus::evaluation {

/// What a user asks for. Empty or 0: as the weights' own job says, else a job's defaults.
struct Request {
  std::vector<std::string> patterns = {};  ///< as config::parse_plan reads them
  std::int64_t micro_batch = 0;            ///< sequences of a rank at once
  std::optional<DeviceChoice> device = {};
  std::optional<DType> precision = {};
  int threads = 0;
  std::int64_t head_dim = 0;  ///< channels of a head, for weights that do not say

  // Of a dataset.
  std::string data = {};             ///< its directory
  std::string split = "validation";  ///< as data::parse_split reads it
  std::int64_t sequences = 0;        ///< sequences at most; 0: all of the split
  std::int64_t sequence_length = 0;  ///< tokens
  std::int64_t parts = 0;            ///< of a sequence, whose losses are reported apart
};

/// The weights, and how they are evaluated.
struct Evaluation {
  std::shared_ptr<weights::WeightsSource> source;
  config::JobConfig job;  ///< the weights' own, else a job's defaults
  std::vector<model::PatternPlan> patterns;
  std::int64_t micro_batch = 1;
  DeviceChoice device = DeviceChoice::automatic;
  DType precision = DType::bf16;
  int threads = 0;

  const checkpoint::Info& info() const { return source->info(); }
  /// A session for evaluation on the ranks of `world`, sharded as in training; where those groups do not fit these ranks,
  /// all ranks are one group.
  session::SessionSettings session_settings(const model::PassShapes& shapes,
                                            const parallel::World& world) const;
};

/// Opens the weights at `path` (weights::resolve) and fills in from their job what `request` leaves out. Throws Error where
/// they cannot be read, or where a pattern does not fit their layers and heads.
Evaluation resolve(const Request& request, const std::filesystem::path& path);

/// The sequences of a dataset, or samples with labels, that are evaluated.
struct EvaluatedData {
  ValidationSettings settings;
  data::Manifest manifest;

  /// Of the tokens, so that scores have bits per byte (find_data); samples with labels have none.
  TextBytes bytes = {};

  bool has_samples() const { return manifest.sample_length > 0; }
  /// Throws Error where the split has no sequence.
  std::unique_ptr<Validator> validator(const parallel::World& world) const;
};

/// The dataset of the request, else the one of the weights' job. Throws Error, with the way out, where neither names one
/// dataset, where it is of another vocabulary or tokenizer than the model, or where a sequence length of `request` is not the length
/// of its samples.
EvaluatedData find_data(const Request& request, const Evaluation& evaluation);

}  // namespace ratplus::evaluation
