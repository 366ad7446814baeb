#include "lib/report/timeline_chart.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/error.h"
#include "lib/report/axis.h"
#include "lib/report/format.h"
#include "lib/report/svg.h"
#include "lib/report/text_columns.h"

namespace ratplus::report {
namespace {

using parallel::Timeline;
using Span = Timeline::Span;

// Lengths in pixels.
constexpr double page_width = 1200;
constexpr double margin = 16;
constexpr double left_of_lanes = 110;
constexpr double lane_height = 24;
constexpr double lane_gap = 5;
constexpr double title_height = 30;
constexpr double axis_height = 26;
constexpr double row_gap = 26;
constexpr double text_size = 13;
constexpr double least_named_width = 44;  ///< of a span that can hold its name

constexpr std::string_view ink = "#222222";
constexpr std::string_view faint = "#ececec";

// After Okabe and Ito: colour-blind people can tell them apart.
struct Kind {
  std::string_view name;
  std::string_view colour;
};
constexpr std::array kinds = {Kind{"forward", "#56b4e9"},    Kind{"backward", "#0072b2"},
                              Kind{"update", "#999999"},     Kind{"waiting", "#d55e00"},
                              Kind{"all_gather", "#009e73"}, Kind{"reduce_scatter", "#e69f00"},
                              Kind{"all_reduce", "#cc79a7"}};

std::string_view colour_of(const Span& span) {
  if (span.lane == Timeline::Lane::waiting) return "#d55e00";
  const auto kind = std::ranges::find(kinds, span.kind, &Kind::name);
  return kind == kinds.end() ? "#999999" : kind->colour;
}

/// A stretch of time that has lanes of its own.
struct Row {
  std::string title;
  double begin = 0;
  double end = 0;
};

/// One row for each update, up to the end of its optimizer's span; then one that enlarges the last turn from forward to
/// backward of the last update (the embedding and head are "root").
std::vector<Row> rows_of(const std::vector<Span>& spans) {
  std::vector<Row> rows;
  double begin = 0;
  double turn = 0;
  for (const auto& span : spans) {
    if (span.lane != Timeline::Lane::compute) continue;
    if (span.kind == "backward" && span.subject == "root") turn = span.begin;  // the head
    if (span.kind != "update") continue;
    rows.push_back({fmt::format("update {}", rows.size() + 1), begin, span.end});
    begin = span.end;
  }
  require(!rows.empty(), "a timeline without an update");
  const double stretch = (rows.back().end - rows.back().begin) / 12;
  if (turn > stretch) {
    rows.push_back(
        {"where the last update turns from forward to backward", turn - stretch / 2, turn + stretch / 2});
  }
  return rows;
}

/// The lanes that have anything in them.
std::vector<Timeline::Lane> lanes_of(const std::vector<Span>& spans) {
  std::vector<Timeline::Lane> lanes = {Timeline::Lane::compute};
  for (const auto lane : {Timeline::Lane::waiting, Timeline::Lane::shards, Timeline::Lane::replicas}) {
    if (std::ranges::count(spans, lane, &Span::lane) > 0) lanes.push_back(lane);
  }
  return lanes;
}

std::string_view title_of(Timeline::Lane lane) {
  switch (lane) {
    case Timeline::Lane::compute:
      return "computing";
    case Timeline::Lane::waiting:
      return "of it waiting";
    case Timeline::Lane::shards:
      return "shard group";
    case Timeline::Lane::replicas:
      return "replicas";
  }
  return "";
}

/// "blocks.3" -> "3".
std::string_view short_name(std::string_view subject) {
  const auto dot = subject.rfind('.');
  return dot == std::string_view::npos ? subject : subject.substr(dot + 1);
}

class Chart {
 public:
  Chart(const std::vector<Span>& spans, std::string_view title)
      : spans_(spans),
        rows_(rows_of(spans)),
        lanes_(lanes_of(spans)),
        row_height_(title_height + static_cast<double>(lanes_.size()) * (lane_height + lane_gap) +
                    axis_height),
        svg_(page_width,
             2 * margin + 2 * title_height + static_cast<double>(rows_.size()) * (row_height_ + row_gap),
             title, "A training step over time: what a rank computes, where it waits, and its collectives") {
    constexpr double size = 17;
    const auto columns = static_cast<std::size_t>((page_width - 2 * margin) / text_width("m", size) / 1.05);
    svg_.text({margin, margin + 16}, shortened_within(title, columns),
              {.size = size, .colour = ink, .bold = true});
    draw_legend(margin + title_height + 12);
    double y = margin + 2 * title_height;
    for (const auto& row : rows_) {
      draw_row(row, y);
      y += row_height_ + row_gap;
    }
  }

  std::string finish() && { return std::move(svg_).finish(); }

 private:
  static constexpr double plot_width = page_width - left_of_lanes - 2 * margin;
  static constexpr double plot_left = margin + left_of_lanes;

  void draw_legend(double y) {
    double x = plot_left;
    for (const auto& kind : kinds) {
      svg_.rectangle({x, y - 11}, 14, 14, kind.colour);
      svg_.text({x + 19, y + 1}, kind.name, {.size = text_size, .colour = ink});
      x += 19 + text_width(kind.name, text_size) + 18;
    }
  }

  void draw_row(const Row& row, double top) {
    svg_.text({plot_left, top + 18},
              fmt::format("{}: {} ms, of which {} ms waiting", row.title,
                          format_fixed((row.end - row.begin) * 1e3, 1), format_fixed(waited(row) * 1e3, 1)),
              {.size = text_size + 1, .colour = ink, .bold = true});
    double y = top + title_height;
    for (const auto lane : lanes_) {
      svg_.text({plot_left - 8, y + 16}, title_of(lane),
                {.size = text_size, .colour = ink, .anchor = Anchor::end});
      svg_.rectangle({plot_left, y}, plot_width, lane_height, faint);
      draw_lane(row, lane, y);
      y += lane_height + lane_gap;
    }
    draw_axis(row, y);
  }

  double waited(const Row& row) const {
    double seconds = 0;
    for (const auto& span : spans_) {
      if (span.lane != Timeline::Lane::waiting) continue;
      seconds += std::max(0.0, std::min(span.end, row.end) - std::max(span.begin, row.begin));
    }
    return seconds;
  }

  void draw_lane(const Row& row, Timeline::Lane lane, double y) {
    const double scale = plot_width / (row.end - row.begin);
    for (const auto& span : spans_) {
      if (span.lane != lane || span.end <= row.begin || span.begin >= row.end) continue;
      const double left = (std::max(span.begin, row.begin) - row.begin) * scale;
      const double width = (std::min(span.end, row.end) - row.begin) * scale - left;
      // A thin line of the ground between spans that are wide enough for one.
      svg_.rectangle({plot_left + left, y}, width > 3 ? width - 0.7 : std::max(width, 0.3), lane_height,
                     colour_of(span));
      if (width < least_named_width || span.subject.empty()) continue;
      svg_.text({plot_left + left + width / 2, y + 16}, short_name(span.subject),
                {.size = text_size - 1, .colour = "#ffffff", .anchor = Anchor::middle});
    }
  }

  void draw_axis(const Row& row, double y) {
    const Axis axis = make_axis(0, (row.end - row.begin) * 1e3, 10);
    const auto labels = tick_labels(axis);
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const double x = plot_left + plot_width * axis.position(axis.ticks[i]);
      svg_.line({x, y}, {x, y + 5}, {.colour = ink});
      svg_.text({x, y + 19}, labels[i] + (i + 1 == labels.size() ? " ms" : ""),
                {.size = text_size - 1, .colour = ink, .anchor = Anchor::middle});
    }
  }

  const std::vector<Span>& spans_;
  std::vector<Row> rows_;
  std::vector<Timeline::Lane> lanes_;
  double row_height_;
  Svg svg_;
};

}  // namespace

std::string draw_timeline(const std::vector<Span>& spans, std::string_view title) {
  return Chart(spans, title).finish();
}

}  // namespace ratplus::report
