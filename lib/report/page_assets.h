// The style sheet and the script of the report's page: both stand in it, nothing is fetched.
#pragma once

#include <string_view>

namespace ratplus::report {

extern const std::string_view page_style;
/// Shows values under the pointer, in all panels at once. Without it the page has the last values.
extern const std::string_view page_script;

}  // namespace ratplus::report
