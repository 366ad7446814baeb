#include "lib/report/panels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "lib/run/metrics_fields.h"

namespace ratplus::report {
namespace {

struct Field {
  std::string name;   ///< as in Series
  std::string label;  ///< among a panel's fields; empty where it is the only one
};

struct PanelPlan {
  std::string title;
  Unit unit;
  std::vector<Field> fields;
  bool noisy = false;  ///< averaged, what was logged stands faintly behind
  bool marks = false;
  bool may_be_logarithmic = false;
};

const std::vector<PanelPlan>& known_panels() {
  static const std::vector<PanelPlan> plans = {
      {"Training loss", Unit::nats, {{"loss", ""}}, true},
      {"Validation loss", Unit::nats, {{"validation_loss", ""}}, false, true},
      {"Learning rate", Unit::factor, {{"learning_rate", ""}}},
      {"Gradient norm", Unit::plain, {{"gradient_norm", ""}}, true, false, true},
      {"Tokens a second", Unit::count, {{"tokens_per_second", ""}}, true},
      {"Share of peak", Unit::share, {{"share_of_peak", ""}}, true},
      {"Memory of the first rank",
       Unit::bytes,
       {{"memory_bytes", "device, planned"}, {"host_memory_bytes", "process, on the host"}}},
      {"Wait for data, share of the steps' time", Unit::share, {{"data_wait_share", ""}}, true},
      {"Others wait for the slowest rank, a step", Unit::seconds, {{"health_lag_seconds", ""}}, true},
      {"Checkpoints",
       Unit::seconds,
       {{"checkpoint_stall_seconds", "steps held up"}, {"checkpoint_seconds", "until complete"}},
       false,
       true},
      {"Updates left out", Unit::whole, {{"skipped_updates", ""}}},
  };
  return plans;
}

/// A field that another one shows better, or that is of no use as a curve.
bool is_left_out(const std::string& field) {
  if (run::is_shown_as(run::Shown::value, field)) return true;
  for (const char* prefix : {"validation_", "checkpoint_", "health_"}) {
    if (field.starts_with(prefix)) return true;
  }
  return false;
}

bool is_known(const std::string& field) {
  return std::ranges::any_of(known_panels(), [&](const PanelPlan& plan) {
    return std::ranges::find(plan.fields, field, &Field::name) != plan.fields.end();
  });
}

Unit unit_of(const std::string& field) {
  if (field.ends_with("bytes")) return Unit::bytes;
  if (field.ends_with("seconds")) return Unit::seconds;
  if (field.ends_with("share")) return Unit::share;
  return Unit::plain;
}

std::string title_of(std::string field) {
  std::ranges::replace(field, '_', ' ');
  field.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(field.front())));
  return field;
}

std::vector<PanelPlan> all_panels(std::span<const RunMetrics> runs) {
  std::vector<PanelPlan> plans = known_panels();
  for (const RunMetrics& run : runs) {
    for (const Series& series : run.series) {
      const bool planned = std::ranges::any_of(plans, [&](const PanelPlan& plan) {
        return std::ranges::find(plan.fields, series.field, &Field::name) != plan.fields.end();
      });
      if (planned || is_known(series.field) || is_left_out(series.field)) continue;
      plans.push_back({title_of(series.field), unit_of(series.field), {{series.field, ""}}});
    }
  }
  return plans;
}

Curve over_tokens(Curve curve, const RunMetrics& run) {
  for (Point& point : curve) point.x *= run.tokens_per_step > 0 ? run.tokens_per_step : 1;
  return curve;
}

constexpr std::size_t fewest_to_average = 40;

PanelLine make_line(const RunMetrics& run, const History& history, const PanelPlan& plan,
                    std::size_t points) {
  PanelLine line;
  line.last = history.last();
  const Curve means = history.means();
  const Curve logged = over_tokens(thin(history.extremes(), points), run);
  if (plan.noisy && means.size() >= fewest_to_average) {
    line.curve = over_tokens(thin(smooth(means, means.size() / 40), points), run);
    line.as_logged = logged;
  } else {
    line.curve = logged;
  }
  return line;
}

/// "run, D = 64" where both tell lines apart.
std::string join_label(const std::string& run, const std::string& kind) {
  if (run.empty() || kind.empty()) return run + kind;
  return run + ", " + kind;
}

std::vector<std::string> labels_of(const std::vector<Field>& fields) {
  std::vector<std::string> labels;
  for (const Field& field : fields) labels.push_back(field.label);
  return labels;
}

/// Every pattern of the runs, dense first, the others as they come: a pattern's index is its look in all panels.
std::vector<std::string> pattern_labels(std::span<const RunMetrics> runs) {
  std::vector<std::string> labels;
  for (const char* field : {"loss", "validation_loss"}) {
    for (const RunMetrics& run : runs) {
      for (const std::string& pattern : run.patterns_of(field)) {
        const std::string label = pattern_label(pattern);
        if (std::ranges::find(labels, label) == labels.end()) labels.push_back(label);
      }
    }
  }
  std::stable_partition(labels.begin(), labels.end(), [](const auto& label) { return label == "dense"; });
  return labels;
}

/// One run: a pattern is a colour. Several: a run is a colour, and a pattern its dashes. What goes beyond the colours is
/// told by further dashes.
void choose_look(PanelLine& line, std::size_t runs, std::size_t kinds) {
  const std::size_t coloured = runs > 1 ? line.run : line.kind;
  line.colour = coloured % line_colours;
  line.dashes = coloured / line_colours * (runs > 1 ? kinds : 1) + (runs > 1 ? line.kind : 0);
}

Panel make_panel(const PanelPlan& plan, std::span<const RunMetrics> runs,
                 const std::vector<std::string>& patterns, std::size_t points) {
  Panel panel{.title = plan.title, .unit = plan.unit, .marks = plan.marks, .lines = {}};
  const auto fields = labels_of(plan.fields);
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (const Field& field : plan.fields) {
      for (const std::string& pattern : runs[r].patterns_of(field.name)) {
        const History& history = *runs[r].find(field.name, pattern);
        if (history.empty()) continue;
        const std::string kind = pattern.empty() ? field.label : pattern_label(pattern);
        const auto& kinds = pattern.empty() ? fields : patterns;
        auto line = make_line(runs[r], history, plan, points);
        line.run = r;
        line.kind = static_cast<std::size_t>(std::ranges::find(kinds, kind) - kinds.begin());
        line.label = kind;
        panel.lines.push_back(std::move(line));
      }
    }
  }
  const std::size_t all_kinds = std::max(patterns.size(), fields.size());
  for (PanelLine& line : panel.lines) choose_look(line, runs.size(), all_kinds);
  const bool kind_tells = runs.size() == 1 || std::ranges::any_of(panel.lines, [&](const PanelLine& line) {
                            return line.kind != panel.lines.front().kind;
                          });
  for (PanelLine& line : panel.lines) {
    line.label = join_label(runs.size() > 1 ? runs[line.run].name : "", kind_tells ? line.label : "");
  }
  if (plan.may_be_logarithmic && !panel.lines.empty()) {
    const ValueRange range = range_of(panel);
    panel.logarithmic = range.low > 0 && range.high > 20 * range.low;
  }
  return panel;
}

/// Of many runs' lines for the same patterns (or fields), a panel for each: runs are compared in one at a time.
std::vector<Panel> split_by_kind(Panel panel, const std::vector<std::string>& labels, std::size_t runs) {
  constexpr std::size_t readable = 6;  // lines of a panel, and kinds of dashes
  std::vector<std::size_t> kinds;
  for (const PanelLine& line : panel.lines) {
    if (std::ranges::find(kinds, line.kind) == kinds.end()) kinds.push_back(line.kind);
  }
  const bool many = std::ranges::any_of(panel.lines, [&](const PanelLine& line) {
    return std::ranges::count(panel.lines, line.run, &PanelLine::run) > std::ptrdiff_t{readable};
  });
  const bool shared = panel.lines.size() >= 2 * kinds.size() || many;
  if (panel.lines.size() <= readable || kinds.size() < 2 || !shared) return {std::move(panel)};
  std::ranges::sort(kinds);
  std::vector<Panel> panels;
  for (const std::size_t kind : kinds) {
    Panel one = panel;
    one.title += ", " + labels[kind];
    std::erase_if(one.lines, [&](const PanelLine& line) { return line.kind != kind; });
    for (PanelLine& line : one.lines) {
      line.label.erase(line.label.size() - labels[kind].size() - 2);  // ", D = 64"
      line.kind = 0;
      choose_look(line, runs, 1);
    }
    panels.push_back(std::move(one));
  }
  return panels;
}

}  // namespace

std::vector<Panel> make_panels(std::span<const RunMetrics> runs, std::size_t points) {
  std::vector<Panel> panels;
  const auto patterns = pattern_labels(runs);
  for (const PanelPlan& plan : all_panels(runs)) {
    Panel panel = make_panel(plan, runs, patterns, points);
    if (panel.lines.empty()) continue;
    if (runs.size() == 1) {
      panels.push_back(std::move(panel));
      continue;
    }
    const auto fields = labels_of(plan.fields);
    for (Panel& one :
         split_by_kind(std::move(panel), plan.fields.size() > 1 ? fields : patterns, runs.size())) {
      panels.push_back(std::move(one));
    }
  }
  return panels;
}

ValueRange range_of(const Panel& panel) {
  ValueRange range{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (const PanelLine& line : panel.lines) {
    for (const Curve* curve : {&line.curve, &line.as_logged}) {
      for (const Point& point : *curve) {
        range.low = std::min(range.low, point.y);
        range.high = std::max(range.high, point.y);
      }
    }
  }
  return range;
}

}  // namespace ratplus::report
