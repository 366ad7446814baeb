// The picture of held-out perplexity by position (lib/report/tradeoff.h).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "lib/report/axis.h"
#include "lib/report/quantity.h"
#include "lib/report/series_style.h"
#include "lib/report/svg.h"
#include "lib/report/tradeoff.h"

namespace ratplus::report {
namespace {

using namespace series_style;

// Lengths in pixels.
constexpr double width = 860, panel_height = 320, left = 70, right = 240, top = 40, bottom = 54;
constexpr double text_size = 13, mark_radius = 3.5;

/// The middle of the positions "0-511".
double middle_of(const std::string& name) {
  double begin = 0, end = 0;
  const char* const last = name.data() + name.size();
  auto read = std::from_chars(name.data(), last, begin);
  end = begin;
  if (read.ec == std::errc{} && read.ptr != last && *read.ptr == '-')
    std::from_chars(read.ptr + 1, last, end);
  return (begin + end + 1) / 2;
}

struct Line {
  const PositionLosses* of;
  std::size_t number;  ///< of the pattern, for its colour and mark
};

class Panel {
 public:
  Panel(Svg& svg, double from, const std::vector<double>& places, const std::vector<Line>& lines)
      : svg_(svg), from_(from), places_(places) {
    double low = 1e300, high = 0;
    for (const auto& line : lines) {
      for (const double loss : line.of->losses) {
        if (!std::isfinite(loss)) continue;
        low = std::min(low, std::exp(loss)), high = std::max(high, std::exp(loss));
      }
    }
    // The parts are equal: half a part lies beyond the last middle.
    const double half = places.size() > 1 ? (places[1] - places[0]) / 2 : places[0];
    across_ = make_axis(0, places.back() + half, 6);
    constexpr double wide_range = 8;
    const double bottom_value = low / 1.02, top_value = std::max(high, low * 1.05) * 1.02;
    up_ = high > wide_range * low ? make_log_axis(bottom_value, top_value)
                                  : make_axis(bottom_value, top_value, 5);
  }

  void frame(const std::string& title) {
    svg_.text({left, from_ + 22}, title, {.size = text_size + 1, .colour = ink, .bold = true});
    const auto x_labels = tick_labels(across_), y_labels = tick_labels(up_);
    for (std::size_t i = 0; i < y_labels.size(); ++i) {
      const double y = place({across_.low, up_.ticks[i]}).y;
      svg_.line({left, y}, {width - right, y}, {.colour = faint});
      svg_.text({left - 8, y + 4}, y_labels[i], {.size = text_size, .colour = ink, .anchor = Anchor::end});
    }
    for (std::size_t i = 0; i < x_labels.size(); ++i) {
      const double x = place({across_.ticks[i], up_.low}).x;
      svg_.line({x, from_ + top}, {x, from_ + panel_height - bottom}, {.colour = faint});
      svg_.text({x, from_ + panel_height - bottom + 18}, x_labels[i],
                {.size = text_size, .colour = ink, .anchor = Anchor::middle});
    }
    svg_.text({(left + width - right) / 2, from_ + panel_height - 14}, "position in the sequence",
              {.size = text_size, .colour = ink, .anchor = Anchor::middle});
    svg_.text({18, from_ + (top + panel_height - bottom) / 2}, "held-out perplexity",
              {.size = text_size, .colour = ink, .anchor = Anchor::middle, .upwards = true});
  }

  void line(const Line& line, std::size_t row) {
    const auto colour = colours[line.number % colours.size()];
    const auto mark = marks[line.number % marks.size()];
    const bool after = line.of->adapted;
    Curve points;
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (std::isfinite(line.of->losses[i]))
        points.push_back(place({places_[i], std::exp(line.of->losses[i])}));
    }
    svg_.polyline(points, {.colour = colour, .width = 2, .dashes = after ? "5 4" : ""});
    for (const auto& point : points)
      after ? svg_.mark(mark, point, mark_radius, paper, colour)
            : svg_.mark(mark, point, mark_radius, colour);
    const double y = from_ + top + 10 + 18 * static_cast<double>(row);
    const Point at{width - right + 18, y};
    after ? svg_.mark(mark, at, mark_radius, paper, colour) : svg_.mark(mark, at, mark_radius, colour);
    svg_.text({at.x + 12, y + 4}, line.of->label, {.size = text_size - 1, .colour = ink});
  }

 private:
  Point place(const Point& point) const {
    return {left + (width - left - right) * across_.position(point.x),
            from_ + panel_height - bottom - (panel_height - top - bottom) * up_.position(point.y)};
  }

  Svg& svg_;
  double from_;
  const std::vector<double>& places_;
  Axis across_, up_;
};

}  // namespace

std::string draw_position_chart(const Tradeoff& tradeoff) {
  const auto models = losses_by_position(tradeoff);
  if (models.empty()) return {};
  Svg svg(width, panel_height * static_cast<double>(models.size()), "Held-out perplexity by position",
          "A panel a model, a curve a pattern; dashed curves with hollow marks: after adaptation.");
  std::vector<std::string> patterns;
  for (std::size_t m = 0; m < models.size(); ++m) {
    std::vector<double> places;
    for (const auto& name : models[m].positions) places.push_back(middle_of(name));
    std::vector<Line> lines;
    for (const auto& of : models[m].patterns) {
      if (std::ranges::none_of(of.losses, [](double loss) { return std::isfinite(loss); })) continue;
      auto found = std::ranges::find(patterns, of.pattern);
      if (found == patterns.end()) found = patterns.insert(patterns.end(), of.pattern);
      lines.push_back({&of, static_cast<std::size_t>(found - patterns.begin())});
    }
    if (lines.empty()) continue;
    Panel panel(svg, panel_height * static_cast<double>(m), places, lines);
    panel.frame(models[m].name);
    for (std::size_t i = 0; i < lines.size(); ++i) panel.line(lines[i], i);
  }
  return std::move(svg).finish();
}

}  // namespace ratplus::report
