// Values of templates, and Python's operations on them. An operation that takes another type throws Error.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::serve::jinja {

using Json = nlohmann::ordered_json;
/// Parts of a value share its memory.
using Value = std::shared_ptr<const Json>;

constexpr std::string_view blanks = " \t\r\n\v\f";

/// A value of its own memory.
Value make(Json json);
/// The value of names without one.
Value undefined();
/// OF, a part of WHOLE, whose memory it shares.
Value part(const Value& whole, const Json& of);
/// Python's truth of a value.
bool truth(const Json& x);
/// Its type for messages.
std::string type_of(const Json& x);
/// As Python's json.dumps, without escapes of characters beyond ASCII.
void write_json(const Json& x, int indent, int depth, std::string& out);
/// TEXT without the characters OF at its ends.
std::string trimmed(const std::string& text, bool left, bool right, const std::string& of);
/// TEXT with its ASCII characters changed by std::toupper or std::tolower.
std::string with_case(std::string text, int (*change)(int));
/// As an output shows it: an undefined value as nothing. Throws Error for lists and objects.
std::string to_text(const Json& x);
/// Throws Error where it is no text.
const std::string& text_in(const Json& x);
/// Throws Error where it is no whole number.
std::int64_t integer_in(const Json& x);
/// The characters of a text, which are those of UTF-8.
std::vector<std::string> characters(const std::string& text);
/// Characters of a text, items of a list or object.
std::int64_t length_of(const Json& x);
/// Its items, as a loop takes them.
std::vector<Value> items_of(const Value& x);
/// Python's x[key], undefined where there is none; a negative KEY counts from the end.
Value member(const Value& x, const Json& key);
/// An object's [key, value] lists.
Value pairs_of(const Value& x);
/// The texts of its items, with BETWEEN.
std::string joined(const Value& x, const std::string& between);
/// TEXT cut at each AT, or at blanks where AT is empty.
Value parts_of(const std::string& text, const std::string& at);
/// TEXT with each FROM as TO.
std::string replaced(const std::string& text, const std::string& from, const std::string& to);
/// Python's x in all.
bool contains(const Value& all, const Json& x);
/// Python's a SIGN b, of + - * / // %.
Value arithmetic(const std::string& sign, const Json& a, const Json& b);
/// Python's a SIGN b, of == != < > <= >=.
bool compared(const std::string& sign, const Json& a, const Json& b);
/// Python's x[begin:end].
Value slice_of(const Value& x, const Json& first, const Json& last);

}  // namespace ratplus::serve::jinja
