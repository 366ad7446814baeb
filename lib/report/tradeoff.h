// Loss against cache: held-out loss of several models under many patterns, before and after adaptation, beside the bytes
// that a sequence's cache takes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/report/job_settings.h"
#include "lib/report/metrics_reader.h"

namespace ratplus::report {

/// A run adapted from a model.
struct AdaptedModel {
  const RunMetrics* run = nullptr;
  const JobSettings* job = nullptr;
  std::string pattern;  ///< that it was adapted to
};

/// A model: the run that trained it from initial weights, and those adapted from it.
struct TradeoffModel {
  const RunMetrics* run = nullptr;
  const JobSettings* job = nullptr;
  std::vector<AdaptedModel> adapted;  ///< in the order given

  /// The model's own result under `pattern`; null where it was not evaluated under it.
  const PatternLoss* before(const std::string& pattern) const;
  /// The result of the first run adapted to `pattern`, under it; null where no run was.
  const PatternLoss* after(const std::string& pattern) const;
};

/// Evaluated runs, sorted into models. Points into the runs.
struct Tradeoff {
  std::vector<TradeoffModel> models;
  std::vector<std::string> patterns;  ///< of all models, in the order in which they came
  std::int64_t sequence_length = 0;   ///< tokens of an evaluated sequence
  std::string warning;                ///< two runs that were evaluated on different text; empty: none

  /// Throws Error, with the way out, where a run has no evaluation with cache sizes, where runs were evaluated at several
  /// lengths, or where the model that a run was adapted from is not among them. `jobs` are the runs' in order.
  Tradeoff(const std::vector<RunMetrics>& runs, const std::vector<JobSettings>& jobs);
};

/// The result of a run's evaluation under `pattern`; null where there is none. Throws Error where the run was not evaluated.
const PatternLoss* loss_under(const RunMetrics& run, const std::string& pattern);

/// A table with a heading. The first row is the head; an empty row separates.
struct TradeoffTable {
  std::string title;
  std::vector<std::vector<std::string>> rows;
};

/// Losses of the runs that were adapted to one pattern for several lengths or at several rates, a row a run; without any, the
/// head alone.
TradeoffTable adaptation_length_table(const Tradeoff& tradeoff);

/// Two models of one job but for the precision, the seed, or how the work is split, one of these alone, compared.
struct ModelPair {
  enum class Kind { precisions, seeds, roundings };

  const TradeoffModel *first = nullptr, *second = nullptr;
  Kind kind = Kind::precisions;
  /// Loss of the second less the first's, in nats a token, under each pattern of `labels`; NaN where one has none.
  std::vector<double> differences;
  double largest = 0;   ///< largest absolute difference
  std::string missing;  ///< why they do not compare: "adapted, D = 64, I = 4 is missing"; empty: they do
  std::string verdict;  ///< of precisions: "accepted", or why not; else empty
};
struct ModelPairs {
  std::vector<std::string> labels;  ///< "dense", "D = 64, I = 4", "adapted, D = 64, I = 4"
  std::vector<ModelPair> pairs;
};
/// A precision is accepted where no loss differs by more than `precision_bound`, nor by more than the largest difference
/// between two seeds of the same model. Patterns: those with D = 16 and 64, and dense, before and after adaptation, of models that
/// take patterns; evaluations of as many steps on the same text, adaptations of the same job.
constexpr double precision_bound = 0.002;  ///< nats a token
ModelPairs model_pairs(const Tradeoff& tradeoff);
/// "precisions", "seeds", "roundings".
std::string_view to_string(ModelPair::Kind kind);

/// Losses by position of one pattern.
struct PositionLosses {
  std::string pattern, label;
  bool adapted = false;        ///< of a run that was adapted to it
  std::vector<double> losses;  ///< nats a token; NaN: none
};

/// Those of a model, and of the runs adapted from it.
struct ModelPositions {
  std::string name;
  std::vector<std::string> positions;  ///< "0-511"
  std::vector<PositionLosses> patterns;
};

/// Of the models that were evaluated by position.
std::vector<ModelPositions> losses_by_position(const Tradeoff& tradeoff);

/// Losses before and after adaptation, bits per byte where known, cache sizes, and settings of size and training, a column a
/// model; losses by length of adaptation, and pairs of precisions, seeds and roundings, where there are any; where runs were evaluated by
/// position, perplexities by position, a row a pattern; and tokens a second, of training and of the fastest batch of generation.
std::vector<TradeoffTable> tradeoff_tables(const Tradeoff& tradeoff);

std::string tradeoff_text(const Tradeoff& tradeoff);
std::string tradeoff_markdown(const Tradeoff& tradeoff);
/// The picture and the tables, as the beginning of a page (make_page).
std::string tradeoff_html(const Tradeoff& tradeoff);
/// {"sequence_length", "warning" where there is one, "models": [{"name", "directory", "settings", "results": [...], "adapted":
/// [{"name", "directory", "pattern", "results"}]}], "pairs": [{"first", "second", "of" (to_string of its kind), "differences", "largest", "verdict"}]};
/// a result has "pattern", "loss" (nats a token), "perplexity", "cache_bytes", and where known "bits_per_byte" and "by_position". Where known, a run has
/// "training": {"tokens", "tokens_per_second"} and "generation": [{"pattern", "length", "sequences", "tokens_per_second"}].
std::string tradeoff_json(const Tradeoff& tradeoff);

/// Draws loss over the bytes of a sequence's cache, one curve a model through its dilations; other patterns are single
/// marks. Hollow marks are the same pattern after adaptation to it. Returns the SVG.
std::string draw_tradeoff_chart(const Tradeoff& tradeoff);
/// Draws perplexity over the position in the sequence, a panel a model and a curve a pattern. Returns the SVG; empty where no
/// model was evaluated by position.
std::string draw_position_chart(const Tradeoff& tradeoff);

}  // namespace ratplus::report
