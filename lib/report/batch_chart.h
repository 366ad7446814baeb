// Throughput of generation against the number of sequences, as a picture.
#pragma once

#include <string>
#include <vector>

#include "lib/report/curve.h"

namespace ratplus::report {

/// One pattern's tokens a second by sequences, measured and by the floor.
struct BatchLine {
  std::string name;
  Curve measured;  ///< ascending x; at least one point
  Curve floor;
};

/// Both axes logarithmic; the floor of a line is dashed, in its colour. Returns the SVG.
std::string draw_batch_chart(const std::vector<BatchLine>& lines, const std::string& title);

}  // namespace ratplus::report
