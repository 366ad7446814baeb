// The reader of ordered JSON: nlohmann's own is the measure.
#include "base/parse_json.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <optional>
#include <random>

using namespace ratplus;
using Ordered = nlohmann::ordered_json;

namespace {

/// The value as text, or the message.
template <typename Parse>
std::string outcome(const std::string& text, Parse parse) {
  try {
    return parse(text).dump(-1, ' ', false, Ordered::error_handler_t::replace);
  } catch (const Ordered::exception& error) {
    return error.what();
  }
}

std::string object_of(int names, int every) {
  std::string text = "{";
  for (int i = 0; i < names; ++i)
    text += fmt::format("{}\"{}\": [{}, {{\"a\": {}}}]", i == 0 ? "" : ",", i % every, i, i);
  return text + "}";
}

}  // namespace

TEST_CASE("ordered JSON: values, order, repeated names and messages are those of nlohmann's reader") {
  const std::vector<std::string> seeds = {
      R"({"b": 1, "a": {"d": [1, -2, 3.5, 1e30, 18446744073709551615], "c": null}, "b": [true, false, "x\u0000"]})",
      R"([[], {}, "", 0, [[{"a": {"a": {"a": 1}}, "b": 2}]]])",
      "5",
      "\"\\ud83d\\ude00\"",
      "1e400",
      "{\"a\": 1e400}",
      "{\"a\":}",
      "{\"a\": 1} x",
      "",
      "[1, 2",
      "\xEF\xBB\xBF{\"a\": 1}",
      object_of(15, 100),
      object_of(16, 100),
      object_of(17, 100),
      object_of(60, 100),
      object_of(60, 20),
      object_of(60, 5),
  };
  const auto ours = [](const std::string& text) { return parse_json<Ordered>(text); };
  const auto theirs = [](const std::string& text) { return Ordered::parse(text); };
  std::mt19937 random(7);
  const std::string changed = R"({}[]",:\0ae.)";  // no NUL: that is ours to refuse
  int read = 0;
  for (int round = 0; round < 5000; ++round) {
    auto text = seeds[static_cast<std::size_t>(round) % seeds.size()];
    for (auto changes = round < 100 ? 0 : random() % 4; changes > 0 && !text.empty(); --changes)
      text[random() % text.size()] = changed[random() % changed.size()];
    const auto expected = outcome(text, theirs);
    if (outcome(text, ours) != expected) FAIL_CHECK(text);
    read += expected.starts_with('{') || (expected.starts_with('[') && !expected.starts_with("[json"));
  }
  CHECK(read > 500);
}

TEST_CASE("JSON: many levels are refused, which cost stack where they are written, and messages stay short") {
  const auto nested = [](std::int64_t levels, const std::string& inner = "1") {
    const auto n = static_cast<std::size_t>(levels);
    return std::string(n, '[') + inner + std::string(n, ']');
  };
  const auto ours = [](const std::string& text) { return parse_json<Ordered>(text); };
  const auto plain = [](const std::string& text) { return parse_json<nlohmann::json>(text); };
  const auto most = nested(most_json_levels), brackets = nested(most_json_levels, R"("[[[\"[{")");
  CHECK(outcome(most, ours) == most);
  CHECK(outcome(brackets, plain) == brackets);
  for (const std::int64_t levels : {most_json_levels + 1, std::int64_t{1000000}}) {
    const auto expected = fmt::format("parse error: {} levels of lists and objects; at most 256", levels);
    CHECK(outcome(nested(levels), ours).ends_with(expected));
    CHECK(outcome(nested(levels), plain).ends_with(expected));
  }
  CHECK(json_levels(R"({"a": [1, {"b": 2}], "c": [[]]})") == 3);
  const std::string word(1000000, 'x');
  for (const auto& text : {"[\"" + word, "[1e400" + std::string(1000000, '0') + "]"}) {
    const auto message = outcome(text, ours);
    CAPTURE(message);
    CHECK(message.size() < 400);
    CHECK(message.starts_with("[json.exception.parse_error.101] parse error: "));
    CHECK(outcome(text, plain) == message);
  }
}
