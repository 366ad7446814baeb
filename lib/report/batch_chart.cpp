#include "lib/report/batch_chart.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "lib/report/axis.h"
#include "lib/report/series_style.h"
#include "lib/report/svg.h"

namespace ratplus::report {
namespace {

using namespace series_style;

// Lengths in pixels.
constexpr double width = 760, height = 480, left = 78, right = 170, top = 44, bottom = 52;
constexpr double text_size = 13;

/// A decade more where all values are alike.
Axis axis_of(double low, double high) {
  return make_log_axis(low, high > low * 1.5 ? high : low * 10);
}

}  // namespace

std::string draw_batch_chart(const std::vector<BatchLine>& lines, const std::string& title) {
  require(!lines.empty(), "a chart without a line");
  Point low{1e300, 1e300}, high{0, 0};
  for (const auto& line : lines) {
    for (const auto* curve : {&line.measured, &line.floor}) {
      for (const auto& point : *curve) {
        low = {std::min(low.x, point.x), std::min(low.y, point.y)};
        high = {std::max(high.x, point.x), std::max(high.y, point.y)};
      }
    }
  }
  const Axis across = axis_of(low.x, high.x), up = axis_of(low.y, high.y);
  const auto place = [&](const Point& point) {
    return Point{left + (width - left - right) * across.position(point.x),
                 height - bottom - (height - top - bottom) * up.position(point.y)};
  };
  Svg svg(width, height, title,
          "Tokens a second by the number of sequences, for each pattern; dashed: the floor.");
  svg.text({left, 24}, title, {.size = text_size + 2, .colour = ink, .bold = true});
  const auto x_labels = tick_labels(across), y_labels = tick_labels(up);
  for (std::size_t i = 0; i < y_labels.size(); ++i) {
    const double y = place({low.x, up.ticks[i]}).y;
    svg.line({left, y}, {width - right, y}, {.colour = faint});
    svg.text({left - 8, y + 4}, y_labels[i], {.size = text_size, .colour = ink, .anchor = Anchor::end});
  }
  for (std::size_t i = 0; i < x_labels.size(); ++i) {
    const double x = place({across.ticks[i], low.y}).x;
    svg.line({x, top}, {x, height - bottom}, {.colour = faint});
    svg.text({x, height - bottom + 18}, x_labels[i],
             {.size = text_size, .colour = ink, .anchor = Anchor::middle});
  }
  svg.text({(left + width - right) / 2, height - 12}, "sequences",
           {.size = text_size, .colour = ink, .anchor = Anchor::middle});
  svg.text({20, (top + height - bottom) / 2}, "tokens/s",
           {.size = text_size, .colour = ink, .anchor = Anchor::middle, .upwards = true});
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const auto colour = colours[i % colours.size()];
    const auto placed = [&](const Curve& curve) {
      Curve result;
      for (const auto& point : curve) result.push_back(place(point));
      return result;
    };
    svg.polyline(placed(lines[i].floor), {.colour = colour, .width = 1.2, .opacity = 0.7, .dashes = "5 4"});
    const auto measured = placed(lines[i].measured);
    svg.polyline(measured, {.colour = colour, .width = 2});
    for (const auto& point : measured) svg.mark(marks[i % marks.size()], point, 4, colour);
    const double y = top + 10 + 20 * static_cast<double>(i);
    svg.mark(marks[i % marks.size()], {width - right + 18, y}, 4, colour);
    svg.text({width - right + 30, y + 4}, lines[i].name, {.size = text_size, .colour = ink});
  }
  svg.text({width - right + 12, top + 14 + 20 * static_cast<double>(lines.size())}, "dashed: floor",
           {.size = text_size, .colour = "#666666"});
  return std::move(svg).finish();
}

}  // namespace ratplus::report
