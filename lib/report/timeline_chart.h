// A training step over time, as a picture: the computation, where it waits, and the collectives beside it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "parallel/timeline.h"

namespace ratplus::report {

/// One row of lanes for each update of the step, and one that shows a short stretch of the last update, where it turns from
/// forward to backward, with its blocks' names. `spans` of one rank, as Timeline::finish() gives them. Returns the SVG.
std::string draw_timeline(const std::vector<parallel::Timeline::Span>& spans, std::string_view title);

}  // namespace ratplus::report
