#include "lib/generate/stop_strings.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "tests/support/messages.h"

using namespace ratplus;
using namespace ratplus::generate;
using test::contains;
using test::message_of;

namespace {

struct End {
  std::string text;  ///< before the stop string
  std::string stop;
};

/// By trying every end: the first byte at which a stop string ends, the longest of those.
End end_of(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop) && stop.size() > longest.size()) longest = stop;
    }
    if (!longest.empty()) return {text.substr(0, end - longest.size()), longest};
  }
  return {text, ""};
}

std::string all_of(StopStrings& stops, const std::vector<std::string>& pieces) {
  std::string shown;
  for (const std::string& piece : pieces) shown += stops.add(piece);
  return shown + stops.finish();
}

}  // namespace

TEST_CASE("stop strings: over borders of pieces, never shown, and held text comes at the end") {
  StopStrings over({"\n\nQuestion"});
  CHECK(over.add("Paris\n") == "Paris");
  CHECK(over.add("\nQues") == "");
  CHECK(over.add("tion: what") == "");
  CHECK(over.found());
  CHECK(over.which() == "\n\nQuestion");
  CHECK(over.add("more") == "");
  CHECK(over.finish() == "");

  StopStrings held({"\n\nQuestion"});
  CHECK(held.add("Paris\n\nQues") == "Paris");
  CHECK(held.add("") == "");
  CHECK(held.add("ts") == "\n\nQuests");
  CHECK(held.add("\n") == "");
  CHECK(held.finish() == "\n");
  CHECK_FALSE(held.found());
  CHECK(held.which().empty());
}

TEST_CASE("stop strings: of several the first that ends, of those that end together the longest") {
  struct Case {
    std::vector<std::string> stops;
    std::string text, shown, stop;
  };
  for (const Case& each : {Case{{"b", "ab"}, "xxab", "xx", "ab"}, Case{{"abc", "b"}, "xabc", "xa", "b"},
                           Case{{"abcd", "bc"}, "xabcd", "xa", "bc"}, Case{{"ab", "abc"}, "xabc", "x", "ab"},
                           Case{{"aab"}, "aaab", "a", "aab"}, Case{{"a"}, "a", "", "a"},
                           Case{{}, "any", "any", ""}, Case{{"é"}, "caf\u00E9", "caf", "é"}}) {
    CAPTURE(each.text);
    StopStrings stops(each.stops);
    CHECK(all_of(stops, {each.text}) == each.shown);
    CHECK(stops.which() == each.stop);
    StopStrings bytes(each.stops);
    std::vector<std::string> pieces;
    for (const char c : each.text) pieces.emplace_back(1, c);
    CHECK(all_of(bytes, pieces) == each.shown);
    CHECK(bytes.which() == each.stop);
  }
}

TEST_CASE("stop strings: random texts and cuts; no more is held back than may begin a stop string") {
  std::mt19937 random(5);
  const auto word = [&](std::size_t most) {
    std::string text(1 + random() % most, ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 3);
    return text;
  };
  int found = 0;
  for (int round = 0; round < 4000; ++round) {
    std::vector<std::string> stops(random() % 4);
    for (std::string& stop : stops) stop = word(8);
    const std::string text = word(60);
    const End expected = end_of(text, stops);
    StopStrings matcher(stops);
    std::string shown;
    std::size_t at = 0;
    while (at < text.size()) {
      const std::size_t size = std::min<std::size_t>(random() % 7, text.size() - at);
      shown += matcher.add(text.substr(at, size));
      at += size;
      if (matcher.found()) break;
      std::size_t held = 0;
      for (const std::string& stop : stops) {
        for (std::size_t n = 1; n < stop.size(); ++n) {
          if (text.substr(0, at).ends_with(stop.substr(0, n))) held = std::max(held, n);
        }
      }
      CHECK(shown == text.substr(0, at - held));
    }
    shown += matcher.finish();
    CHECK(shown == expected.text);
    CHECK(matcher.which() == expected.stop);
    found += matcher.found() ? 1 : 0;
  }
  CHECK(found > 1000);
  CHECK(found < 3900);
}

TEST_CASE("stop strings: empty ones and those that are no text are refused") {
  CHECK(contains(message_of([] {
                   check_stop_strings({"a", ""}, "request 7");
                 }),
                 "request 7: a stop string is empty"));
  CHECK(contains(message_of([] { check_stop_strings({"\xC3"}, "request 7"); }), "is no well-formed UTF-8"));
  CHECK(message_of([] { check_stop_strings({"\n", "é"}, "request 7"); }).empty());
}
