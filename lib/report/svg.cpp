#include "lib/report/svg.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "lib/report/text_columns.h"

namespace ratplus::report {
namespace {

const char* to_string(Anchor anchor) {
  switch (anchor) {
    case Anchor::middle:
      return "middle";
    case Anchor::end:
      return "end";
    default:
      return "start";
  }
}

std::string stroke(const LineStyle& style) {
  std::string text = fmt::format(R"(fill="none" stroke="{}" stroke-width="{:.4g}" stroke-linejoin="round")",
                                 style.colour, style.width);
  if (style.opacity < 1) text += fmt::format(R"( stroke-opacity="{:.4g}")", style.opacity);
  if (!style.dashes.empty()) text += fmt::format(R"( stroke-dasharray="{}")", style.dashes);
  return text;
}

}  // namespace

std::string dashes_of(std::size_t number) {
  constexpr std::array<std::string_view, 6> simple = {"",        "6 3",  "2 2.5",
                                                      "9 3 2 3", "12 4", "6 3 1.5 3 1.5 3"};
  if (number < simple.size()) return std::string(simple[number]);
  // A long dash, and dots after it, one more for each.
  std::string dashes = "14 3";
  for (std::size_t dots = number - simple.size() + 1; dots > 0; --dots) dashes += " 1.5 2.5";
  return dashes;
}

std::string escape(std::string_view text) {
  std::string repaired(text);
  repair_utf8(repaired);
  std::string escaped;
  for (const char c : repaired) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default: {
        const bool control = (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == '\x7f';
        escaped += control ? '?' : c;
      }
    }
  }
  return escaped;
}

Svg::Svg(double width, double height, std::string_view title, std::string_view description) {
  out_ = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.4g} {1:.4g}\" width=\"{0:.4g}\" "
      "height=\"{1:.4g}\"\n     style=\"max-width: 100%; height: auto\" role=\"img\" "
      "font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
      "<title>{2}</title>\n<desc>{3}</desc>\n",
      width, height, escape(title), escape(description));
}

Svg Svg::in_page(double width, double height, std::string_view name) {
  Svg svg;
  svg.out_ = fmt::format("<svg viewBox=\"0 0 {:.4g} {:.4g}\" role=\"img\" aria-label=\"{}\">\n", width,
                         height, escape(name));
  return svg;
}

void Svg::rectangle(Point corner, double width, double height, std::string_view fill) {
  out_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
                      corner.x, corner.y, width, height, fill);
}

void Svg::line(Point from, Point to, const LineStyle& style) {
  out_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", from.x, from.y,
                      to.x, to.y, stroke(style));
}

void Svg::polyline(const Curve& points, const LineStyle& style) {
  if (points.size() < 2) return;
  out_ += "<polyline points=\"";
  for (const Point& point : points) {
    out_ += fmt::format("{:.1f},{:.1f} ", point.x, point.y);
  }
  out_.back() = '"';
  out_ += fmt::format(" {}/>\n", stroke(style));
}

void Svg::mark(Mark shape, Point c, double r, std::string_view colour, std::string_view rim) {
  // Each shape covers about the area of the circle; a rim sets it off from the lines.
  std::string body;
  switch (shape) {
    case Mark::circle:
      body = fmt::format("circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\"", c.x, c.y, r);
      break;
    case Mark::square: {
      const double h = 0.89 * r;
      body = fmt::format("rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"", c.x - h,
                         c.y - h, 2 * h, 2 * h);
      break;
    }
    case Mark::triangle:
      body = fmt::format("path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}Z\"", c.x, c.y - 1.35 * r,
                         c.x + 1.2 * r, c.y + 0.8 * r, c.x - 1.2 * r, c.y + 0.8 * r);
      break;
    case Mark::diamond: {
      const double h = 1.3 * r;
      body = fmt::format("path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}L{:.1f} {:.1f}Z\"", c.x, c.y - h,
                         c.x + h, c.y, c.x, c.y + h, c.x - h, c.y);
      break;
    }
  }
  out_ += fmt::format("<{} fill=\"{}\" stroke=\"{}\" stroke-width=\"1.2\"/>\n", body, colour, rim);
}

void Svg::text(Point at, std::string_view text, const TextStyle& style) {
  out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{:.4g}\" fill=\"{}\"", at.x, at.y,
                      style.size, style.colour);
  if (style.anchor != Anchor::start) out_ += fmt::format(" text-anchor=\"{}\"", to_string(style.anchor));
  if (style.bold) out_ += " font-weight=\"bold\"";
  if (style.upwards) out_ += fmt::format(" transform=\"rotate(-90 {:.1f} {:.1f})\"", at.x, at.y);
  out_ += fmt::format(">{}</text>\n", escape(text));
}

void Svg::begin_clip(Point corner, double width, double height) {
  out_ += fmt::format(
      "<clipPath id=\"clip{0}\"><rect x=\"{1:.1f}\" y=\"{2:.1f}\" width=\"{3:.1f}\" height=\"{4:.1f}\"/>"
      "</clipPath>\n<g clip-path=\"url(#clip{0})\">\n",
      clips_++, corner.x, corner.y, width, height);
}

void Svg::end_clip() {
  out_ += "</g>\n";
}

std::string Svg::finish() && {
  out_ += "</svg>\n";
  return std::move(out_);
}

double text_width(std::string_view text, double size) {
  const auto narrow = std::ranges::count_if(
      text, [](char c) { return std::string_view(" ,.il1'").find(c) != std::string_view::npos; });
  return size * (0.64 * static_cast<double>(columns_of(text)) - 0.28 * static_cast<double>(narrow));
}

}  // namespace ratplus::report
