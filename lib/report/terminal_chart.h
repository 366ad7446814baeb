// A panel as a chart of characters.
#pragma once

#include <vector>

#include "lib/report/panels.h"
#include "lib/report/terminal_text.h"

namespace ratplus::report {

/// A line of title and last values, `rows` - 2 lines of plot with the values' axis at the left, a line of tokens. Each
/// is exactly `columns` wide. Braille gives every character two by four dots.
std::vector<TerminalLine> draw_terminal_chart(const Panel& panel, std::size_t columns, std::size_t rows,
                                              const TerminalStyle& style);

/// The fewest columns and rows that a chart is of use in.
inline constexpr std::size_t least_chart_columns = 30;
inline constexpr std::size_t least_chart_rows = 6;

}  // namespace ratplus::report
