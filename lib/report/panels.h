// Panels: the curves of runs by chart, for pages and terminals.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "lib/report/curve.h"
#include "lib/report/metrics_reader.h"
#include "lib/report/quantity.h"

namespace ratplus::report {

/// Colours that lines have; more lines than that differ in their dashes.
inline constexpr std::size_t line_colours = 8;

struct PanelLine {
  std::size_t run = 0;     ///< whose it is
  std::size_t kind = 0;    ///< which of the patterns (the same in all panels) or of the panel's fields
  std::size_t colour = 0;  ///< with `dashes`: no other line of the panel has both; the same in all panels
  std::size_t dashes = 0;  ///< 0: solid
  std::string label;       ///< its name among the panel's lines
  Curve curve;             ///< over tokens; averaged, where the quantity is noisy
  Curve as_logged;         ///< what was averaged; else empty
  double last = 0;         ///< the last value that was logged, finite or not
};

struct Panel {
  std::string title;
  Unit unit = Unit::plain;
  bool marks = false;        ///< single measurements, between which nothing is known
  bool logarithmic = false;  ///< values over several powers of ten
  std::vector<PanelLine> lines;
};

/// Losses of each update and of validations, learning rate, gradient norms, throughput, share of peak, memory, waits for
/// data and for checkpoints; then one for every other number that a step's line of metrics.jsonl has. Panels without a
/// finite value are left out. A curve has at most about `points` points, its extremes among them.
std::vector<Panel> make_panels(std::span<const RunMetrics> runs, std::size_t points);

/// The lowest and highest of what a panel draws.
struct ValueRange {
  double low = 0;
  double high = 0;
};
ValueRange range_of(const Panel& panel);

}  // namespace ratplus::report
