// Lines, colours and marks of the pictures that compare a few models or patterns.
#pragma once

#include <array>
#include <string_view>

#include "lib/report/svg.h"

namespace ratplus::report::series_style {

inline constexpr std::string_view ink = "#222222", faint = "#e4e4e4", paper = "#ffffff";
// After Okabe and Ito: colour-blind people can tell them apart.
inline constexpr std::array<std::string_view, 7> colours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                            "#e69f00", "#56b4e9", "#222222"};
inline constexpr std::array marks = {Mark::circle, Mark::square, Mark::triangle, Mark::diamond};

}  // namespace ratplus::report::series_style
