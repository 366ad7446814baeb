// Comparisons of runs among those of lib/report/tradeoff.h: lengths of adaptation, precisions, seeds, roundings.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "kernels/pattern.h"
#include "lib/report/format.h"
#include "lib/report/measured_text.h"
#include "lib/report/tradeoff.h"

namespace ratplus::report {
namespace {

std::string nats(double loss) {
  return std::isfinite(loss) ? fmt::format("{:.3f}", loss) : "-";
}

/// Settings that change neither the model nor the data nor the updates but by rounding.
constexpr std::array<std::string_view, 9> of_the_machine = {
    "job.directory", "job.from",         "job.device",    "job.deterministic", "job.recompute",
    "job.threads",   "data.micro_batch", "data.prefetch", "job.precision"};

bool is_machine_setting(const std::string& key) {
  return std::ranges::find(of_the_machine, key) != of_the_machine.end() ||
         (key.starts_with("parallel.") && key != "parallel.reduce") || key.starts_with("log.") ||
         key.starts_with("checkpoint.") || key.starts_with("health.");
}

/// Of these, settings by which sums are added up in another order.
constexpr std::array<std::string_view, 4> of_rounding = {"data.micro_batch", "job.deterministic",
                                                         "parallel.shard", "parallel.shard_group"};

/// The dilation of a pattern that verdicts rest on: 1 (dense), 16 or 64, without a window; 0: another pattern.
std::int64_t compared_dilation(const std::string& text) {
  try {
    const Pattern pattern = parse_pattern(text);
    const bool compared =
        pattern.window == 0 && (pattern.dilation == 1 || pattern.dilation == 16 || pattern.dilation == 64);
    return compared ? pattern.dilation : 0;
  } catch (const Error&) {
    return 0;  // one a layer, or one a head
  }
}

/// A loss that models are compared by.
struct Column {
  std::string pattern;
  bool adapted = false;
};

std::string label_of(const Column& column) {
  return (column.adapted ? "adapted, " : "") + pattern_label(column.pattern);
}

const PatternLoss* loss_of(const TradeoffModel& model, const Column& column) {
  return column.adapted ? model.after(column.pattern) : model.before(column.pattern);
}

/// Those that any model has.
std::vector<Column> columns_of(const Tradeoff& tradeoff) {
  std::vector<Column> columns;
  for (const bool adapted : {false, true}) {
    for (const auto& pattern : tradeoff.patterns) {
      if (compared_dilation(pattern) == 0) continue;
      const bool known = std::ranges::any_of(tradeoff.models, [&](const TradeoffModel& model) {
        return loss_of(model, {pattern, adapted}) != nullptr;
      });
      if (known) columns.push_back({pattern, adapted});
    }
  }
  return columns;
}

/// Layers of RAT+ and of attention take patterns; those of rat, rnn and local attention do not.
bool takes_patterns(const JobSettings& job) {
  const auto mixer = job.value_of("model.mixer");
  return std::ranges::none_of(std::array<std::string_view, 4>{"rat\"", "rat'", "rnn", "local_attention"},
                              [&](std::string_view other) { return mixer.find(other) != std::string::npos; });
}

/// A pair of models, and the losses of both that compare.
struct Comparison {
  const TradeoffModel &first, &second;
  ModelPair::Kind kind;

  const PatternLoss *a = nullptr, *b = nullptr;
  std::string unlike;  ///< why they do not; empty: they do, or one of them is missing

  /// Finds a and b, of two adaptations those whose jobs are the pair's.
  void find(const Column& column) {
    a = b = nullptr, unlike.clear();
    if (!column.adapted) {
      a = first.before(column.pattern), b = second.before(column.pattern);
      if (a != nullptr && b != nullptr) unlike = unlike_results(*first.run, *second.run);
      return;
    }
    for (const auto& x : first.adapted) {
      for (const auto& y : second.adapted) {
        if (x.pattern != column.pattern || y.pattern != column.pattern) continue;
        auto reason = unlike_results(*x.run, *y.run);
        for (const auto& key : differing_keys({*x.job, *y.job})) {
          if (reason.empty() && !may_differ(key)) reason = fmt::format("adaptations that differ in {}", key);
        }
        if (!unlike.empty() || a == nullptr) {
          a = loss_under(*x.run, column.pattern), b = loss_under(*y.run, column.pattern), unlike = reason;
        }
      }
    }
  }

  bool may_differ(const std::string& key) const {
    if (key == "job.seed") return kind == ModelPair::Kind::seeds;
    if (key == "job.precision") return kind == ModelPair::Kind::precisions;
    return is_machine_setting(key);
  }
  static std::string unlike_results(const RunMetrics& x, const RunMetrics& y) {
    const auto &of_x = *x.final_result(), &of_y = *y.final_result();
    if (of_x.step != of_y.step) return fmt::format("evaluated after {} and {} steps", of_x.step, of_y.step);
    return differ_in_text(of_x, of_y) ? "evaluated on different text" : "";
  }
};

/// "3e-4" however a job file writes it; "-" where it has none.
std::string rate_of(const JobSettings& job) {
  const auto text = job.value_of("schedule.peak_lr");
  char* end = nullptr;
  const double rate = std::strtod(text.c_str(), &end);
  return end == text.c_str() ? text : fmt::format("{:.4g}", rate);
}

/// Spreads are negative where no complete pair has them.
std::string verdict_of(double largest, double spread_of_seeds, double spread_of_roundings) {
  if (largest == 0) return "no digit differs: both in one precision (a CPU's is float32)";
  if (!(largest <= precision_bound)) {
    return fmt::format("refused: above {}", precision_bound) +
           (spread_of_roundings < 0 ? "" : fmt::format(" (roundings alone: {:.4f})", spread_of_roundings));
  }
  if (spread_of_seeds < 0) return "no two complete seeds to compare with";
  if (largest > spread_of_seeds) return fmt::format("refused: above the seeds' {:.4f}", spread_of_seeds);
  return "accepted";
}

}  // namespace

TradeoffTable adaptation_length_table(const Tradeoff& tradeoff) {
  TradeoffTable table{"Held-out loss by length of adaptation, nats a token",
                      {{"model", "tokens", "peak rate", "before", "after", "above dense"}}};
  for (const auto& model : tradeoff.models) {
    const PatternLoss* dense = model.before("dense");
    for (const auto& pattern : tradeoff.patterns) {
      std::vector<const AdaptedModel*> runs;
      for (const auto& adapted : model.adapted) {
        if (adapted.pattern == pattern) runs.push_back(&adapted);
      }
      if (runs.size() < 2) continue;
      std::ranges::stable_sort(runs, {}, [](const auto* adapted) { return adapted->run->last_step->tokens; });
      const PatternLoss* before = model.before(pattern);
      for (const auto* adapted : runs) {
        const double after = loss_under(*adapted->run, pattern)->loss;
        table.rows.push_back({fmt::format("{}, {}", model.run->name, pattern_label(pattern)),
                              format_count(static_cast<double>(adapted->run->last_step->tokens)),
                              rate_of(*adapted->job), before == nullptr ? "-" : nats(before->loss),
                              nats(after),
                              dense == nullptr ? "-" : fmt::format("{:+.3f}", after - dense->loss)});
      }
    }
  }
  return table;
}

std::string_view to_string(ModelPair::Kind kind) {
  switch (kind) {
    case ModelPair::Kind::precisions:
      return "precisions";
    case ModelPair::Kind::seeds:
      return "seeds";
    case ModelPair::Kind::roundings:
      break;
  }
  return "roundings";
}

namespace {

/// How two jobs differ.
struct Difference {
  ModelPair::Kind kind = ModelPair::Kind::precisions;
  std::string also;  ///< a setting that changes roundings, beside another precision
};

/// Nothing where they differ in both precision and seed, in seed and roundings, or in what changes the model. A setting that one of
/// them lacks, as an older program wrote it, counts as the other's.
std::optional<Difference> difference_of(const JobSettings& first, const JobSettings& second) {
  const auto keys = differing_keys({first, second});
  const auto differs = [&](std::string_view key) { return std::ranges::find(keys, key) != keys.end(); };
  if (differs("job.device")) return {};  // a CPU computes in float32, whatever the job's precision
  const auto allowed = [](const auto& key) { return key == "job.seed" || is_machine_setting(key); };
  if (!std::ranges::all_of(keys, allowed)) return {};
  const auto rounding = std::ranges::find_if(of_rounding, [&](std::string_view key) {
    const std::string name(key);
    return differs(key) && first.value_of(name) != "-" && second.value_of(name) != "-";
  });
  const bool precision = differs("job.precision"), seed = differs("job.seed"),
             rounds = rounding != of_rounding.end();
  if (precision && !seed)
    return Difference{ModelPair::Kind::precisions, rounds ? std::string(*rounding) : ""};
  if (int{precision} + int{seed} + int{rounds} != 1) return {};
  return Difference{seed ? ModelPair::Kind::seeds : ModelPair::Kind::roundings, ""};
}

/// The first loss of the rule that `have` lacks, by its dilation: dense, D = 16 and 64, before and after adaptation.
std::string missing_of_rule(const JobSettings& job, const std::vector<Column>& have) {
  for (const bool adapted : {false, true}) {
    for (const std::int64_t dilation : {1, 16, 64}) {
      if (dilation == 1 ? adapted : !takes_patterns(job)) continue;
      const auto is = [&](const Column& column) {
        return column.adapted == adapted && compared_dilation(column.pattern) == dilation;
      };
      if (std::ranges::none_of(have, is)) {
        return (adapted ? "adapted, " : "") +
               (dilation == 1 ? std::string("dense") : fmt::format("D = {}", dilation)) + " is missing";
      }
    }
  }
  return {};
}

ModelPair compare(const std::vector<Column>& columns, const TradeoffModel& first, const TradeoffModel& second,
                  ModelPair::Kind kind) {
  ModelPair pair{
      .first = &first, .second = &second, .kind = kind, .differences = {}, .missing = {}, .verdict = {}};
  Comparison of{.first = first, .second = second, .kind = kind, .unlike = {}};
  std::vector<Column> have;
  for (const auto& column : columns) {
    of.find(column);
    if (of.a == nullptr || of.b == nullptr || !of.unlike.empty()) {
      const bool known = loss_of(first, column) != nullptr || loss_of(second, column) != nullptr;
      if (known && pair.missing.empty())
        pair.missing = label_of(column) + (of.unlike.empty() ? " is missing" : ": " + of.unlike);
      pair.differences.push_back(std::numeric_limits<double>::quiet_NaN());
      continue;
    }
    have.push_back(column);
    pair.differences.push_back(of.b->loss - of.a->loss);
    // A loss that is not finite is as large a difference as there is.
    const double size = std::abs(pair.differences.back());
    pair.largest = std::max(pair.largest, std::isfinite(size) ? size : HUGE_VAL);
  }
  if (pair.missing.empty()) pair.missing = missing_of_rule(*first.job, have);
  return pair;
}

}  // namespace

ModelPairs model_pairs(const Tradeoff& tradeoff) {
  ModelPairs result;
  const auto columns = columns_of(tradeoff);
  for (const auto& column : columns) result.labels.push_back(label_of(column));
  for (std::size_t i = 0; i < tradeoff.models.size(); ++i) {
    for (std::size_t j = i + 1; j < tradeoff.models.size(); ++j) {
      const TradeoffModel &first = tradeoff.models[i], &second = tradeoff.models[j];
      const auto difference = difference_of(*first.job, *second.job);
      if (!difference) continue;
      result.pairs.push_back(compare(columns, first, second, difference->kind));
      if (!difference->also.empty())
        result.pairs.back().missing = fmt::format("they also differ in {}", difference->also);
    }
  }
  for (auto& pair : result.pairs) {
    if (pair.kind != ModelPair::Kind::precisions) continue;
    // The largest difference of the complete pairs of a kind that one of the two is in; a run that diverged tells nothing.
    const auto spread = [&](ModelPair::Kind kind) {
      double largest = -1;
      for (const auto& other : result.pairs) {
        const auto has = [&](const TradeoffModel* model) {
          return other.first == model || other.second == model;
        };
        if (other.kind == kind && other.missing.empty() && std::isfinite(other.largest) &&
            (has(pair.first) || has(pair.second)))
          largest = std::max(largest, other.largest);
      }
      return largest;
    };
    pair.verdict = pair.missing.empty() ? verdict_of(pair.largest, spread(ModelPair::Kind::seeds),
                                                     spread(ModelPair::Kind::roundings))
                                        : fmt::format("not complete: {}", pair.missing);
  }
  return result;
}

}  // namespace ratplus::report
