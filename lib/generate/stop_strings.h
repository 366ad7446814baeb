// Stop strings in a text that comes in pieces.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::generate {

/// Throws Error naming `where`: a stop string that is empty or no UTF-8.
void check_stop_strings(const std::vector<std::string>& stops, std::string_view where);

/// Ends a text before the first stop string: the one whose last byte comes first, and of those that end at one place the
/// longest. So the end depends on the text alone, not on its pieces, and is known with the stop string's last byte.
class StopStrings {
 public:
  /// Strings that are checked; none: the text never ends.
  explicit StopStrings(std::vector<std::string> stops);

  /// A further piece of the text. Returns the text that no stop string can begin in: all but the longest end of it that
  /// begins one. Nothing comes after a stop string.
  std::string add(std::string_view piece);
  /// The end that was held back, where no piece follows.
  std::string finish();

  bool found() const { return found_.has_value(); }
  /// The stop string that ended the text; empty as long as none did.
  const std::string& which() const;

 private:
  /// Knuth, Morris and Pratt, "Fast pattern matching in strings" (1977).
  struct Stop {
    explicit Stop(std::string stop);
    void advance(char byte);
    bool complete() const { return matched == text.size(); }

    std::string text;
    std::vector<std::size_t> shorter;  ///< by i: the longest proper prefix of text that text[0, i] ends with
    std::size_t matched = 0;           ///< bytes of text that the text so far ends with
  };

  std::vector<Stop> stops_;
  std::string held_;
  std::optional<std::size_t> found_;  ///< in stops_
};

}  // namespace ratplus::generate
