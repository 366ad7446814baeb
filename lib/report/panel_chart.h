// A panel as a picture within a page.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "lib/report/panels.h"

namespace ratplus::report {

/// Where the plot lies in a panel's picture, in its own units; the page's script needs it to find a value under a
/// pointer.
struct PanelGeometry {
  double width = 400;
  double height = 230;
  double left = 58;
  double right = 12;
  double top = 8;
  double bottom = 24;

  double plot_width() const { return width - left - right; }
};

/// One for all panels of a page, with room for the widest of their values' labels.
PanelGeometry geometry_for(std::span<const Panel> panels);

/// How a line of a panel is drawn: colours are CSS variables, --c0 to --c7.
std::string line_colour(const PanelLine& line);

/// The panel's curves over tokens, from 0 to `tokens`.
std::string draw_panel(const Panel& panel, double tokens, const PanelGeometry& geometry);

}  // namespace ratplus::report
