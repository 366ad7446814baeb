// Svg: the few shapes that a chart is drawn with, as an SVG document.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "lib/report/curve.h"

namespace ratplus::report {

/// Marks of different shapes, for readers who cannot distinguish the colours.
enum class Mark { circle, square, triangle, diamond };

enum class Anchor { start, middle, end };

struct LineStyle {
  std::string_view colour;
  double width = 1;
  double opacity = 1;
  std::string_view dashes = {};  ///< stroke-dasharray; empty: solid
};

struct TextStyle {
  double size = 14;
  std::string_view colour = "#222222";
  Anchor anchor = Anchor::start;
  bool bold = false;
  bool upwards = false;  ///< turned by a quarter, to be read from below
};

/// stroke-dasharray; empty: solid. Different for each number.
std::string dashes_of(std::size_t number);

/// A document under construction; lengths in pixels, y downwards. It is self-contained: no scripts, no style
/// sheets, no fonts but the reader's own.
class Svg {
 public:
  /// `title` and `description` are for those who hear the picture instead of seeing it.
  Svg(double width, double height, std::string_view title, std::string_view description);
  /// A picture within a page, which gives it its fonts and, as CSS variables, its colours. `name` is for those who hear
  /// the page.
  static Svg in_page(double width, double height, std::string_view name);

  void rectangle(Point corner, double width, double height, std::string_view fill);
  void line(Point from, Point to, const LineStyle& style);
  void polyline(const Curve& points, const LineStyle& style);
  void mark(Mark shape, Point centre, double radius, std::string_view colour,
            std::string_view rim = "#ffffff");
  void text(Point at, std::string_view text, const TextStyle& style);
  /// Clips all drawing until end_clip() to this rectangle.
  void begin_clip(Point corner, double width, double height);
  void end_clip();

  /// The whole document.
  std::string finish() &&;

 private:
  Svg() = default;

  std::string out_;
  int clips_ = 0;
};

/// Text as XML and HTML have it: markup escaped, other characters that are not allowed (control characters, broken UTF-8) replaced.
std::string escape(std::string_view text);

/// Width of a text in a common sans-serif font, estimated.
double text_width(std::string_view text, double size);

}  // namespace ratplus::report
