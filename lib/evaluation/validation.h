// Validator: mean loss, and the accuracy on samples with labels, over held-out sequences under several patterns, in one
// pass over the data (docs/model.md, section 21).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "data/dataset/manifest.h"
#include "data/samples/samples.h"
#include "lib/evaluation/accuracy.h"
#include "lib/evaluation/text_bytes.h"
#include "lib/model/model.h"
#include "lib/model/pattern_plan.h"
#include "parallel/world.h"

namespace ratplus::evaluation {

struct ValidationSettings {
  std::filesystem::path dataset;
  data::Split split = data::Split::validation;
  std::int64_t sequence_length = 1;  ///< T
  std::int64_t sequences = 1;        ///< sequences, spread evenly over the split; fewer if it has fewer
  std::int64_t parts = 0;            ///< equal parts of a sequence whose losses are reported apart; 0: none
};

/// Kind of the validated samples: text, whose every token is predicted, or samples with labels, whose accuracy counts too.
enum class Validated { text, labelled };

struct PatternScore {
  double loss = 0;  ///< mean cross-entropy over the counted positions
  /// Sum of the cross-entropies in bits, over the bytes of the text that their labels stand for (TextBytes); empty where those
  /// are not known.
  std::optional<double> bits_per_byte = {};
  std::optional<Accuracy> accuracy = {};  ///< of samples with labels
  /// Mean cross-entropy over the counted positions of each part (part_of); NaN where none counts.
  std::vector<double> by_position = {};
};

/// The part, of `parts`, of position t of a sequence: positions [ceil(i T / parts), ceil((i + 1) T / parts)) are part i.
constexpr std::int64_t part_of(std::int64_t t, std::int64_t sequence_length, std::int64_t parts) {
  return t * parts / sequence_length;
}
/// The first position of part i.
constexpr std::int64_t part_begin(std::int64_t i, std::int64_t sequence_length, std::int64_t parts) {
  return (i * sequence_length + parts - 1) / parts;
}

/// Throws Error where the split holds no whole sequence.
void check_length(const ValidationSettings& settings, const data::Manifest& manifest);

class Validator {
 public:
  /// Throws Error where the split holds no sequence.
  Validator(const ValidationSettings& settings, const data::Manifest& manifest, const parallel::World& world);
  /// `sequences` of these samples at most, spread evenly over each source (data::Spread); `parts` as in ValidationSettings.
  Validator(std::unique_ptr<data::Samples> samples, std::int64_t sequences, Validated kind,
            const parallel::World& world, std::int64_t parts = 0);

  /// From now on scores have bits per byte, where the vocabulary's bytes are known. All ranks give the same.
  void count_bytes(TextBytes bytes) { bytes_ = std::move(bytes); }
  /// The score of each pattern: every sequence once under each, over all ranks; the same for any number of ranks and any
  /// micro-batch. `progress` gets sequences done and sequences in all. `stop` is asked between them, on all ranks
  /// alike: nothing is returned where it says so.
  std::vector<PatternScore> run(model::Model& model, const std::vector<model::PatternPlan>& patterns,
                                const std::function<void(std::int64_t, std::int64_t)>& progress = {},
                                const std::function<bool()>& stop = {});
  /// Reads every sequence once, a share on each rank, before hours go into what is to be validated. Throws Error, on all
  /// ranks alike, where one cannot be read or where no position counts.
  void check();

  std::int64_t sequences() const { return sequences_; }

 private:
  std::int64_t fill(std::int64_t first, std::int64_t count);
  void require_counted(std::int64_t positions) const;
  void count_bytes();
  void count_parts(std::vector<std::int64_t>& counted) const;
  void add_parts(model::Model& model, std::vector<double>& sums);

  const parallel::World& world_;
  std::unique_ptr<data::Samples> samples_;
  std::int64_t sequence_length_;
  std::int64_t sequences_;
  Validated kind_ = Validated::text;
  std::int64_t parts_ = 0;
  TextBytes bytes_;
  std::int64_t text_bytes_ = 0;       ///< of this rank's labels
  std::int64_t unknown_labels_ = 0;   ///< this rank's labels that stand for bytes that are not known
  std::vector<std::int32_t> inputs_;  ///< [micro-batch, T]
  std::vector<std::int32_t> labels_;
  std::vector<std::int32_t> hits_;  ///< the same; empty of text
  std::vector<float> losses_;       ///< the same; empty without parts
};

}  // namespace ratplus::evaluation
