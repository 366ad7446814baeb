#include "lib/report/chart.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "lib/report/axis.h"
#include "lib/report/curve.h"
#include "lib/report/svg.h"
#include "lib/report/text_columns.h"

namespace ratplus::report {
namespace {

// Lengths in pixels of a picture 640 wide. At a phone's 360 the smallest text is still 8 high.
constexpr double page_width = 640;
constexpr double margin = 14;
constexpr double left_of_plot = 62;   ///< the loss axis: labels and title
constexpr double right_of_plot = 56;  ///< the last validations' values
constexpr double above_plot = 30;     ///< the run's name
constexpr double below_plot = 54;     ///< the token axis: labels and title
constexpr double large_plot_height = 300;
constexpr double small_plot_height = 220;
constexpr double text_size = 15;
constexpr double line_of_text = 24;
constexpr double mark_radius = 5;

constexpr std::size_t most_points = 800;  ///< of a curve: more than the plot has pixels
constexpr std::size_t most_marks = 100;   ///< validations of a pattern

constexpr std::string_view ink = "#222222";
constexpr std::string_view faint_ink = "#5c5c5c";
constexpr std::string_view grid = "#e4e4e4";

/// How a pattern is drawn, in every panel: no other has the same three.
struct Look {
  std::string_view colour;
  Mark mark;
  std::size_t round = 0;  ///< how often colours and marks have all been used before it: sets its dashes
};

// Okabe and Ito's colours, which colour-blind people can tell apart, without those too light for a line on
// white.
constexpr std::array<std::string_view, 7> colours = {"#0072b2", "#d55e00", "#009e73", "#b5538c",
                                                     "#c98a00", "#3a9ad9", "#555555"};
constexpr std::array marks = {Mark::circle, Mark::square, Mark::triangle, Mark::diamond};
static_assert(colours.size() % 2 == 1, "marks and colours, counted on together, meet every pair");

std::string validation_dashes(const Look& look) {
  return look.round == 0 ? "2 3" : fmt::format("{} 3 2 3", 4 + 4 * look.round);
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void include(const Range& other) {
    include(other.low);
    include(other.high);
  }
  double length() const { return high - low; }
};

/// The curves of one run, in tokens and nats.
struct Curves {
  std::string pattern;
  Curve every_step;  ///< training loss as logged
  Curve averaged;    ///< the same, smoothed
  Curve validations;
};

struct Panel {
  std::string name;
  std::vector<Curves> series;  ///< in the order of the legend
  double tokens = 0;           ///< the last of all curves
  Range losses;                ///< of what must be seen: averages and validations
};

struct Rectangle {
  Point corner;
  double width = 0;
  double height = 0;
};

/// Where the curves of a panel go, and how their values map to pixels.
struct Plot {
  Rectangle area;
  Axis tokens;
  Axis losses;

  double x(double tokens_seen) const { return area.corner.x + area.width * tokens.position(tokens_seen); }
  double y(double loss) const { return area.corner.y + area.height * (1 - losses.position(loss)); }
  double bottom() const { return area.corner.y + area.height; }
  double right() const { return area.corner.x + area.width; }
  Curve place(const Curve& curve) const {
    Curve placed;
    for (const Point& point : curve) placed.push_back({x(point.x), y(point.y)});
    return placed;
  }
};

using Legend = std::vector<std::string>;  ///< patterns; the index gives the look

Look look_of(const Legend& legend, const std::string& pattern) {
  const auto index = static_cast<std::size_t>(std::ranges::find(legend, pattern) - legend.begin());
  return {colours[index % colours.size()], marks[index % marks.size()],
          index / (colours.size() * marks.size())};
}

/// Of averaged losses; solid but for patterns whose colour another one has.
std::string training_dashes(const Legend& legend, const std::string& pattern) {
  const auto index = static_cast<std::size_t>(std::ranges::find(legend, pattern) - legend.begin());
  return dashes_of(index / colours.size());
}

/// Every pattern of the runs, dense first, the others as they come.
Legend collect_patterns(const std::vector<RunMetrics>& runs) {
  Legend legend;
  for (const char* field : {"loss", "validation_loss"}) {
    for (const auto& run : runs) {
      for (const auto& pattern : run.patterns_of(field)) {
        if (std::ranges::find(legend, pattern) == legend.end()) legend.push_back(pattern);
      }
    }
  }
  std::stable_partition(legend.begin(), legend.end(), [](const auto& pattern) { return pattern == "dense"; });
  return legend;
}

/// Over tokens.
Curve over_tokens(const RunMetrics& run, Curve curve) {
  for (Point& point : curve) point.x *= run.tokens_per_step;
  return curve;
}

Curves curves_of(const RunMetrics& run, const std::string& pattern) {
  Curves curves{.pattern = pattern, .every_step = {}, .averaged = {}, .validations = {}};
  if (const History* losses = run.find("loss", pattern)) {
    const Curve means = losses->means();
    curves.every_step = over_tokens(run, thin(losses->extremes(), most_points));
    curves.averaged = over_tokens(run, thin(smooth(means, means.size() / 20), most_points));
  }
  if (const History* losses = run.find("validation_loss", pattern)) {
    curves.validations = over_tokens(run, thin(losses->extremes(), most_marks));
  }
  return curves;
}

Panel make_panel(const RunMetrics& run, const Legend& legend) {
  Panel panel;
  panel.name = run.name;
  for (const auto& pattern : legend) {
    Curves series = curves_of(run, pattern);
    for (const Curve* curve : {&series.averaged, &series.validations}) {
      for (const Point& point : *curve) {
        panel.losses.include(point.y);
        panel.tokens = std::max(panel.tokens, point.x);
      }
    }
    if (!series.averaged.empty() || !series.validations.empty()) panel.series.push_back(std::move(series));
  }
  if (panel.series.empty()) {
    fail(
        "{}: none of its losses is a finite number: the run diverged from its first step on, so there is "
        "nothing to "
        "draw",
        run.directory.string());
  }
  return panel;
}

/// Tokens in thousands, millions or billions.
struct TokenUnit {
  double factor = 1;
  const char* title = "tokens";
};

TokenUnit token_unit(double most) {
  if (most >= 2e9) return {1e9, "tokens (billions)"};
  if (most >= 2e6) return {1e6, "tokens (millions)"};
  if (most >= 2e3) return {1e3, "tokens (thousands)"};
  return {};
}

void draw_token_axis(Svg& svg, const Plot& plot, const TokenUnit& unit) {
  Axis in_units = plot.tokens;
  for (double& tick : in_units.ticks) tick /= unit.factor;
  const auto labels = tick_labels(in_units);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double x = plot.x(plot.tokens.ticks[i]);
    svg.line({x, plot.area.corner.y}, {x, plot.bottom()}, {.colour = grid});
    svg.text({x, plot.bottom() + 20}, labels[i],
             {.size = text_size, .colour = faint_ink, .anchor = Anchor::middle});
  }
  svg.text({plot.area.corner.x + plot.area.width / 2, plot.bottom() + 41}, unit.title,
           {.size = text_size, .colour = faint_ink, .anchor = Anchor::middle});
}

void draw_loss_axis(Svg& svg, const Plot& plot) {
  const auto labels = tick_labels(plot.losses);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const double y = plot.y(plot.losses.ticks[i]);
    svg.line({plot.area.corner.x, y}, {plot.right(), y}, {.colour = grid});
    svg.text({plot.area.corner.x - 8, y + 5}, labels[i],
             {.size = text_size, .colour = faint_ink, .anchor = Anchor::end});
  }
  svg.text({plot.area.corner.x - 46, plot.area.corner.y + plot.area.height / 2}, "loss (nats a token)",
           {.size = text_size, .colour = faint_ink, .anchor = Anchor::middle, .upwards = true});
}

void draw_curves(Svg& svg, const Plot& plot, const Panel& panel, const Legend& legend) {
  svg.begin_clip(plot.area.corner, plot.area.width, plot.area.height);
  for (const Curves& series : panel.series) {
    svg.polyline(plot.place(series.every_step),
                 {.colour = look_of(legend, series.pattern).colour, .width = 1, .opacity = 0.3});
  }
  for (const Curves& series : panel.series) {
    svg.polyline(plot.place(series.averaged), {.colour = look_of(legend, series.pattern).colour,
                                               .width = 2.2,
                                               .dashes = training_dashes(legend, series.pattern)});
  }
  svg.end_clip();
  for (const Curves& series : panel.series) {
    const Look look = look_of(legend, series.pattern);
    const Curve placed = plot.place(series.validations);
    svg.polyline(placed, {.colour = look.colour, .width = 1.2, .dashes = validation_dashes(look)});
    for (const Point& point : placed) svg.mark(look.mark, point, mark_radius, look.colour);
  }
}

/// The last validations' values at the right edge, moved apart where they would overlap.
void draw_last_values(Svg& svg, const Plot& plot, const Panel& panel, const Legend& legend) {
  struct Label {
    double y;
    const Curves* series;
  };
  std::vector<Label> labels;
  for (const Curves& series : panel.series) {
    if (!series.validations.empty()) labels.push_back({plot.y(series.validations.back().y), &series});
  }
  std::ranges::sort(labels, {}, &Label::y);
  // More of them than stand below each other are set closer, and smaller.
  const double distance = std::min(17.0, (plot.area.height - 2) / static_cast<double>(labels.size()));
  const double size = std::min(text_size, distance / 1.1);
  for (std::size_t i = 1; i < labels.size(); ++i)
    labels[i].y = std::max(labels[i].y, labels[i - 1].y + distance);
  // What was pushed below the plot pushes back.
  double lowest = plot.bottom() - 2;
  for (std::size_t i = labels.size(); i-- > 0; lowest -= distance)
    labels[i].y = std::min(labels[i].y, lowest);
  for (const Label& label : labels) {
    svg.text({plot.right() + 10, label.y + 5}, fmt::format("{:.3f}", label.series->validations.back().y),
             {.size = size, .colour = look_of(legend, label.series->pattern).colour, .bold = true});
  }
}

void draw_panel(Svg& svg, const Plot& plot, const Panel& panel, const Legend& legend, const TokenUnit& unit) {
  constexpr double size = 16;
  const auto columns =
      static_cast<std::size_t>((plot.area.width + right_of_plot) / text_width("m", size) / 1.05);
  svg.text({plot.area.corner.x, plot.area.corner.y - 10}, shortened_within(panel.name, columns),
           {.size = size, .colour = ink, .bold = true});
  draw_token_axis(svg, plot, unit);
  draw_loss_axis(svg, plot);
  draw_curves(svg, plot, panel, legend);
  svg.line({plot.area.corner.x, plot.bottom()}, {plot.right(), plot.bottom()}, {.colour = faint_ink});
  draw_last_values(svg, plot, panel, legend);
}

void draw_reference(Svg& svg, const Plot& plot, double loss) {
  const double y = plot.y(loss);
  svg.line({plot.area.corner.x, y}, {plot.right(), y}, {.colour = ink, .width = 1.4, .dashes = "7 5"});
}

/// One entry of the legend: a sample, and its text.
struct LegendEntry {
  std::string text;
  std::optional<Look> look;  ///< none: says how lines are drawn, in grey
  std::string dashes = {};
  LineStyle line = {};
  bool mark = false;
};

constexpr double sample_width = 30;

/// Cut in its middle where it is wider than that.
std::string fitting(const std::string& text, double width, double size) {
  std::string fitted = text;
  for (auto columns = columns_of(text); columns > 1 && text_width(fitted, size) > width; --columns)
    fitted = shortened_within(text, columns - 1);
  return fitted;
}

double entry_width(const LegendEntry& entry) {
  return sample_width + 8 + text_width(entry.text, text_size) + 20;
}

std::vector<LegendEntry> legend_entries(const Legend& legend, bool reference, const std::string& first_run) {
  std::vector<LegendEntry> entries;
  for (const auto& pattern : legend) {
    const Look look = look_of(legend, pattern);
    entries.push_back({pattern_label(pattern),
                       look,
                       training_dashes(legend, pattern),
                       {.colour = look.colour, .width = 2.2},
                       true});
  }
  entries.push_back({"training, averaged", {}, "", {.colour = faint_ink, .width = 2.2}});
  entries.push_back({"as logged", {}, "", {.colour = faint_ink, .width = 1, .opacity = 0.5}});
  entries.push_back({"validation", {}, "2 3", {.colour = faint_ink, .width = 1.2}, true});
  if (reference) {
    entries.push_back(
        {fmt::format("last dense validation of {}", first_run), {}, "7 5", {.colour = ink, .width = 1.4}});
  }
  for (auto& entry : entries)
    entry.text = fitting(entry.text, page_width - 2 * margin - sample_width - 8, text_size);
  return entries;
}

/// Sets the entries in lines of the page's width, the patterns and the kinds of line each on their own; draws
/// them if `svg` is not null. Returns the height taken.
double lay_out_legend(Svg* svg, const std::vector<LegendEntry>& entries, double top) {
  double x = margin;
  double y = top;
  bool patterns = true;
  for (const auto& entry : entries) {
    const bool next_line =
        x + entry_width(entry) - 20 > page_width - margin || patterns != entry.look.has_value();
    patterns = entry.look.has_value();
    if (next_line && x > margin) {
      x = margin;
      y += line_of_text;
    }
    if (svg != nullptr) {
      const double middle = y + line_of_text / 2;
      auto line = entry.line;
      line.dashes = entry.dashes;
      svg->line({x, middle}, {x + sample_width, middle}, line);
      if (entry.mark) {
        svg->mark(entry.look ? entry.look->mark : Mark::circle, {x + sample_width / 2, middle}, mark_radius,
                  entry.line.colour);
      }
      svg->text({x + sample_width + 8, middle + 5}, entry.text, {.size = text_size, .colour = ink});
    }
    x += entry_width(entry);
  }
  return y + line_of_text - top;
}

/// The plots' rectangles: the first panel the full width, the others in pairs, an odd last one the full
/// width.
std::vector<Rectangle> place_plots(std::size_t panels, double top) {
  std::vector<Rectangle> plots;
  for (std::size_t i = 0; i < panels; ++i) {
    const bool first = i == 0;
    const bool right_half = !first && i % 2 == 0;
    const bool full = first || (!right_half && i + 1 == panels);
    const double cell = full ? page_width - 2 * margin : (page_width - 2 * margin - 12) / 2;
    const double height = first ? large_plot_height : small_plot_height;
    const double x = right_half ? page_width - margin - cell : margin;
    plots.push_back({{x + left_of_plot, top + above_plot}, cell - left_of_plot - right_of_plot, height});
    if (full || right_half) top += above_plot + height + below_plot;
  }
  return plots;
}

/// The loss axes. The others share one scale, and the first has it too unless they would fill less than a
/// third.
std::vector<Axis> loss_axes(const std::vector<Panel>& panels, std::optional<double> reference) {
  Range first = panels.front().losses;
  std::vector<Axis> axes;
  if (panels.size() > 1) {
    Range others;
    for (std::size_t i = 1; i < panels.size(); ++i) others.include(panels[i].losses);
    if (reference) others.include(*reference);
    Range all = first;
    all.include(others);
    if (others.length() > all.length() / 3) first = others = all;
    const double room = 0.05 * others.length();
    axes.assign(panels.size(), make_round_axis(others.low - room, others.high + room, 5));
  }
  axes.resize(panels.size());
  const double room = 0.02 * first.length();
  axes.front() = make_round_axis(first.low - room, first.high + room, 7);
  return axes;
}

std::string chart_title(const std::vector<RunMetrics>& runs) {
  if (runs.size() == 1) return "Loss of " + runs.front().name;
  const auto parent = std::filesystem::absolute(runs.front().directory).lexically_normal().parent_path();
  return fmt::format("Loss of the runs in {}", parent.filename().string());
}

std::string chart_description(const std::vector<RunMetrics>& runs) {
  std::string text = "Training and validation loss over tokens.";
  for (const auto& run : runs) {
    if (!run.last_validation) continue;
    text += fmt::format(" {}: last validation", run.name);
    for (const auto& of : run.last_validation->losses)
      text += fmt::format(" {} {:.3f};", pattern_label(of.pattern), of.loss);
  }
  return text;
}

}  // namespace

std::string draw_loss_chart(const std::vector<RunMetrics>& runs) {
  require(!runs.empty(), "draw_loss_chart without runs");
  const Legend legend = collect_patterns(runs);
  std::vector<Panel> panels;
  for (const auto& run : runs) panels.push_back(make_panel(run, legend));

  std::optional<double> reference;  // what the adapted runs are compared with
  if (runs.size() > 1 && runs.front().last_validation) {
    reference = loss_of(&*runs.front().last_validation, "dense");
    if (reference && !std::isfinite(*reference)) reference.reset();
  }
  const auto entries = legend_entries(legend, reference.has_value(), runs.front().name);
  const double legend_top = margin + 36;
  const double plots_top = legend_top + lay_out_legend(nullptr, entries, legend_top) + 8;
  const auto areas = place_plots(panels.size(), plots_top);
  const double height = areas.back().corner.y + areas.back().height + below_plot;

  const std::string title = chart_title(runs);
  Svg svg(page_width, height, title, chart_description(runs));
  svg.rectangle({0, 0}, page_width, height, "#ffffff");
  svg.text({margin, margin + 18}, fitting(title, page_width - 2 * margin, 20),
           {.size = 20, .colour = ink, .bold = true});
  lay_out_legend(&svg, entries, legend_top);
  const auto losses = loss_axes(panels, reference);
  for (std::size_t i = 0; i < panels.size(); ++i) {
    const TokenUnit unit = token_unit(panels[i].tokens);
    const int ticks = static_cast<int>(areas[i].width / 60);
    const Plot plot{areas[i], make_axis(0, std::max(panels[i].tokens, 1.0), ticks, 1), losses[i]};
    draw_panel(svg, plot, panels[i], legend, unit);
    if (i > 0 && reference) draw_reference(svg, plot, *reference);
  }
  return std::move(svg).finish();
}

void write_loss_chart(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& svg) {
  write_whole_file(svg, draw_loss_chart(read_metrics(runs)));
}

}  // namespace ratplus::report
