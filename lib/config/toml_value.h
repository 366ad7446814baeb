// Text and numbers as TOML.
#pragma once

#include <string>

namespace ratplus::config {

/// A TOML basic string: quoted, with escapes where needed.
std::string to_toml_value(const std::string& text);
/// The shortest digits that read back as the same number, always with the marks of a float.
std::string to_toml_value(double x);

}  // namespace ratplus::config
