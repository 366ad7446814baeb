// A loss or a gradient norm that is not finite: its consequences and its record.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/samples/loader.h"
#include "data/samples/samples.h"
#include "lib/config/job.h"

namespace ratplus::train {

/// Decides whether an update that is not finite ends the job: with health.not_finite = "stop", or once the updates with
/// the same number in their steps were left out so many times in a row. The two updates of a joint step count apart.
class SkipLimit {
 public:
  SkipLimit(const config::HealthSection& health, std::size_t updates);

  /// Takes in each update: its number in the step, and whether it was made. True where the job is to stop: then that update
  /// does not count, since the state saved is that before it.
  bool stops(std::size_t number, bool updated);
  /// Updates with this number left out since the last one made.
  std::int64_t in_a_row(std::size_t number) const { return skipped_[number]; }
  /// Of all numbers; empty where none was left out (checkpoint::Info::left_out).
  std::vector<std::int64_t> in_a_row() const;
  /// Goes on from what a checkpoint holds; numbers that it does not know have 0.
  void resume(std::span<const std::int64_t> in_a_row);

 private:
  std::int64_t most_;  ///< left out in a row, at which the job stops
  std::vector<std::int64_t> skipped_;
};

/// An update that was not made.
struct NotFiniteUpdate {
  std::int64_t step = 0;   ///< that it belongs to, from 1
  std::size_t number = 0;  ///< of the update in that step, from 0
  std::string pattern;
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  std::vector<double> loss_sums;   ///< of each rank's own share of the batch
  std::vector<std::string> hosts;  ///< of each rank
};

/// run/not-finite/step-00000008-update-1.json.
std::filesystem::path not_finite_file(const std::filesystem::path& run, const NotFiniteUpdate& update);

/// Writes that file: the numbers, and every sample of the batch with its global index, the rank that had it, and where
/// it lies in which dataset. `shape`: how the batch was cut.
void write_not_finite(const std::filesystem::path& run, const NotFiniteUpdate& update,
                      const data::BatchShape& shape, data::Samples& samples);

/// "step 8 (dense): loss nan and gradient norm nan are not both finite, so no update was made; the batch's samples, 84
/// to 95, are listed in runs/a/not-finite/..."; or why that file could not be written.
std::string describe(const std::filesystem::path& run, const NotFiniteUpdate& update,
                     const data::BatchShape& shape, const std::string& not_listed);

}  // namespace ratplus::train
