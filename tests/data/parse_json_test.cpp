// The reader of JSON: nlohmann's own is the measure, but for names that come twice in an object.
#include "base/parse_json.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <optional>
#include <random>
#include <set>

#include "tests/support/messages.h"

using namespace ratplus;
using test::contains;
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

/// nlohmann's reader, told of each name: the first that comes twice in an object is refused.
template <typename Json>
Json parse_once_named(const std::string& text) {
  std::vector<std::set<std::string>> names;
  return Json::parse(text, [&](int, typename Json::parse_event_t event, const Json& value) {
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key && !names.back().insert(value.template get<std::string>()).second) {
      throw Json::parse_error::create(101, std::size_t{0},
                                      fmt::format("the name {} comes twice in an object",
                                                  value.dump(-1, ' ', false, Json::error_handler_t::replace)),
                                      nullptr);
    }
    return true;
  });
}

std::string object_of(int names, int every) {
  std::string text = "{";
  for (int i = 0; i < names; ++i)
    text += fmt::format("{}\"{}\": [{}, {{\"a\": {}}}]", i == 0 ? "" : ",", i % every, i, i);
  return text + "}";
}

}  // namespace

TEST_CASE("JSON: values, order and messages are those of nlohmann's reader, and no name comes twice") {
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
  const auto theirs = [](const std::string& text) { return parse_once_named<Ordered>(text); };
  const auto plain = [](const std::string& text) { return parse_json<nlohmann::json>(text); };
  const auto plain_theirs = [](const std::string& text) { return parse_once_named<nlohmann::json>(text); };
  std::mt19937 random(7);
  const std::string changed = R"({}[]",:\0ae.)";  // no NUL: that is ours to refuse
  int read = 0, twice = 0;
  for (int round = 0; round < 5000; ++round) {
    auto text = seeds[static_cast<std::size_t>(round) % seeds.size()];
    for (auto changes = round < 100 ? 0 : random() % 4; changes > 0 && !text.empty(); --changes)
      text[random() % text.size()] = changed[random() % changed.size()];
    const auto expected = outcome(text, theirs);
    if (outcome(text, ours) != expected) FAIL_CHECK(text);
    if (outcome(text, plain) != outcome(text, plain_theirs)) FAIL_CHECK(text);
    twice += contains(expected, "comes twice");
    read += expected.starts_with('{') || (expected.starts_with('[') && !expected.starts_with("[json"));
  }
  CHECK(read > 500);
  CHECK(twice > 500);
  CHECK(outcome(R"({"a": {"b": 1, "c": {"b": 1}}, "b": [{"b": 1}, {"b": 1}]})", ours).starts_with("{\"a\""));
  for (const int again : {0, 14, 15, 16, 30, 39}) {  // of names that an object has few of, and many
    const auto whole = object_of(40, 100);
    const auto text = whole.substr(0, whole.size() - 1) + fmt::format(R"(, "{}": 0}})", again);
    const auto expected = fmt::format("the name \"{}\" comes twice in an object", again);
    CHECK(contains(outcome(text, ours), expected));
    CHECK(contains(outcome(text, plain), expected));
  }
  CHECK(contains(outcome(R"({"a": 1, "\u0061": 1})", ours), "the name \"a\" comes twice"));
  CHECK(contains(outcome(R"({"\u001b[2J\n": 1, "\u001b[2J\n": 1})", plain),
                 R"(the name "\u001b[2J\n" comes twice)"));
  CHECK(outcome(R"({"a": 1, "a": 1})", ours) ==
        "[json.exception.parse_error.101] parse error: the name \"a\" comes twice in an object");
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
