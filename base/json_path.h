// Paths in JSON: all their bytes, though JSON holds UTF-8 alone.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

#include "base/utf8.h"

namespace ratplus {

/// The key beside `key` that holds the bytes of a path that is not UTF-8.
inline std::string percent_key(const std::string& key) {
  return key + "_percent_encoded";
}

/// The bytes as a URL has them (RFC 3986): letters, digits, "-._~" and "/" as they are, "%E9" for each other byte.
inline std::string percent_encoded(std::string_view bytes) {
  constexpr std::string_view kept = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  std::string text;
  for (const char byte : bytes) {
    if (kept.find(byte) != std::string_view::npos)
      text += byte;
    else
      text += fmt::format("%{:02X}", static_cast<unsigned char>(byte));
  }
  return text;
}

/// Puts a path, or a word of a command, under `key`. json_dump writes U+FFFD for bytes that are not UTF-8, so such a path
/// also stands with its bytes under percent_key(key). Json is nlohmann::json or nlohmann::ordered_json, an object.
template <typename Json>
void put_path(Json& object, const std::string& key, const std::string& path) {
  object[key] = path;
  if (!is_utf8(path)) object[percent_key(key)] = percent_encoded(path);
}

}  // namespace ratplus
