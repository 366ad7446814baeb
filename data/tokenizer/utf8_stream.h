// Bytes that come one by one as well-formed UTF-8.
#pragma once

#include <string>
#include <string_view>

#include "base/utf8.h"

namespace ratplus::data {

class Utf8Stream {
 public:
  /// What of ill-formed bytes one U+FFFD stands for.
  enum class Replace : std::uint8_t {
    together,  ///< a maximal ill-formed subsequence, as repair_utf8
    each_byte
  };
  explicit Utf8Stream(Replace replace) : replace_(replace) {}

  void add(char byte) { bytes_ += byte; }
  /// The characters that no later byte changes; with `all`, what is left too, as if no byte followed.
  std::string take(bool all) {
    std::string text;
    std::size_t at = 0;
    while (at < bytes_.size()) {
      const Utf8Scan character = scan_utf8(std::string_view(bytes_).substr(at));
      if (character.cut && !all) break;
      const auto size = static_cast<std::size_t>(character.bytes);
      if (character.well_formed) {
        text.append(bytes_, at, size);
      } else {
        text.append(replacement);
      }
      at += character.well_formed || replace_ == Replace::together ? size : 1;
    }
    bytes_.erase(0, at);
    return text;
  }

 private:
  Replace replace_;
  std::string bytes_;
};

}  // namespace ratplus::data
