#include "data/text/json_text.h"

#include <simdjson.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/utf8.h"

namespace ratplus::data {
namespace {

using nlohmann::json;

/// Takes one string out of an object as it is parsed; a tree of values would cost more than the parsing.
class TextFinder : public json::json_sax_t {
 public:
  explicit TextFinder(const std::string& key) : wanted_(key) {}

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("boolean"); }
  bool number_integer(number_integer_t) override { return value("number"); }
  bool number_unsigned(number_unsigned_t) override { return value("number"); }
  bool number_float(number_float_t, const string_t&) override { return value("number"); }
  bool binary(binary_t&) override { return value("binary"); }
  bool string(string_t& text) override {
    if (is_wanted()) text_ = std::move(text);
    return value("string");
  }
  bool start_object(std::size_t) override {
    value("object");
    ++depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    value("array");
    ++depth_;
    return true;
  }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool key(string_t& name) override {
    at_wanted_ = depth_ == 1 && name == wanted_;
    twice_ = twice_ || (at_wanted_ && found_ != nullptr);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    error_ = error.what();
    return false;
  }

  const std::string& error() const { return error_; }
  const char* outermost() const { return outermost_; }
  /// The type of the value under the key; null if there is none.
  const char* found() const { return found_; }
  bool twice() const { return twice_; }
  std::string& text() { return text_; }

 private:
  bool is_wanted() const { return at_wanted_ && depth_ == 1; }
  bool value(const char* type) {
    if (depth_ == 0) outermost_ = type;
    if (is_wanted()) found_ = type;
    if (depth_ == 1) at_wanted_ = false;
    return true;
  }
  bool end() {
    --depth_;
    return true;
  }

  const std::string& wanted_;
  int depth_ = 0;
  bool at_wanted_ = false, twice_ = false;
  const char* outermost_ = "null";
  const char* found_ = nullptr;
  std::string text_;
  std::string error_;
};

/// Longer lines are left to the other parser, which needs no memory beside the text's.
constexpr std::size_t most_bytes_at_once = std::size_t{1} << 20;

/// The text of a line that is as it should be, by simdjson, which is some ten times faster. Nothing for any other line:
/// the other parser decides what is wrong with it, if anything is (it takes numbers that simdjson finds too large).
std::optional<std::string> text_of_sound_line(std::string_view line, const std::string& key) {
  thread_local simdjson::dom::parser parser(most_bytes_at_once);
  simdjson::dom::object object;
  if (line.size() > most_bytes_at_once) return std::nullopt;
  if (parser.parse(line.data(), line.size()).get(object) != simdjson::SUCCESS) return std::nullopt;
  std::optional<std::string> text;
  for (const auto& field : object) {
    if (field.key != key) continue;
    std::string_view found;
    if (text || field.value.get(found) != simdjson::SUCCESS)
      return std::nullopt;  // two under one key, or no text
    text = found;
  }
  // An escape that is half of a surrogate pair is no character.
  if (text && repair_utf8(*text) > 0) return std::nullopt;
  return text;
}

/// Bytes of an escape of four hexadecimal digits.
constexpr std::size_t escape_bytes = 6;

/// The UTF-16 unit that the escape at `at` stands for; -1 if what begins there is none.
int unit_at(std::string_view text, std::size_t at) {
  const std::string_view escape = text.substr(std::min(at, text.size()), escape_bytes);
  if (escape.size() < escape_bytes || !escape.starts_with("\\u")) return -1;
  unsigned unit = 0;
  const auto [end, error] = std::from_chars(escape.data() + 2, escape.data() + escape_bytes, unit, 16);
  return error == std::errc{} && end == escape.data() + escape_bytes ? static_cast<int>(unit) : -1;
}

bool is_first_half(int unit) {
  return unit >= 0xD800 && unit < 0xDC00;
}

bool is_second_half(int unit) {
  return unit >= 0xDC00 && unit < 0xE000;
}

}  // namespace

std::string_view line_advice(std::string_view line) {
  const auto begin = line.find_first_not_of(" \t\r");
  const auto end = line.find_last_not_of(" \t\r");
  if (begin != std::string_view::npos && begin == end && line[begin] == '[')
    return "the file is a JSON array; write one object a line, as `jq -c '.[]'` does";
  if (begin != std::string_view::npos && begin == end && line[begin] == '{')
    return "the object is spread over lines; write one object a line, as `jq -c .` does";
  return "correct or remove the line";
}

std::int64_t repair_half_pairs(std::string& text) {
  std::int64_t count = 0;
  // A backslash is followed by what it escapes, perhaps another one; there is none but in strings.
  for (std::size_t at = 0; (at = text.find('\\', at)) != std::string::npos;) {
    const int unit = unit_at(text, at);
    if (unit < 0) {
      at += 2;
      continue;
    }
    const bool pair = is_first_half(unit) && is_second_half(unit_at(text, at + escape_bytes));
    if (!pair && (is_first_half(unit) || is_second_half(unit))) {
      text.replace(at, escape_bytes, "\\ufffd");
      ++count;
    }
    at += pair ? 2 * escape_bytes : escape_bytes;
  }
  return count;
}

std::string tame_numbers(const std::string& json) {
  constexpr std::string_view of_numbers = "+-.eE0123456789";
  std::string tamed;
  std::size_t copied = 0;
  bool in_string = false;
  for (std::size_t at = 0; at < json.size(); ++at) {
    if (json[at] == '"') in_string = !in_string;
    if (in_string && json[at] == '\\') ++at;
    if (in_string || json[at] < '0' || json[at] > '9') continue;
    const std::size_t end = std::min(json.find_first_not_of(of_numbers, at), json.size());
    double value = 0;
    const auto [stop, error] = std::from_chars(json.data() + at, json.data() + end, value);
    // Too small a number is out of range as well, and parsers take it for 0.
    if (error == std::errc::result_out_of_range && stop == json.data() + end &&
        std::isinf(std::strtod(json.substr(at, end - at).c_str(), nullptr))) {
      tamed.append(json, copied, at - copied).append("1.7976931348623157e308");
      copied = end;
    }
    at = end - 1;
  }
  return copied == 0 ? json : tamed.append(json, copied);
}

JsonText json_text(std::string& line, const std::string& key, const std::function<std::string()>& where) {
  if (auto text = text_of_sound_line(line, key)) return {std::move(*text), false};
  const bool repaired = repair_half_pairs(line) > 0;
  if (repaired) {
    if (auto text = text_of_sound_line(line, key)) return {std::move(*text), true};
  }
  if (const auto at = line.find('\0'); at != std::string::npos)
    fail("{}: not JSON (byte {} is NUL); correct or remove the line", where(), at + 1);
  TextFinder finder(key);
  if (!json::sax_parse(tame_numbers(line), &finder))
    fail("{}: not JSON ({}); {}", where(), finder.error(), line_advice(line));
  const std::string_view outermost = finder.outermost();
  if (outermost == "array") {
    fail("{}: a JSON array, not an object; write one object a line, as `jq -c '.[]'` does", where());
  }
  if (outermost != "object")
    fail("{}: a JSON {}, not an object; correct or remove the line", where(), outermost);
  if (finder.found() == nullptr) {
    fail("{}: the object has no key \"{}\"; name the text's key with --text-key", where(), key);
  }
  if (finder.twice())
    fail("{}: the object has the key \"{}\" twice; correct or remove the line", where(), key);
  const std::string_view found = finder.found();
  if (found != "string") fail("{}: \"{}\" is a JSON {}, not a string", where(), key, found);
  return {std::move(finder.text()), repaired};
}

}  // namespace ratplus::data
