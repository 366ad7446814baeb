// The text of a JSON line: two parsers must decide alike, and nlohmann's is the measure, of lines whose halves of
// surrogate pairs are U+FFFD.
#include "data/text/json_text.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <regex>

#include "base/utf8.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using Json = nlohmann::json;

namespace {

std::string here() {
  return "a.jsonl, line 1";
}

/// Nothing where the line is refused.
std::optional<std::string> ours(std::string line) {
  try {
    return json_text(line, "text", here).text;
  } catch (const ratplus::Error&) {
    return std::nullopt;
  }
}

/// Whole pairs and other escapes are matched first, so that what is left are halves.
std::string without_halves(const std::string& line) {
  static const std::regex escape(R"(\\u[dD][89abAB][[:xdigit:]]{2}\\u[dD][c-fC-F][[:xdigit:]]{2})"
                                 R"(|(\\u[dD][89a-fA-F][[:xdigit:]]{2})|\\.)");
  std::string result;
  auto rest = line.cbegin();
  for (auto it = std::sregex_iterator(line.begin(), line.end(), escape); it != std::sregex_iterator(); ++it) {
    result.append(rest, (*it)[0].first).append((*it)[1].matched ? "\\ufffd" : it->str());
    rest = (*it)[0].second;
  }
  return result.append(rest, line.cend());
}

std::optional<std::string> by_definition(const std::string& line) {
  const std::string whole = without_halves(line);
  int texts = 0;
  const auto counted = [&](int depth, Json::parse_event_t event, const Json& value) {
    texts += depth == 1 && event == Json::parse_event_t::key && value == "text";
    return true;
  };
  Json json = Json::parse(whole, counted, false);
  // JSON bounds no exponent, and the parser does: without the digits that overflow it is the measure still.
  static const std::regex overflow(R"(([0-9][eE]\+?)[0-9]{3,})");
  if (json.is_discarded()) {
    texts = 0;
    json = Json::parse(std::regex_replace(whole, overflow, "$011"), counted, false);
  }
  if (texts > 1 || !json.is_object() || !json.contains("text") || !json["text"].is_string())
    return std::nullopt;
  return json["text"].get<std::string>();
}

const std::vector<std::string>& odd_lines() {
  static const std::vector<std::string> lines{
      R"({"text": "plain"})",
      R"(  {"a": [1, {"text": "inner"}], "text": "outer", "b": {"text": 5}}  )",
      R"({"text": "first", "text": "second"})",
      R"({"text": "first", "text": 5})",
      R"({"text": 5, "text": "second"})",
      R"({"te\u0078t": "escaped key"})",
      R"({"text": "\u00e9 \ud83d\ude80 \u0000 \/ \b\f\n\r\t\" \\"})",
      R"({"text": "half \ud83d pair"})",
      R"({"text": "half \ude80 pair"})",
      R"({"text": "\ud83d\ud83d"})",
      R"({"text": "\uD83Dx"})",
      R"({"text": "\ud83d\ud83d\ude80\ude80"})",
      R"({"text": "\\ud83d \\\ud83d \ud83d\\ude80"})",
      R"({"text": "fine", "\udfff": ["\udbff", "\udc00"]})",
      R"({"text": "\ud8"})",
      R"({"text": "\ud83"})",
      R"({"text": "\ud83d\u"})",
      R"({"text": "\ud83d\)",
      R"({"text": "\ud83d)",
      R"({"text": "big", "n": 123456789012345678901234567890})",
      R"({"text": "tiny", "n": -1e-999, "z": -0, "y": 0.5E+3})",
      R"({"text": "zeros", "n": 007})",
      R"({"text": "a"} {})",
      R"({"text": "a"}x)",
      R"({"text": "a",})",
      R"({"text": "a", "n": +1})",
      R"({"text": 'a'})",
      R"({"text": "a" /* comment */})",
      R"({"text": "\x41"})",
      R"({"text": "cut)",
      R"({"text")",
      R"({"text": nul})",
      R"({"text": null})",
      R"(["text"])",
      R"("text")",
      R"({})",
      "",
      "   ",
      "{\"text\": \"raw\ttab\"}",
      "{\"text\": \"raw \x01 control\"}",
      "{\"text\": \"日本 \U0001F680 \x7F\"}",
      "\xEF\xBB\xBF{\"text\": \"after a byte order mark\"}",
      "{\"text\": \"" + std::string(2'000'000, 'y') + "\", \"n\": 1}",  // more than the quick parser takes
      "{\"text\": \"deep\", \"n\": " + std::string(3000, '[') + std::string(3000, ']') + "}",
  };
  return lines;
}

}  // namespace

TEST_CASE("JSON text: odd lines are read or refused as nlohmann's parser does") {
  int read = 0;
  for (const std::string& line : odd_lines()) {
    CAPTURE(line.substr(0, 100));
    CHECK(ours(line) == by_definition(line));
    read += ours(line).has_value();
  }
  CHECK(read > 10);
}

TEST_CASE("JSON text: each half of a surrogate pair without the other becomes U+FFFD") {
  const auto read = [](std::string line) {
    const JsonText json = json_text(line, "text", here);
    return std::pair(json.text, json.repaired);
  };
  const auto text = [&](const std::string& escaped) { return read("{\"text\": \"" + escaped + "\"}"); };
  CHECK(text(R"(a\ud800b)") == std::pair(std::string("a\uFFFDb"), true));
  CHECK(text(R"(\uDFFF\uD800)") == std::pair(std::string("\uFFFD\uFFFD"), true));
  CHECK(text(R"(\ud83d\ud83d\ude80)") == std::pair(std::string("\uFFFD\U0001F680"), true));
  CHECK(text(R"(\ud83d\ude80)") == std::pair(std::string("\U0001F680"), false));
  CHECK(text(R"(\\ud800 \ufffd)") == std::pair(std::string("\\ud800 \uFFFD"), false));
  CHECK(text(R"(\ud7ff\ue000)") == std::pair(std::string("\uD7FF\uE000"), false));
  CHECK(text(std::string(2'000'000, 'y') + R"(\udc00)") ==
        std::pair(std::string(2'000'000, 'y') + "\uFFFD", true));
  CHECK(read(R"({"text": "\ud800", "n": 123456789012345678901234567890})") ==
        std::pair(std::string("\uFFFD"), true));
  for (std::string twice :
       {R"({"text": "a", "b": {"text": 1}, "text": "a"})", R"({"text": 1, "te\u0078t": "a", "n": 1e999})"})
    CHECK(contains(message_of([&] { json_text(twice, "text", here); }),
                   "the object has the key \"text\" twice"));
  std::string line = R"({"text": "\ud800" "cut})";
  CHECK(contains(message_of([&] { json_text(line, "text", here); }), "a.jsonl, line 1: not JSON"));
}

TEST_CASE("JSON text: damaged lines are read or refused as nlohmann's parser does") {
  std::mt19937 random(5);
  const std::string bytes = "{}[]\",:\\u0dDeE.-+ntf \t\x01\x7F";
  int read = 0;
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string line = odd_lines()[random() % 38];
    for (auto changes = random() % 3; changes > 0 && !line.empty(); --changes) {
      const std::size_t at = random() % line.size();
      const char byte = bytes[random() % bytes.size()];
      switch (random() % 3) {
        case 0:
          line[at] = byte;
          break;
        case 1:
          line.insert(at, 1, byte);
          break;
        default:
          line.erase(at, 1 + random() % 4);
      }
    }
    repair_utf8(line);  // as the lines of a file are before they are parsed
    const auto expected = by_definition(line);
    if (ours(line) != expected) FAIL_CHECK(line);
    ++(expected ? read : refused);
  }
  CHECK(read > 2000);
  CHECK(refused > 2000);
}

TEST_CASE("UTF-8: what is ill-formed is found wherever it stands among ASCII") {
  for (std::size_t before = 0; before < 20; ++before) {
    for (std::size_t after = 0; after < 20; ++after) {
      std::string text =
          std::string(before, 'a') + "\xE2\x82" + std::string(after, 'b') + "é" + std::string(after, 'c');
      CHECK(repair_utf8(text) == 1);
      CHECK(text ==
            std::string(before, 'a') + "\uFFFD" + std::string(after, 'b') + "é" + std::string(after, 'c'));
      CHECK(repair_utf8(text) == 0);
    }
  }
}

TEST_CASE("JSON text: a NUL byte is an error, and a number of any size is none") {
  const std::string two("{\"text\":\"first\"}\0\0{\"text\":\"second\"}", 36);
  CHECK_FALSE(ours(two));
  std::string line = two;
  CHECK(contains(message_of([&] { json_text(line, "text", here); }), "line 1: not JSON (byte 17 is NUL)"));
  for (const std::string& number : {std::string("1e999"), std::string("-1e999"), std::string(400, '9')}) {
    CAPTURE(number);
    CHECK(ours("{\"n\": [" + number + ", 1], \"text\": \"1e999\"}") == "1e999");
  }
  CHECK(tame_numbers(R"({"a": "\\" , "b": 1e-999})") == R"({"a": "\\" , "b": 1e-999})");
  CHECK_FALSE(ours(R"({"text": "a", "n": 1e999e9})"));
}
