#include "lib/serve/jinja_operations.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <ctime>
#include <utility>

#include "base/error.h"

namespace ratplus::serve::jinja {

namespace {

constexpr std::int64_t most_range = 100'000;

}  // namespace

const std::map<std::string, Operation>& filters() {
  static const std::map<std::string, Operation> all = {
      {"trim",
       [](const Value& x, const Arguments& a) {
         return make(trimmed(to_text(*x), true, true, a.text(0, std::string(blanks).c_str())));
       }},
      {"upper", [](const Value& x, const Arguments&) { return make(with_case(text_in(*x), std::toupper)); }},
      {"lower", [](const Value& x, const Arguments&) { return make(with_case(text_in(*x), std::tolower)); }},
      {"capitalize",
       [](const Value& x, const Arguments&) {
         auto text = with_case(text_in(*x), std::tolower);
         if (!text.empty())
           text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
         return make(std::move(text));
       }},
      {"length", [](const Value& x, const Arguments&) { return make(length_of(*x)); }},
      {"count", [](const Value& x, const Arguments&) { return make(length_of(*x)); }},
      {"string", [](const Value& x, const Arguments&) { return make(to_text(*x)); }},
      {"safe", [](const Value& x, const Arguments&) { return x; }},
      {"int",
       [](const Value& x, const Arguments&) {
         return make(x->is_string() ? std::strtoll(text_in(*x).c_str(), nullptr, 10)
                                    : x->get<std::int64_t>());
       }},
      {"join", [](const Value& x, const Arguments& a) { return make(joined(x, a.text(0, ""))); }},
      {"replace",
       [](const Value& x, const Arguments& a) {
         return make(replaced(text_in(*x), a.text(0, ""), a.text(1, "")));
       }},
      {"first", [](const Value& x, const Arguments&) { return member(x, 0); }},
      {"last", [](const Value& x, const Arguments&) { return member(x, -1); }},
      {"items", [](const Value& x, const Arguments&) { return pairs_of(x); }},
      {"list",
       [](const Value& x, const Arguments&) {
         Json list = Json::array();
         for (const auto& each : items_of(x)) list.push_back(*each);
         return make(std::move(list));
       }},
      {"default",
       [](const Value& x, const Arguments& a) {
         const auto* boolean = a.at(1, "boolean");
         const bool absent = x->is_discarded() || (boolean != nullptr && truth(*boolean) && !truth(*x));
         return absent ? make(a.at(0) == nullptr ? Json("") : *a.at(0)) : x;
       }},
      {"tojson",
       [](const Value& x, const Arguments& a) {
         if (x->is_discarded()) fail("an undefined value cannot be written as JSON");
         const auto* indent = a.at(0, "indent");
         std::string text;
         write_json(*x, indent == nullptr || indent->is_null() ? -1 : static_cast<int>(integer_in(*indent)),
                    0, text);
         return make(std::move(text));
       }},
  };
  return all;
}

const std::map<std::string, Operation>& methods() {
  static const std::map<std::string, Operation> all = {
      {"strip",
       [](const Value& x, const Arguments& a) {
         return make(trimmed(text_in(*x), true, true, a.text(0, std::string(blanks).c_str())));
       }},
      {"lstrip",
       [](const Value& x, const Arguments& a) {
         return make(trimmed(text_in(*x), true, false, a.text(0, std::string(blanks).c_str())));
       }},
      {"rstrip",
       [](const Value& x, const Arguments& a) {
         return make(trimmed(text_in(*x), false, true, a.text(0, std::string(blanks).c_str())));
       }},
      {"startswith",
       [](const Value& x, const Arguments& a) { return make(text_in(*x).starts_with(a.text(0, ""))); }},
      {"endswith",
       [](const Value& x, const Arguments& a) { return make(text_in(*x).ends_with(a.text(0, ""))); }},
      {"split", [](const Value& x, const Arguments& a) { return parts_of(text_in(*x), a.text(0, "")); }},
      {"replace", filters().at("replace")},
      {"upper", filters().at("upper")},
      {"lower", filters().at("lower")},
      {"capitalize", filters().at("capitalize")},
      {"items", filters().at("items")},
      {"get",
       [](const Value& x, const Arguments& a) {
         const auto found = a.at(0) == nullptr ? undefined() : member(x, *a.at(0));
         return !found->is_discarded() ? found : make(a.at(1) == nullptr ? Json() : *a.at(1));
       }},
  };
  return all;
}

const std::map<std::string, bool (*)(const Json&)>& tests() {
  static const std::map<std::string, bool (*)(const Json&)> all = {
      {"defined", [](const Json& x) { return !x.is_discarded(); }},
      {"undefined", [](const Json& x) { return x.is_discarded(); }},
      {"none", [](const Json& x) { return x.is_null(); }},
      {"string", [](const Json& x) { return x.is_string(); }},
      {"number", [](const Json& x) { return x.is_number() || x.is_boolean(); }},
      {"integer", [](const Json& x) { return x.is_number_integer(); }},
      {"boolean", [](const Json& x) { return x.is_boolean(); }},
      {"mapping", [](const Json& x) { return x.is_object(); }},
      {"iterable", [](const Json& x) { return x.is_structured() || x.is_string(); }},
      {"sequence", [](const Json& x) { return x.is_structured() || x.is_string(); }},
      {"true", [](const Json& x) { return x.is_boolean() && x.get<bool>(); }},
      {"false", [](const Json& x) { return x.is_boolean() && !x.get<bool>(); }},
      {"odd", [](const Json& x) { return integer_in(x) % 2 != 0; }},
      {"even", [](const Json& x) { return integer_in(x) % 2 == 0; }},
  };
  return all;
}

const std::map<std::string, Value (*)(const Arguments&)>& functions() {
  static const std::map<std::string, Value (*)(const Arguments&)> all = {
      {"raise_exception",
       [](const Arguments& a) -> Value { fail("{}", a.text(0, "the template refuses these messages")); }},
      {"namespace",
       [](const Arguments& a) {
         Json json = Json::object();
         for (const auto& [name, value] : a.named) json[name] = *value;
         return make(std::move(json));
       }},
      {"range",
       [](const Arguments& a) {
         if (a.at(0) == nullptr) fail("range() needs a number");
         const auto begin = a.at(1) == nullptr ? 0 : integer_in(*a.at(0));
         const auto end = integer_in(a.at(1) == nullptr ? *a.at(0) : *a.at(1));
         const auto step = a.at(2) == nullptr ? 1 : integer_in(*a.at(2));
         Json list = Json::array();
         for (auto i = begin; step > 0 ? i < end : step < 0 && i > end; i += step) {
           if (std::cmp_greater(list.size(), most_range)) fail("range() of more than {} numbers", most_range);
           list.push_back(i);
         }
         return make(std::move(list));
       }},
      {"strftime_now",
       [](const Arguments& a) {
         const auto now = std::time(nullptr);
         std::tm local{};
         localtime_r(&now, &local);
         std::array<char, 200> text{};
         const auto n = std::strftime(text.data(), text.size(), a.text(0, "%Y-%m-%d").c_str(), &local);
         return make(std::string(text.data(), n));
       }},
  };
  return all;
}

}  // namespace ratplus::serve::jinja
