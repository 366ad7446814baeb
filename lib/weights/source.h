// WeightsSource: a model's weights, wherever they are stored: a checkpoint of ours, a file of PyTorch's, safetensors.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"
#include "lib/checkpoint/manifest.h"
#include "lib/checkpoint/stored_type.h"
#include "parallel/parameter_store.h"
#include "parallel/unit.h"

namespace ratplus::weights {

using checkpoint::StoredType;

class WeightsSource {
 public:
  virtual ~WeightsSource() = default;

  virtual const char* format() const = 0;  ///< "checkpoint", "PyTorch", "safetensors"
  /// The model, and what is known of its training; its directory is the source's path. Of weights from elsewhere
  /// tokenizer and job are empty, counts 0.
  virtual const checkpoint::Info& info() const = 0;
  /// The units of info().model, in which weights are read.
  virtual const std::vector<parallel::UnitLayout>& units() const = 0;
  /// The stored type of a parameter's elements.
  virtual StoredType stored_type(std::size_t unit, std::size_t slot) const = 0;
  /// Elements `range` of a unit's flat memory; gaps between parameters are zero.
  virtual void read(std::size_t unit, parallel::UnitRange range, float* out) = 0;
  /// From now on each element is read once, in the order of the file: what was read leaves the page cache behind.
  virtual void expect_one_reading() = 0;
};

/// Opens `path` by its content: a checkpoint's directory, a run's (its newest checkpoint), a file of
/// PyTorch's, a safetensors file, their index, or a directory with either of the two. Where the file does not say
/// head_dim, rope_base, norm_eps and init_std, they are those of `assumed`; all other sizes are the tensors'. Throws
/// Error naming the file, and the tensor that is missing, too many or of another shape.
std::unique_ptr<WeightsSource> open_source(const std::filesystem::path& path,
                                           const model::ModelConfig& assumed = {});

/// The path that open_source opens, for all ranks to agree on: for a run its newest checkpoint.
std::filesystem::path resolve(const std::filesystem::path& path);
/// The same; empty if there is nothing to open, as in the directory of a run that waits in a queue.
std::optional<std::filesystem::path> find(const std::filesystem::path& path);
/// Whether this is a checkpoint of ours, with all that belongs to a run.
bool is_checkpoint(const std::filesystem::path& path);

/// Whether all parameters are stored in bfloat16, but for those that are kept in full precision everywhere.
bool is_bfloat16(const WeightsSource& source);

/// source.read, of weights that a model is to run with: throws Error naming the parameter where one is infinite or NaN.
void read_finite(WeightsSource& source, std::size_t unit, parallel::UnitRange range, float* out);

/// Loads master weights into a store of the source's units, by read_finite; the caller then publishes them. Each rank reads
/// what it owns only, and talks to no other.
void load(WeightsSource& source, parallel::ParameterStore& store, Ops& ops);

}  // namespace ratplus::weights
