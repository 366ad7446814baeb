// The picture of lib/report/tradeoff.h.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "kernels/pattern.h"
#include "lib/report/axis.h"
#include "lib/report/quantity.h"
#include "lib/report/series_style.h"
#include "lib/report/svg.h"
#include "lib/report/tradeoff.h"

namespace ratplus::report {
namespace {

using namespace series_style;

// Lengths in pixels.
constexpr double width = 860, height = 520, left = 70, right = 210, top = 44, bottom = 56;
constexpr double text_size = 13, mark_radius = 4.5;

struct Drawn {
  Point at;  ///< MiB, nats
  std::string pattern;
  bool dilated = false;  ///< dense or a dilation without a window
};

/// What one model shows, before and after adaptation.
struct ModelCurve {
  std::string name;
  std::vector<Drawn> before;                   ///< ascending caches
  std::vector<std::pair<Point, Point>> after;  ///< before and after, of one pattern
};

bool is_dilated(const std::string& text) {
  try {
    const Pattern pattern = parse_pattern(text);
    return pattern.window == 0 && pattern.dilation != Pattern::no_dilation;
  } catch (const Error&) {
    return false;  // one a layer, or one a head
  }
}

Point point_of(const PatternLoss& of) {
  return {static_cast<double>(of.cache_bytes) / (1 << 20), of.loss};
}

ModelCurve curve_of(const TradeoffModel& model) {
  ModelCurve curve{.name = model.run->name, .before = {}, .after = {}};
  for (const auto& of : model.run->final_result()->losses) {
    if (!std::isfinite(of.loss)) continue;
    curve.before.push_back({point_of(of), of.pattern, is_dilated(of.pattern)});
    const PatternLoss* after = model.after(of.pattern);
    if (after != nullptr && std::isfinite(after->loss))
      curve.after.emplace_back(point_of(of), point_of(*after));
  }
  std::ranges::stable_sort(curve.before, {}, [](const Drawn& drawn) { return drawn.at.x; });
  return curve;
}

class Plot {
 public:
  explicit Plot(const std::vector<ModelCurve>& curves)
      : svg_(width, height, "Held-out loss against the cache of a sequence",
             "One curve a model, through dense attention and dilations; other patterns are single marks; "
             "hollow marks: after adaptation.") {
    Point low{1e300, 1e300}, high{0, -1e300};
    for (const auto& curve : curves) {
      const auto take = [&](const Point& point) {
        low = {std::min(low.x, point.x), std::min(low.y, point.y)};
        high = {std::max(high.x, point.x), std::max(high.y, point.y)};
      };
      for (const auto& drawn : curve.before) take(drawn.at);
      for (const auto& [before, after] : curve.after) take(after);
    }
    require(high.x > 0, "a picture without a point");
    across_ = make_log_axis(low.x / 1.15, std::max(high.x, low.x * 1.5) * 1.15);
    const double room = std::max((high.y - low.y) * 0.06, 0.01);
    up_ = make_value_axis(Unit::nats, low.y - room, high.y + room);
  }

  Point place(const Point& point) const {
    return {left + (width - left - right) * across_.position(point.x),
            height - bottom - (height - top - bottom) * up_.position(point.y)};
  }

  void axes(const std::string& title) {
    svg_.text({left, 24}, title, {.size = text_size + 2, .colour = ink, .bold = true});
    const auto x_labels = tick_labels(across_), y_labels = value_labels(Unit::nats, up_);
    for (std::size_t i = 0; i < y_labels.size(); ++i) {
      const double y = place({across_.low, up_.ticks[i]}).y;
      svg_.line({left, y}, {width - right, y}, {.colour = faint});
      svg_.text({left - 8, y + 4}, y_labels[i], {.size = text_size, .colour = ink, .anchor = Anchor::end});
    }
    for (std::size_t i = 0; i < x_labels.size(); ++i) {
      const double x = place({across_.ticks[i], up_.low}).x;
      svg_.line({x, top}, {x, height - bottom}, {.colour = faint});
      svg_.text({x, height - bottom + 18}, x_labels[i],
                {.size = text_size, .colour = ink, .anchor = Anchor::middle});
    }
    svg_.text({(left + width - right) / 2, height - 14}, "cache of a sequence, MiB (bfloat16)",
              {.size = text_size, .colour = ink, .anchor = Anchor::middle});
    svg_.text({18, (top + height - bottom) / 2}, "held-out loss, nats a token",
              {.size = text_size, .colour = ink, .anchor = Anchor::middle, .upwards = true});
  }

  void model(const ModelCurve& curve, std::size_t number) {
    const auto colour = colours[number % colours.size()];
    const auto mark = marks[number % marks.size()];
    Curve line;
    for (const auto& drawn : curve.before) {
      if (drawn.dilated) line.push_back(place(drawn.at));
    }
    svg_.polyline(line, {.colour = colour, .width = 2, .dashes = dashes_of(number / colours.size())});
    for (const auto& [before, after] : curve.after)
      svg_.line(place(before), place(after), {.colour = colour, .dashes = "2 3"});
    for (const auto& drawn : curve.before) svg_.mark(mark, place(drawn.at), mark_radius, colour);
    for (const auto& [before, after] : curve.after) svg_.mark(mark, place(after), mark_radius, paper, colour);
    const double y = top + 10 + 20 * static_cast<double>(number);
    svg_.mark(mark, {width - right + 18, y}, mark_radius, colour);
    svg_.text({width - right + 30, y + 4}, curve.name, {.size = text_size, .colour = ink});
  }

  /// The patterns of one model, below its marks.
  void pattern_names(const ModelCurve& curve) {
    double free_from = 0;  // of the names before
    for (const auto& drawn : curve.before) {
      const Point at = place(drawn.at);
      const double half = text_width(drawn.pattern, text_size - 2) / 2;
      if (at.x - half < free_from) continue;
      svg_.text({at.x, at.y + 18}, drawn.pattern,
                {.size = text_size - 2, .colour = "#666666", .anchor = Anchor::middle});
      free_from = at.x + half + 4;
    }
  }

  std::string finish(std::size_t models, bool adapted) {
    if (adapted)
      svg_.text({width - right + 12, top + 16 + 20 * static_cast<double>(models)}, "hollow: after adaptation",
                {.size = text_size, .colour = "#666666"});
    return std::move(svg_).finish();
  }

 private:
  Svg svg_;
  Axis across_, up_;
};

}  // namespace

std::string draw_tradeoff_chart(const Tradeoff& tradeoff) {
  std::vector<ModelCurve> curves;
  for (const auto& model : tradeoff.models) curves.push_back(curve_of(model));
  Plot plot(curves);
  plot.axes(fmt::format("Held-out loss against the cache of {} tokens", tradeoff.sequence_length));
  bool adapted = false;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    plot.model(curves[i], i);
    adapted = adapted || !curves[i].after.empty();
  }
  plot.pattern_names(curves.front());
  return plot.finish(curves.size(), adapted);
}

}  // namespace ratplus::report
