// The text in a line of JSON.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace ratplus::data {

/// The string under `key` of a JSON object. Throws Error, with where() before it, for a line that is not JSON, no
/// object, or has no such string.
std::string json_text(std::string_view line, const std::string& key,
                      const std::function<std::string()>& where);

}  // namespace ratplus::data
