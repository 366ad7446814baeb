// Comparisons of runs among those of lib/report/tradeoff.h: lengths of adaptation, precisions, seeds, roundings.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "base/error.h"
#include "kernels/pattern.h"
#include "lib/report/format.h"
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
bool is_rounding_setting(const std::string& key) {
  return key == "data.micro_batch" || key == "job.deterministic" || key == "job.threads" ||
         (key.starts_with("parallel.") && is_machine_setting(key));
}

/// Dense, and the dilations that models are adapted to.
bool is_compared(const std::string& text) {
  try {
    const Pattern pattern = parse_pattern(text);
    return pattern.window == 0 && (pattern.dilation == 1 || pattern.dilation == 16 || pattern.dilation == 64);
  } catch (const Error&) {
    return false;  // one a layer, or one a head
  }
}

const PatternLoss* loss_of(const TradeoffModel& model, const std::string& pattern, bool adapted) {
  return adapted ? model.after(pattern) : model.before(pattern);
}

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
        const auto& losses = adapted->run->final_result()->losses;
        const double after = std::ranges::find(losses, pattern, &PatternLoss::pattern)->loss;
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

ModelPairs model_pairs(const Tradeoff& tradeoff) {
  ModelPairs result;
  std::vector<std::pair<std::string, bool>> columns;  // pattern, whether after adaptation
  for (const bool adapted : {false, true}) {
    for (const auto& pattern : tradeoff.patterns) {
      if (!is_compared(pattern)) continue;
      const bool known = std::ranges::any_of(tradeoff.models, [&](const TradeoffModel& model) {
        return loss_of(model, pattern, adapted) != nullptr;
      });
      if (!known) continue;
      columns.emplace_back(pattern, adapted);
      result.labels.push_back((adapted ? "adapted, " : "") + pattern_label(pattern));
    }
  }
  for (std::size_t i = 0; i < tradeoff.models.size(); ++i) {
    for (std::size_t j = i + 1; j < tradeoff.models.size(); ++j) {
      const TradeoffModel &first = tradeoff.models[i], &second = tradeoff.models[j];
      auto keys = differing_keys({*first.job, *second.job});
      const auto differs = [&](std::string_view key) { return std::ranges::find(keys, key) != keys.end(); };
      const bool precision = differs("job.precision"), seed = differs("job.seed");
      if (differs("job.device")) continue;  // a CPU computes in float32, whatever the job's precision
      const bool rounding = std::ranges::any_of(keys, is_rounding_setting);
      if ((precision && seed) || (!precision && !seed && !rounding)) continue;
      if (!std::ranges::all_of(keys,
                               [](const auto& key) { return key == "job.seed" || is_machine_setting(key); }))
        continue;
      ModelPair pair{.first = &first,
                     .second = &second,
                     .kind = precision ? ModelPair::Kind::precisions
                             : seed    ? ModelPair::Kind::seeds
                                       : ModelPair::Kind::roundings,
                     .differences = {},
                     .missing = {},
                     .verdict = {}};
      for (const auto& [pattern, adapted] : columns) {
        const PatternLoss *a = loss_of(first, pattern, adapted), *b = loss_of(second, pattern, adapted);
        if (a == nullptr || b == nullptr) {
          if (pair.missing.empty()) pair.missing = result.labels[pair.differences.size()];
          pair.differences.push_back(std::numeric_limits<double>::quiet_NaN());
          continue;
        }
        pair.differences.push_back(b->loss - a->loss);
        // A loss that is not finite is as large a difference as there is.
        const double size = std::abs(pair.differences.back());
        pair.largest = std::max(pair.largest, std::isfinite(size) ? size : HUGE_VAL);
      }
      result.pairs.push_back(std::move(pair));
    }
  }
  for (auto& pair : result.pairs) {
    if (pair.kind != ModelPair::Kind::precisions) continue;
    // The largest difference of the complete pairs of a kind that one of the two is in.
    const auto spread = [&](ModelPair::Kind kind) {
      double largest = -1;
      for (const auto& other : result.pairs) {
        const auto has = [&](const TradeoffModel* model) {
          return other.first == model || other.second == model;
        };
        if (other.kind == kind && other.missing.empty() && (has(pair.first) || has(pair.second)))
          largest = std::max(largest, other.largest);
      }
      return largest;
    };
    pair.verdict = pair.missing.empty() ? verdict_of(pair.largest, spread(ModelPair::Kind::seeds),
                                                     spread(ModelPair::Kind::roundings))
                                        : fmt::format("not complete: {} is missing", pair.missing);
  }
  return result;
}

}  // namespace ratplus::report
