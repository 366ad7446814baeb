#include "lib/serve/jinja_values.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/json_dump.h"

namespace ratplus::serve::jinja {

Value make(Json json) {
  return std::make_shared<const Json>(std::move(json));
}

Value undefined() {
  static const Value value = make(Json(Json::value_t::discarded));
  return value;
}

Value part(const Value& whole, const Json& of) {
  return {whole, &of};
}

bool truth(const Json& x) {
  if (x.is_discarded() || x.is_null()) return false;
  if (x.is_boolean()) return x.get<bool>();
  if (x.is_string()) return !x.get_ref<const std::string&>().empty();
  if (x.is_number()) return x.get<double>() != 0;
  return !x.empty();
}

std::string type_of(const Json& x) {
  return x.is_discarded() ? "undefined" : x.type_name();
}

void write_json(const Json& x, int indent, int depth, std::string& out) {
  if (!x.is_structured() || x.empty()) {
    out += json_dump(x);
    return;
  }
  const auto line = [&](int level) {
    if (indent >= 0) out += "\n" + std::string(static_cast<std::size_t>(indent * level), ' ');
  };
  out += x.is_array() ? '[' : '{';
  bool first = true;
  for (const auto& [key, value] : x.items()) {
    if (!std::exchange(first, false)) out += indent < 0 ? ", " : ",";
    line(depth + 1);
    if (x.is_object()) out += json_dump(Json(key)) + ": ";
    write_json(value, indent, depth + 1, out);
  }
  line(depth);
  out += x.is_array() ? ']' : '}';
}

std::string trimmed(const std::string& text, bool left, bool right, const std::string& of) {
  const auto begin = left ? text.find_first_not_of(of) : 0;
  if (begin == std::string::npos) return {};
  const auto end = right ? text.find_last_not_of(of) : text.size() - 1;
  return end == std::string::npos ? std::string() : text.substr(begin, end + 1 - begin);
}

std::string with_case(std::string text, int (*change)(int)) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 128) c = static_cast<char>(change(c));
  }
  return text;
}

std::string to_text(const Json& x) {
  if (x.is_discarded()) return {};
  if (x.is_string()) return x.get<std::string>();
  if (x.is_null()) return "None";
  if (x.is_boolean()) return x.get<bool>() ? "True" : "False";
  if (x.is_number()) return json_dump(x);
  fail("a {} cannot be written as text; use the filter tojson", type_of(x));
}

const std::string& text_in(const Json& x) {
  if (!x.is_string()) fail("a text is needed, and there is a value of type {}", type_of(x));
  return x.get_ref<const std::string&>();
}

std::int64_t integer_in(const Json& x) {
  if (x.is_boolean()) return x.get<bool>() ? 1 : 0;
  if (!x.is_number_integer()) fail("a whole number is needed, and there is a value of type {}", type_of(x));
  return x.get<std::int64_t>();
}

std::vector<std::string> characters(const std::string& text) {
  std::vector<std::string> all;
  for (const char c : text) {
    if (all.empty() || (static_cast<unsigned char>(c) & 0xC0) != 0x80) all.emplace_back();
    all.back() += c;
  }
  return all;
}

std::int64_t length_of(const Json& x) {
  if (x.is_string()) return std::ssize(characters(x.get_ref<const std::string&>()));
  if (x.is_structured()) return static_cast<std::int64_t>(x.size());
  fail("a value of type {} has no length", type_of(x));
}

std::vector<Value> items_of(const Value& x) {
  std::vector<Value> items;
  if (x->is_discarded()) return items;
  if (x->is_array()) {
    for (const auto& each : *x) items.push_back(part(x, each));
  } else if (x->is_object()) {
    for (const auto& [key, value] : x->items()) items.push_back(make(key));
  } else if (x->is_string()) {
    for (auto& each : characters(x->get_ref<const std::string&>())) items.push_back(make(std::move(each)));
  } else {
    fail("a value of type {} has no items", type_of(*x));
  }
  return items;
}

Value member(const Value& x, const Json& key) {
  if (x->is_discarded()) fail("an undefined value has no part {}", json_dump(key));
  if (x->is_object() && key.is_string()) {
    const auto found = x->find(key.get_ref<const std::string&>());
    return found == x->end() ? undefined() : part(x, *found);
  }
  if (x->is_array() && key.is_number_integer()) {
    auto i = key.get<std::int64_t>();
    if (i < 0) i += std::ssize(*x);
    return i < 0 || i >= std::ssize(*x) ? undefined() : part(x, (*x)[static_cast<std::size_t>(i)]);
  }
  if (x->is_string() && key.is_number_integer()) {
    const auto items = items_of(x);
    auto i = key.get<std::int64_t>();
    if (i < 0) i += std::ssize(items);
    return i < 0 || i >= std::ssize(items) ? undefined() : items[static_cast<std::size_t>(i)];
  }
  return undefined();
}

Value pairs_of(const Value& x) {
  if (!x->is_object()) fail("items of a value of type {}", type_of(*x));
  Json pairs = Json::array();
  for (const auto& [key, value] : x->items()) pairs.push_back(Json::array({key, value}));
  return make(std::move(pairs));
}

std::string joined(const Value& x, const std::string& between) {
  std::string text;
  bool first = true;
  for (const auto& each : items_of(x)) text += (std::exchange(first, false) ? "" : between) + to_text(*each);
  return text;
}

Value parts_of(const std::string& text, const std::string& at) {
  Json list = Json::array();
  if (at.empty()) {
    for (std::size_t begin = text.find_first_not_of(blanks); begin != std::string::npos;) {
      const auto end = std::min(text.find_first_of(blanks, begin), text.size());
      list.push_back(text.substr(begin, end - begin));
      begin = text.find_first_not_of(blanks, end);
    }
    return make(std::move(list));
  }
  std::size_t begin = 0;
  for (auto end = text.find(at); end != std::string::npos; end = text.find(at, begin)) {
    list.push_back(text.substr(begin, end - begin));
    begin = end + at.size();
  }
  list.push_back(text.substr(begin));
  return make(std::move(list));
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) return text;
  std::string result;
  std::size_t begin = 0;
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, begin)) {
    result += text.substr(begin, at - begin) + to;
    begin = at + from.size();
  }
  return result + text.substr(begin);
}

bool contains(const Value& all, const Json& x) {
  if (all->is_string()) return all->get_ref<const std::string&>().find(text_in(x)) != std::string::npos;
  if (all->is_object()) return x.is_string() && all->contains(x.get_ref<const std::string&>());
  return std::ranges::any_of(items_of(all), [&](const Value& each) { return *each == x; });
}

namespace {

Value sum(const Json& a, const Json& b) {
  if (a.is_string() && b.is_string())
    return make(a.get_ref<const std::string&>() + b.get_ref<const std::string&>());
  if (a.is_array() && b.is_array()) {
    Json list = a;
    list.insert(list.end(), b.begin(), b.end());
    return make(std::move(list));
  }
  if (a.is_number_integer() && b.is_number_integer())
    return make(a.get<std::int64_t>() + b.get<std::int64_t>());
  if (a.is_number() && b.is_number()) return make(a.get<double>() + b.get<double>());
  fail("+ of values of the types {} and {}", type_of(a), type_of(b));
}

}  // namespace

Value arithmetic(const std::string& sign, const Json& a, const Json& b) {
  if (sign == "+") return sum(a, b);
  if (!a.is_number() || !b.is_number())
    fail("{} of values of the types {} and {}", sign, type_of(a), type_of(b));
  const bool whole = a.is_number_integer() && b.is_number_integer();
  const auto divides = sign == "/" || sign == "//" || sign == "%";
  if (divides && b.get<double>() == 0) fail("{} by zero", sign);
  if (sign == "/") return make(a.get<double>() / b.get<double>());
  if (sign == "-")
    return whole ? make(a.get<std::int64_t>() - b.get<std::int64_t>())
                 : make(a.get<double>() - b.get<double>());
  if (sign == "*")
    return whole ? make(a.get<std::int64_t>() * b.get<std::int64_t>())
                 : make(a.get<double>() * b.get<double>());
  const auto x = integer_in(a), y = integer_in(b);
  const auto remainder = (x % y + y) % y;
  return make(sign == "%" ? remainder : (x - remainder) / y);
}

bool compared(const std::string& sign, const Json& a, const Json& b) {
  if (sign == "==") return a == b;
  if (sign == "!=") return !(a == b);
  if (!(a.is_number() && b.is_number()) && !(a.is_string() && b.is_string()))
    fail("{} of values of the types {} and {}", sign, type_of(a), type_of(b));
  if (sign == "<") return a < b;
  if (sign == ">") return b < a;
  return sign == "<=" ? !(b < a) : !(a < b);
}

Value slice_of(const Value& x, const Json& first, const Json& last) {
  const auto items = items_of(x);
  const auto n = std::ssize(items);
  const auto place = [&](const Json& at, std::int64_t otherwise) {
    if (at.is_null()) return otherwise;
    const auto i = integer_in(at);
    return std::clamp<std::int64_t>(i < 0 ? i + n : i, 0, n);
  };
  const auto begin = place(first, 0), end = place(last, n);
  if (x->is_string()) {
    std::string text;
    for (auto i = begin; i < end; ++i) text += text_in(*items[static_cast<std::size_t>(i)]);
    return make(std::move(text));
  }
  Json list = Json::array();
  for (auto i = begin; i < end; ++i) list.push_back(*items[static_cast<std::size_t>(i)]);
  return make(std::move(list));
}

}  // namespace ratplus::serve::jinja
