// Loss curves of one or several runs, as a picture.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/report/metrics_reader.h"

namespace ratplus::report {

/// Draws the curves: loss over tokens, one panel a run. The first run has the full width; the others stand
/// below it in pairs and share one scale, so that runs adapted from the first can be compared; a dashed line
/// in them is the first run's last dense validation. A pattern has the same colour and mark everywhere: its
/// training loss is a faint line (every step) under a strong one (averaged), its validations are marks.
/// Returns the SVG.
std::string draw_loss_chart(const std::vector<RunMetrics>& runs);

/// Reads the runs and writes the chart beside `svg`, then renames it. Throws Error naming the file.
void write_loss_chart(const std::vector<std::filesystem::path>& runs, const std::filesystem::path& svg);

}  // namespace ratplus::report
