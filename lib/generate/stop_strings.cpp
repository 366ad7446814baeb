#include "lib/generate/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace ratplus::generate {

void check_stop_strings(const std::vector<std::string>& stops, std::string_view where) {
  for (const std::string& stop : stops) {
    if (stop.empty()) fail("{}: a stop string is empty; leave it out", where);
    if (!is_utf8(stop)) fail("{}: a stop string is no well-formed UTF-8", where);
  }
}

StopStrings::Stop::Stop(std::string stop) : text(std::move(stop)), shorter(text.size()) {
  std::size_t length = 0;
  for (std::size_t i = 1; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length]) length = shorter[length - 1];
    if (text[i] == text[length]) ++length;
    shorter[i] = length;
  }
}

void StopStrings::Stop::advance(char byte) {
  while (matched > 0 && text[matched] != byte) matched = shorter[matched - 1];
  if (text[matched] == byte) ++matched;
}

StopStrings::StopStrings(std::vector<std::string> stops) {
  stops_.reserve(stops.size());
  for (std::string& stop : stops) stops_.emplace_back(std::move(stop));
}

std::string StopStrings::add(std::string_view piece) {
  if (found()) return {};
  std::string text = std::exchange(held_, {});
  std::size_t longest = 0;  // end of the text that begins a stop string
  for (const char byte : piece) {
    text += byte;
    longest = 0;
    for (std::size_t i = 0; i < stops_.size(); ++i) {
      Stop& stop = stops_[i];
      stop.advance(byte);
      longest = std::max(longest, stop.matched);
      if (stop.complete() && (!found() || stop.text.size() > which().size())) found_ = i;
    }
    if (found()) {
      text.resize(text.size() - which().size());
      return text;
    }
  }
  if (piece.empty()) longest = text.size();
  held_ = text.substr(text.size() - longest);
  text.resize(text.size() - longest);
  return text;
}

std::string StopStrings::finish() {
  return std::exchange(held_, {});
}

const std::string& StopStrings::which() const {
  static const std::string none;
  return found_ ? stops_[*found_].text : none;
}

}  // namespace ratplus::generate
