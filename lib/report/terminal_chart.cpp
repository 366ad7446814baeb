#include "lib/report/terminal_chart.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "lib/report/quantity.h"

namespace ratplus::report {
namespace {

constexpr std::size_t axis_columns = 10;          // labels and a blank
constexpr std::string_view letters = "*+ox#@%=";  ///< of lines, where there are no Braille characters

/// Characters, each of some dots; a dot has the number of the line that set it last.
class Canvas {
 public:
  Canvas(std::size_t columns, std::size_t rows, bool braille)
      : columns_(columns), rows_(rows), braille_(braille), cells_(columns * rows) {}

  std::size_t width() const { return columns_ * (braille_ ? 2 : 1); }
  std::size_t height() const { return rows_ * (braille_ ? 4 : 1); }

  void set(std::size_t x, std::size_t y, std::size_t line) {
    x = std::min(x, width() - 1);
    y = std::min(y, height() - 1);
    // U+2800 and the bits of a Braille character's dots, by column and row.
    constexpr std::array<std::array<unsigned, 4>, 2> bits = {
        {{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}};
    Cell& cell = braille_ ? cells_[y / 4 * columns_ + x / 2] : cells_[y * columns_ + x];
    cell.dots |= braille_ ? bits[x % 2][y % 4] : 1;
    cell.line = line;
  }

  /// A straight line between two dots.
  void connect(Point from, Point to, std::size_t line) {
    const double length = std::max({std::abs(to.x - from.x), std::abs(to.y - from.y), 1.0});
    for (double i = 0; i <= length; ++i) {
      set(static_cast<std::size_t>(std::lround(from.x + (to.x - from.x) * i / length)),
          static_cast<std::size_t>(std::lround(from.y + (to.y - from.y) * i / length)), line);
    }
  }

  TerminalLine row(std::size_t r) const {
    TerminalLine line;
    for (std::size_t c = 0; c < columns_; ++c) {
      const Cell& cell = cells_[r * columns_ + c];
      const Ink ink = cell.dots == 0 ? Ink::plain : line_ink(cell.line);
      if (line.empty() || line.back().ink != ink) line.push_back({"", ink});
      line.back().text += text_of(cell);
    }
    return line;
  }

 private:
  struct Cell {
    unsigned dots = 0;
    std::size_t line = 0;
  };

  std::string text_of(const Cell& cell) const {
    if (cell.dots == 0) return " ";
    if (!braille_) return std::string(1, letters[cell.line % letters.size()]);
    std::string utf8 = "\xE2\xA0\x80";  // U+2800, a blank
    utf8[1] = static_cast<char>(0xA0 | cell.dots >> 6);
    utf8[2] = static_cast<char>(0x80 | (cell.dots & 0x3F));
    return utf8;
  }

  std::size_t columns_, rows_;
  bool braille_;
  std::vector<Cell> cells_;
};

Axis value_axis(const Panel& panel) {
  const ValueRange range = range_of(panel);
  return panel.logarithmic ? make_log_axis(range.low, range.high)
                           : make_value_axis(panel.unit, range.low, range.high);
}

double last_tokens(const Panel& panel) {
  double tokens = 1;
  for (const PanelLine& line : panel.lines) tokens = std::max(tokens, line.curve.back().x);
  return tokens;
}

void draw_lines(Canvas& canvas, const Panel& panel, const Axis& values, double tokens) {
  const auto place = [&](const Point& point) {
    return Point{
        point.x / tokens * static_cast<double>(canvas.width() - 1),
        (1 - std::clamp(values.position(point.y), 0.0, 1.0)) * static_cast<double>(canvas.height() - 1)};
  };
  for (const PanelLine& line : panel.lines) {
    Point before = place(line.curve.front());
    for (const Point& point : line.curve) {
      const Point at = place(point);
      canvas.connect(before, at, line.kind);
      before = at;
    }
  }
}

/// The title, and of the lines the last values, as many whole ones as there is room for.
TerminalLine title(const Panel& panel, std::size_t columns, const TerminalStyle& style) {
  TerminalLine line = {{panel.title, Ink::bold}};
  std::size_t taken = columns_of(line), left_out = panel.lines.size();
  for (const PanelLine& one : panel.lines) {
    const std::string sample = style.braille ? "" : std::string(1, letters[one.kind % letters.size()]) + " ";
    const auto text = fmt::format("   {}{}{}{}", sample, one.label, one.label.empty() ? "" : " ",
                                  format_value(panel.unit, one.last));
    const std::size_t behind = left_out > 1 ? std::string_view("   +99").size() : 0;
    if (taken + columns_of(text) + behind > columns) break;
    line.push_back({text, line_ink(one.kind)});
    taken += columns_of(text);
    --left_out;
  }
  if (left_out > 0) line.push_back({fmt::format("   +{}", left_out), Ink::faint});
  return line;
}

/// As many lines as have colours, or letters, of their own.
Panel told_apart(Panel panel) {
  std::erase_if(panel.lines, [](const PanelLine& line) { return line.kind >= line_colours; });
  return panel;
}

}  // namespace

std::vector<TerminalLine> draw_terminal_chart(const Panel& whole, std::size_t columns, std::size_t rows,
                                              const TerminalStyle& style) {
  require(columns >= least_chart_columns && rows >= least_chart_rows, "a chart of {} x {}", columns, rows);
  const Panel some = told_apart(whole);
  const Panel& panel = some.lines.empty() ? whole : some;
  const std::size_t plot_rows = rows - 2;
  const Axis values = value_axis(panel);
  const double tokens = last_tokens(panel);
  Canvas canvas(columns - axis_columns, plot_rows, style.braille);
  draw_lines(canvas, panel, values, tokens);

  std::vector<std::string> labels(plot_rows);
  const auto texts = value_labels(panel.unit, values);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const double from_top = 1 - values.position(values.ticks[i]);
    const auto row = static_cast<std::size_t>(std::lround(from_top * static_cast<double>(plot_rows - 1)));
    labels[std::min(row, plot_rows - 1)] = texts[i];
  }
  std::vector<TerminalLine> lines = {fit(title(whole, columns, style), columns, style.mark())};
  for (std::size_t r = 0; r < plot_rows; ++r) {
    TerminalLine line = {{fmt::format("{:>{}} ", labels[r], axis_columns - 1), Ink::faint}};
    for (Span& span : canvas.row(r)) line.push_back(std::move(span));
    lines.push_back(fit(std::move(line), columns));
  }
  const std::string end = format_value(Unit::count, tokens) + " tokens";
  const std::size_t width = columns - axis_columns;
  lines.push_back(
      fit({{fmt::format("{:>{}} 0{:>{}}", "", axis_columns - 1, end, width - 1), Ink::faint}}, columns));
  return lines;
}

}  // namespace ratplus::report
