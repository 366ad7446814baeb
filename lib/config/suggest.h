// Suggestions for misspelt words.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::config {

/// Insertions, deletions, substitutions and swaps of neighbours that turn a into b, no part edited twice (the
/// optimal string alignment distance).
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to a word, the first among equals; empty if all differ in more than a third of their
/// characters.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace ratplus::config
