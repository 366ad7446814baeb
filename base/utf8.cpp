#include "base/utf8.h"

#include <cstddef>
#include <cstring>
#include <string_view>
#include <utility>

namespace ratplus {
namespace {

/// Bytes below 0x80 that `text` begins with: most text is nothing else, and eight are looked at in one step.
std::size_t ascii_run(std::string_view text) {
  std::size_t at = 0;
  for (std::uint64_t eight = 0; at + sizeof eight <= text.size(); at += sizeof eight) {
    std::memcpy(&eight, text.data() + at, sizeof eight);
    if ((eight & 0x8080808080808080) != 0) break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

}  // namespace

Utf8Scan scan_utf8(std::string_view text) {
  const auto byte = [&](int i) { return static_cast<unsigned char>(text[static_cast<std::size_t>(i)]); };
  const int first = byte(0);
  if (first < 0x80) return {1, true, false};
  if (first < 0xC2 || first > 0xF4) return {1, false, false};
  const int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // The second byte's range shuts out overlong forms, surrogates, and what lies above U+10FFFF.
  int low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  int high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  for (int i = 1; i < length; ++i) {
    if (i >= static_cast<int>(text.size())) return {i, false, true};
    if (byte(i) < low || byte(i) > high) return {i, false, false};
    low = 0x80, high = 0xBF;
  }
  return {length, true, false};
}

std::int64_t repair_utf8(std::string& text) {
  std::string repaired;  // stays empty as long as the text is well-formed, which is nearly always
  std::int64_t count = 0;
  std::size_t copied = 0;
  for (std::size_t at = 0; at < text.size();) {
    if (at += ascii_run(std::string_view(text).substr(at)); at == text.size()) break;
    const Utf8Scan character = scan_utf8(std::string_view(text).substr(at));
    if (!character.well_formed) {
      repaired.append(text, copied, at - copied).append(replacement);
      copied = at + static_cast<std::size_t>(character.bytes);
      ++count;
    }
    at += static_cast<std::size_t>(character.bytes);
  }
  if (count > 0) {
    repaired.append(text, copied);
    text = std::move(repaired);
  }
  return count;
}

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    if (at += ascii_run(text.substr(at)); at == text.size()) break;
    const Utf8Scan character = scan_utf8(text.substr(at));
    if (!character.well_formed) return false;
    at += static_cast<std::size_t>(character.bytes);
  }
  return true;
}

}  // namespace ratplus
