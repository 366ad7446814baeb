#include "lib/report/panel_chart.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "lib/report/svg.h"

namespace ratplus::report {
namespace {

constexpr double text_size = 12.5;  // at a phone's width some 11 pixels
constexpr double label_gap = 6;     // between a label and the plot

Axis value_axis(const Panel& panel) {
  const ValueRange range = range_of(panel);
  if (panel.logarithmic) return make_log_axis(range.low, range.high);
  return make_value_axis(panel.unit, range.low, range.high);
}

}  // namespace

PanelGeometry geometry_for(std::span<const Panel> panels) {
  PanelGeometry geometry;
  for (const Panel& panel : panels) {
    for (const auto& label : value_labels(panel.unit, value_axis(panel)))
      geometry.left = std::max(geometry.left, text_width(label, text_size) + label_gap + 4);
  }
  return geometry;
}

std::string line_colour(const PanelLine& line) {
  return fmt::format("var(--c{})", line.colour);
}

std::string draw_panel(const Panel& panel, double tokens, const PanelGeometry& g) {
  const Axis values = value_axis(panel);
  const Axis across = make_axis(0, std::max(tokens, 1.0), 5, 1);
  const double bottom = g.height - g.bottom, right = g.width - g.right;
  const auto x_of = [&](double x) { return g.left + g.plot_width() * across.position(x); };
  const auto y_of = [&](double y) { return bottom - (bottom - g.top) * values.position(y); };
  const auto place = [&](const Curve& curve) {
    Curve placed;
    for (const Point& point : curve) placed.push_back({x_of(point.x), y_of(point.y)});
    return placed;
  };

  Svg svg = Svg::in_page(g.width, g.height, panel.title);
  const auto y_labels = value_labels(panel.unit, values);
  for (std::size_t i = 0; i < y_labels.size(); ++i) {
    const double y = y_of(values.ticks[i]);
    svg.line({g.left, y}, {right, y}, {.colour = "var(--grid)"});
    svg.text({g.left - label_gap, y + 4}, y_labels[i],
             {.size = text_size, .colour = "var(--faint)", .anchor = Anchor::end});
  }
  const auto x_labels = token_labels(across);
  for (std::size_t i = 0; i < x_labels.size(); ++i) {
    const double x = x_of(across.ticks[i]);
    const double most = g.width - text_width(x_labels[i], text_size) / 2 - 1;
    svg.text({std::min(x, most), bottom + 17}, x_labels[i],
             {.size = text_size, .colour = "var(--faint)", .anchor = Anchor::middle});
  }
  svg.line({g.left, bottom}, {right, bottom}, {.colour = "var(--faint)"});
  for (const PanelLine& line : panel.lines) {
    const auto colour = line_colour(line);
    svg.polyline(place(line.as_logged), {.colour = colour, .width = 1, .opacity = 0.3});
  }
  for (const PanelLine& line : panel.lines) {
    const auto colour = line_colour(line);
    const auto dashes = dashes_of(line.dashes);
    const Curve placed = place(line.curve);
    svg.polyline(placed, {.colour = colour, .width = panel.marks ? 1.2 : 1.8, .dashes = dashes});
    const bool sparse = panel.marks || placed.size() == 1;
    if (sparse && placed.size() <= 40) {
      constexpr std::array marks = {Mark::circle, Mark::square, Mark::triangle, Mark::diamond};
      for (const Point& point : placed) {
        svg.mark(marks[line.kind % marks.size()], point, 4, colour, "var(--card)");
      }
    }
  }
  // Moved by the page's script.
  svg.line({-1, g.top}, {-1, bottom}, {.colour = "var(--cursor)"});
  return std::move(svg).finish();
}

}  // namespace ratplus::report
