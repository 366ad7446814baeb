#include "lib/serve/jinja.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <ctime>
#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json_dump.h"

namespace ratplus::serve {

using Json = nlohmann::ordered_json;
/// Parts of a value share its memory.
using Value = std::shared_ptr<const Json>;

struct JinjaTemplate::Scope {
  std::vector<std::map<std::string, Value>> levels;  ///< the innermost last
  std::string out = {};
  std::int64_t steps = 0;
  enum class Leave : std::uint8_t { none, next, loop } leave = Leave::none;  ///< by continue or break

  Value* find(const std::string& name) {
    for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
      if (const auto found = level->find(name); found != level->end()) return &found->second;
    }
    return nullptr;
  }
};

namespace {

using Scope = JinjaTemplate::Scope;
using Statement = JinjaTemplate::Statement;
using Eval = std::function<Value(Scope&)>;

constexpr std::string_view blanks = " \t\r\n\v\f";
constexpr std::int64_t most_steps = 1'000'000, most_range = 100'000;

// --- values ------------------------------------------------------------------------------------------------------

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

/// As Python's json.dumps, without escapes of characters beyond ASCII.
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

// --- words -------------------------------------------------------------------------------------------------------

enum class Kind : std::uint8_t { name, text, number, sign, end };

struct Word {
  Kind kind = Kind::end;
  std::string text;
  int line = 1;
};

struct Piece {
  enum class What : std::uint8_t { text, output, statement } what = What::text;
  std::string text = {};
  std::vector<Word> words = {};
  int line = 1;
};

/// Cuts a template into texts, {{ outputs }} and {% statements %}.
class Lexer {
 public:
  Lexer(std::string source, std::string name) : source_(std::move(source)), name_(std::move(name)) {
    if (source_.ends_with('\n')) source_.pop_back();
  }

  std::vector<Piece> pieces() {
    bool trim = false;  // blanks after a minus
    while (at_ < source_.size()) {
      const auto open = next_open();
      auto text = source_.substr(at_, open - at_);
      const int line = line_;
      line_ += static_cast<int>(std::ranges::count(text, '\n'));
      at_ = open;
      if (trim) text = trimmed(text, true, false, std::string(blanks));
      trim = false;
      if (open == source_.size()) {
        add_text(std::move(text), line);
        break;
      }
      const char kind = source_[open + 1], mark = open + 2 < source_.size() ? source_[open + 2] : '\0';
      if (mark == '-') {
        text = trimmed(text, false, true, std::string(blanks));
      } else if (kind != '{' && mark != '+') {
        strip_line(text);
      }
      add_text(std::move(text), line);
      at_ = open + (mark == '-' || mark == '+' ? 3 : 2);
      Piece piece{.what = kind == '{' ? Piece::What::output : Piece::What::statement, .line = line_};
      trim = kind == '#' ? skip_comment() : read_words(kind == '{' ? '}' : '%', piece);
      if (kind != '#') pieces_.push_back(std::move(piece));
      if (!trim && kind != '{') skip_newline();
    }
    return std::move(pieces_);
  }

 private:
  [[noreturn]] void bad(const std::string& what) const { fail("{}, line {}: {}", name_, line_, what); }

  std::size_t next_open() const {
    for (auto i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#'))
        return i;
    }
    return source_.size();
  }

  void add_text(std::string text, int line) {
    if (!text.empty()) pieces_.push_back({.text = std::move(text), .line = line});
  }

  /// Blanks between the beginning of a line and a statement.
  void strip_line(std::string& text) const {
    const auto end = text.find_last_not_of(" \t");
    if (end == std::string::npos) {
      if (pieces_.empty() || after_newline_) text.clear();
    } else if (text[end] == '\n') {
      text.resize(end + 1);
    }
  }

  void skip_newline() {
    after_newline_ = at_ < source_.size() && source_[at_] == '\n';
    if (after_newline_) ++at_, ++line_;
  }

  /// Whether a minus ended it.
  bool skip_comment() {
    const auto end = source_.find("#}", at_);
    if (end == std::string::npos) bad("a comment {# has no #}");
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    at_ = end + 2;
    return source_[end - 1] == '-';
  }

  bool read_words(char close, Piece& piece) {
    int braces = 0;
    after_newline_ = false;
    for (;;) {
      while (at_ < source_.size() && blanks.find(source_[at_]) != std::string_view::npos) {
        if (source_[at_++] == '\n') ++line_;
      }
      if (at_ >= source_.size()) bad(close == '}' ? "{{ has no }}" : "{% has no %}");
      const auto rest = std::string_view(source_).substr(at_);
      const std::string ending{close, '}'};
      if (braces == 0 &&
          (rest.starts_with(ending) || rest.starts_with("-" + ending) || rest.starts_with("+" + ending))) {
        at_ += rest.front() == close ? 2 : 3;
        piece.words.push_back({Kind::end, {}, line_});
        return rest.front() == '-';
      }
      piece.words.push_back(word(rest));
      if (piece.words.back().kind != Kind::sign) continue;
      if (piece.words.back().text == "{") ++braces;
      if (piece.words.back().text == "}") --braces;
    }
  }

  Word word(std::string_view rest) {
    const auto is_name = [](char c) { return c == '_' || std::isalnum(static_cast<unsigned char>(c)) != 0; };
    const char c = rest.front();
    std::size_t n = 1;
    if (c == '"' || c == '\'') return text_word(c);
    if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
      while (n < rest.size() && (std::isdigit(static_cast<unsigned char>(rest[n])) != 0 ||
                                 (rest[n] == '.' && n + 1 < rest.size() &&
                                  std::isdigit(static_cast<unsigned char>(rest[n + 1])) != 0)))
        ++n;
      at_ += n;
      return {Kind::number, std::string(rest.substr(0, n)), line_};
    }
    if (is_name(c)) {
      while (n < rest.size() && is_name(rest[n])) ++n;
      at_ += n;
      return {Kind::name, std::string(rest.substr(0, n)), line_};
    }
    constexpr std::array<std::string_view, 6> pairs = {"==", "!=", "<=", ">=", "//", "**"};
    if (std::ranges::count(pairs, rest.substr(0, 2)) > 0) n = 2;
    constexpr std::string_view signs = "+-*/%~<>=()[]{}.,:|!";
    if (signs.find(c) == std::string_view::npos)
      bad(fmt::format("{} is no part of an expression", rest.substr(0, 1)));
    at_ += n;
    return {Kind::sign, std::string(rest.substr(0, n)), line_};
  }

  Word text_word(char quote) {
    Word result{Kind::text, {}, line_};
    for (++at_; at_ < source_.size() && source_[at_] != quote; ++at_) {
      char c = source_[at_];
      if (c == '\n') ++line_;
      if (c == '\\' && at_ + 1 < source_.size()) {
        c = source_[++at_];
        constexpr std::string_view from = "ntr\\'\"", to = "\n\t\r\\'\"";
        const auto known = from.find(c);
        if (known == std::string_view::npos) {
          result.text += '\\';
        } else {
          c = to[known];
        }
      }
      result.text += c;
    }
    if (at_ >= source_.size()) bad("a text has no closing quote");
    ++at_;
    return result;
  }

  std::string source_, name_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool after_newline_ = false;
  std::vector<Piece> pieces_;
};

// --- expressions -------------------------------------------------------------------------------------------------

struct Argument {
  std::string name;  ///< empty: by its place
  Eval value;
};

/// The parsed values of a call's arguments.
struct Arguments {
  std::vector<Value> values;
  std::map<std::string, Value> named;

  const Json* at(std::size_t i, const char* name = "") const {
    if (i < values.size()) return values[i].get();
    const auto found = named.find(name);
    return found == named.end() ? nullptr : found->second.get();
  }
  std::string text(std::size_t i, const char* otherwise) const {
    const auto* x = at(i);
    if (x == nullptr) return otherwise;
    if (!x->is_string()) fail("a text is needed, and there is a value of type {}", type_of(*x));
    return x->get<std::string>();
  }
};

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

/// The characters of a text, which are those of UTF-8.
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

/// What a loop goes over.
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

using Operation = Value (*)(const Value& x, const Arguments& arguments);

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

template <typename Map>
std::string names_of(const Map& map) {
  std::vector<std::string> names;
  for (const auto& [name, value] : map) names.push_back(name);
  return fmt::format("{}", fmt::join(names, ", "));
}

bool contains(const Value& all, const Json& x) {
  if (all->is_string()) return all->get_ref<const std::string&>().find(text_in(x)) != std::string::npos;
  if (all->is_object()) return x.is_string() && all->contains(x.get_ref<const std::string&>());
  return std::ranges::any_of(items_of(all), [&](const Value& each) { return *each == x; });
}

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

/// Python's x[begin:end].
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

/// Parses the words of one piece to closures.
class ExpressionParser {
 public:
  ExpressionParser(const std::vector<Word>& words, const std::string& name) : words_(words), name_(name) {}

  const Word& now() const { return words_[at_]; }
  bool is(std::string_view text) const {
    return (now().kind == Kind::sign || now().kind == Kind::name) && now().text == text;
  }
  bool take(std::string_view text) {
    if (!is(text)) return false;
    ++at_;
    return true;
  }
  void need(std::string_view text) {
    if (!take(text)) bad(fmt::format("{} is expected, and there is {}", text, shown()));
  }
  std::string need_name() {
    if (now().kind != Kind::name) bad(fmt::format("a name is expected, and there is {}", shown()));
    return words_[at_++].text;
  }
  void need_end() const {
    if (now().kind != Kind::end) bad(fmt::format("{} is not expected here", shown()));
  }
  std::string shown() const {
    return now().kind == Kind::end ? "the end" : fmt::format("\"{}\"", now().text);
  }
  [[noreturn]] void bad(const std::string& what) const { fail("{}, line {}: {}", name_, now().line, what); }

  /// a if b else c
  Eval expression() {
    auto value = disjunction();
    while (take("if")) {
      auto condition = disjunction();
      Eval other = [](Scope&) { return undefined(); };
      if (take("else")) other = expression();
      value = [value, condition, other](Scope& s) { return truth(*condition(s)) ? value(s) : other(s); };
    }
    return value;
  }

  /// Without `if`, which is a loop's filter.
  Eval disjunction() {
    auto left = conjunction();
    while (take("or")) {
      left = [left, right = conjunction()](Scope& s) {
        auto x = left(s);
        return truth(*x) ? x : right(s);
      };
    }
    return left;
  }

 private:
  Eval conjunction() {
    auto left = negation();
    while (take("and")) {
      left = [left, right = negation()](Scope& s) {
        auto x = left(s);
        return truth(*x) ? right(s) : x;
      };
    }
    return left;
  }

  Eval negation() {
    if (!take("not")) return comparison();
    return [x = negation()](Scope& s) { return make(!truth(*x(s))); };
  }

  Eval comparison() {
    auto left = sum_of_terms();
    for (;;) {
      constexpr std::array<const char*, 6> signs = {"==", "!=", "<=", ">=", "<", ">"};
      const auto sign = std::ranges::find_if(signs, [&](const char* x) { return is(x); });
      if (sign != signs.end()) {
        ++at_;
        left = Eval([left, right = sum_of_terms(), text = std::string(*sign)](Scope& s) {
          return make(compared(text, *left(s), *right(s)));
        });
        continue;
      }
      const bool inverse = is("not") && words_[at_ + 1].text == "in";
      if (inverse) ++at_;
      if (!take("in")) return left;
      left = Eval([left, right = sum_of_terms(), inverse](Scope& s) {
        const auto x = left(s);
        return make(contains(right(s), *x) != inverse);
      });
    }
  }

  Eval sum_of_terms() {
    auto left = concatenation();
    while (is("+") || is("-")) {
      const auto sign = words_[at_++].text;
      left = Eval(
          [left, right = concatenation(), sign](Scope& s) { return arithmetic(sign, *left(s), *right(s)); });
    }
    return left;
  }

  Eval concatenation() {
    auto left = product();
    while (take("~")) {
      left =
          Eval([left, right = product()](Scope& s) { return make(to_text(*left(s)) + to_text(*right(s))); });
    }
    return left;
  }

  Eval product() {
    auto left = unary();
    while (is("*") || is("/") || is("//") || is("%")) {
      const auto sign = words_[at_++].text;
      left = Eval([left, right = unary(), sign](Scope& s) { return arithmetic(sign, *left(s), *right(s)); });
    }
    return left;
  }

  Eval unary() {
    if (take("-")) {
      return Eval([x = unary()](Scope& s) { return arithmetic("-", Json(0), *x(s)); });
    }
    return postfix();
  }

  Eval postfix() {
    auto x = primary();
    for (;;) {
      if (take(".")) {
        const auto name = need_name();
        x = is("(") ? call_method(x, name)
                    : Eval([x, key = Json(name)](Scope& s) { return member(x(s), key); });
      } else if (take("[")) {
        x = subscript(x);
      } else if (take("|")) {
        const auto name = need_name();
        const auto found = filters().find(name);
        if (found == filters().end())
          bad(fmt::format("the filter \"{}\" is not supported; there are {}", name, names_of(filters())));
        x = Eval(
            [x, arguments = is("(") ? arguments_of() : std::vector<Argument>(), f = found->second](Scope& s) {
              const auto value = x(s);
              return f(value, evaluated(arguments, s));
            });
      } else if (take("is")) {
        const bool inverse = take("not");
        const auto name = need_name();
        const auto found = tests().find(name);
        if (found == tests().end())
          bad(fmt::format("the test \"{}\" is not supported; there are {}", name, names_of(tests())));
        x = Eval([x, inverse, f = found->second](Scope& s) { return make(f(*x(s)) != inverse); });
      } else if (is("(")) {
        bad("a value cannot be called here");
      } else {
        return x;
      }
    }
  }

  Eval call_method(const Eval& x, const std::string& name) {
    const auto found = methods().find(name);
    if (found == methods().end())
      bad(fmt::format("the method \"{}\" is not supported; there are {}", name, names_of(methods())));
    return Eval([x, arguments = arguments_of(), f = found->second](Scope& s) {
      const auto value = x(s);
      return f(value, evaluated(arguments, s));
    });
  }

  Eval subscript(const Eval& x) {
    const Eval none = [](Scope&) { return make(nullptr); };
    Eval first = none, last = none;
    if (!is(":")) first = expression();
    if (!take(":")) {
      need("]");
      return Eval([x, first](Scope& s) {
        const auto value = x(s);
        return member(value, *first(s));
      });
    }
    if (is(":")) bad("slices with a step are not supported");
    if (!is("]")) last = expression();
    need("]");
    return Eval([x, first, last](Scope& s) {
      const auto value = x(s);
      return slice_of(value, *first(s), *last(s));
    });
  }

  std::vector<Argument> arguments_of() {
    std::vector<Argument> arguments;
    need("(");
    while (!take(")")) {
      Argument argument;
      if (now().kind == Kind::name && words_[at_ + 1].kind == Kind::sign && words_[at_ + 1].text == "=") {
        argument.name = need_name();
        need("=");
      }
      argument.value = expression();
      arguments.push_back(std::move(argument));
      if (!is(")")) need(",");
    }
    return arguments;
  }

  static Arguments evaluated(const std::vector<Argument>& arguments, Scope& s) {
    Arguments result;
    for (const auto& [name, value] : arguments) {
      if (name.empty()) {
        result.values.push_back(value(s));
      } else {
        result.named[name] = value(s);
      }
    }
    return result;
  }

  Eval constant(Json json) {
    return [value = make(std::move(json))](Scope&) { return value; };
  }

  Eval primary() {
    const auto word = now();
    if (word.kind == Kind::end) bad("an expression ends too early");
    ++at_;
    if (word.kind == Kind::text) {
      auto text = word.text;
      while (now().kind == Kind::text) text += words_[at_++].text;
      return constant(text);
    }
    if (word.kind == Kind::number) {
      if (word.text.find('.') != std::string::npos) return constant(std::strtod(word.text.c_str(), nullptr));
      return constant(std::strtoll(word.text.c_str(), nullptr, 10));
    }
    if (word.kind == Kind::name) return name(word.text);
    if (word.text == "(") {
      auto value = expression();
      if (is(",")) bad("tuples are not supported; use a list");
      need(")");
      return value;
    }
    if (word.text == "[") return list();
    if (word.text == "{") return dictionary();
    --at_;
    bad(fmt::format("{} is not expected here", shown()));
  }

  Eval name(const std::string& name) {
    for (const auto& [words, value] : {std::pair{"true", Json(true)},
                                       {"True", Json(true)},
                                       {"false", Json(false)},
                                       {"False", Json(false)},
                                       {"none", Json()},
                                       {"None", Json()}}) {
      if (name == words) return constant(value);
    }
    const auto function = functions().find(name);
    if (is("(")) {
      if (function == functions().end())
        bad(fmt::format("the function \"{}\" is not supported; there are {}", name, names_of(functions())));
      return Eval([arguments = arguments_of(), f = function->second](Scope& s) {
        return f(evaluated(arguments, s));
      });
    }
    const bool is_function = function != functions().end();
    return [name, is_function](Scope& s) {
      const auto* found = s.find(name);
      return found != nullptr ? *found : is_function ? make(true) : undefined();
    };
  }

  Eval list() {
    std::vector<Eval> items;
    while (!take("]")) {
      items.push_back(expression());
      if (!is("]")) need(",");
    }
    return [items](Scope& s) {
      Json json = Json::array();
      for (const auto& item : items) json.push_back(*item(s));
      return make(std::move(json));
    };
  }

  Eval dictionary() {
    std::vector<std::pair<Eval, Eval>> items;
    while (!take("}")) {
      auto key = expression();
      need(":");
      items.emplace_back(std::move(key), expression());
      if (!is("}")) need(",");
    }
    return Eval([items](Scope& s) {
      Json json = Json::object();
      for (const auto& [key, value] : items) json[text_in(*key(s))] = *value(s);
      return make(std::move(json));
    });
  }

  const std::vector<Word>& words_;
  const std::string& name_;
  std::size_t at_ = 0;
};

// --- statements --------------------------------------------------------------------------------------------------

class TemplateParser {
 public:
  TemplateParser(const std::vector<Piece>& pieces, std::string name)
      : pieces_(pieces), name_(std::move(name)) {}

  Statement all() { return block({}); }

 private:
  [[noreturn]] void bad(int line, const std::string& what) const {
    fail("{}, line {}: {}", name_, line, what);
  }

  /// The first word of a statement.
  static std::string word_of(const Piece& piece) {
    return piece.what == Piece::What::statement ? piece.words.front().text : std::string();
  }

  /// Statements up to one of these words, which stays.
  Statement block(const std::set<std::string>& ends) {
    std::vector<Statement> statements;
    const int line = at_ > 0 ? pieces_[at_ - 1].line : 1;
    while (at_ < pieces_.size() && !ends.contains(word_of(pieces_[at_]))) statements.push_back(statement());
    if (at_ == pieces_.size() && !ends.empty())
      bad(line, fmt::format("{{% {} %}} is missing", *ends.rbegin()));
    return [statements](Scope& s) {
      for (const auto& each : statements) {
        if (++s.steps > most_steps) fail("the template takes more than {} steps", most_steps);
        each(s);
        if (s.leave != Scope::Leave::none) return;
      }
    };
  }

  Statement statement() {
    const auto& piece = pieces_[at_++];
    if (piece.what == Piece::What::text) return [text = piece.text](Scope& s) { s.out += text; };
    ExpressionParser parser(piece.words, name_);
    if (piece.what == Piece::What::output) {
      auto value = parser.expression();
      parser.need_end();
      return placed(piece.line, [value](Scope& s) { s.out += to_text(*value(s)); });
    }
    const auto word = parser.need_name();
    if (word == "if") return conditional(parser, piece.line);
    if (word == "for") return loop(parser, piece.line);
    if (word == "set") return assignment(parser, piece.line);
    if (word == "break" || word == "continue") {
      parser.need_end();
      if (loops_ == 0) bad(piece.line, fmt::format("{{% {} %}} outside of a loop", word));
      const auto leave = word == "break" ? Scope::Leave::loop : Scope::Leave::next;
      return [leave](Scope& s) { s.leave = leave; };
    }
    // Marks of training, without an effect on the text.
    if (word == "generation" || word == "endgeneration") return [](Scope&) {};
    bad(piece.line,
        fmt::format("{{% {} %}} is not supported; there are if, for, set, break and continue", word));
  }

  Statement conditional(ExpressionParser& parser, int line) {
    struct Branch {
      Eval condition;
      Statement body;
    };
    std::vector<Branch> branches;
    branches.push_back({parser.expression(), {}});
    parser.need_end();
    Statement otherwise = [](Scope&) {};
    for (;;) {
      branches.back().body = block({"elif", "else", "endif"});
      const auto& piece = pieces_[at_++];
      const auto word = word_of(piece);
      if (word == "endif") break;
      ExpressionParser next(piece.words, name_);
      next.need_name();
      if (word == "elif") {
        branches.push_back({next.expression(), {}});
        next.need_end();
        continue;
      }
      next.need_end();
      otherwise = block({"endif"});
      ++at_;
      break;
    }
    return placed(line, [branches, otherwise](Scope& s) {
      for (const auto& [condition, body] : branches) {
        if (truth(*condition(s))) return body(s);
      }
      otherwise(s);
    });
  }

  Statement loop(ExpressionParser& parser, int line) {
    std::vector<std::string> names{parser.need_name()};
    while (parser.take(",")) names.push_back(parser.need_name());
    parser.need("in");
    const auto over = parser.disjunction();
    Eval filter;
    if (parser.take("if")) filter = parser.expression();
    if (parser.is("recursive")) parser.bad("recursive loops are not supported");
    parser.need_end();
    ++loops_;
    const auto body = block({"else", "endfor"});
    --loops_;
    Statement otherwise = [](Scope&) {};
    if (word_of(pieces_[at_++]) == "else") {
      otherwise = block({"endfor"});
      ++at_;
    }
    const auto bind = [names](const Value& item, std::map<std::string, Value>& level) {
      if (names.size() == 1) {
        level[names.front()] = item;
        return;
      }
      const auto parts = items_of(item);
      if (parts.size() != names.size())
        fail("a loop over {} names has an item of {}", names.size(), parts.size());
      for (std::size_t i = 0; i < names.size(); ++i) level[names[i]] = parts[i];
    };
    return placed(line, [over, filter, body, otherwise, bind](Scope& s) {
      auto items = items_of(over(s));
      if (filter) {
        std::erase_if(items, [&](const Value& item) {
          s.levels.emplace_back();
          bind(item, s.levels.back());
          const bool keeps = truth(*filter(s));
          s.levels.pop_back();
          return !keeps;
        });
      }
      const auto n = std::ssize(items);
      for (std::int64_t i = 0; i < n; ++i) {
        s.levels.emplace_back();
        auto& level = s.levels.back();
        bind(items[static_cast<std::size_t>(i)], level);
        Json state{{"index", i + 1},  {"index0", i},        {"revindex", n - i}, {"revindex0", n - i - 1},
                   {"first", i == 0}, {"last", i == n - 1}, {"length", n}};
        if (i > 0) state["previtem"] = *items[static_cast<std::size_t>(i - 1)];
        if (i + 1 < n) state["nextitem"] = *items[static_cast<std::size_t>(i + 1)];
        level["loop"] = make(std::move(state));
        body(s);
        s.levels.pop_back();
        const auto leave = std::exchange(s.leave, Scope::Leave::none);
        if (leave == Scope::Leave::loop) break;
      }
      if (n == 0) otherwise(s);
    });
  }

  Statement assignment(ExpressionParser& parser, int line) {
    const auto name = parser.need_name();
    std::string field;
    if (parser.take(".")) field = parser.need_name();
    if (!parser.is("=")) {
      if (!field.empty()) parser.need("=");
      if (parser.now().kind != Kind::end)
        parser.bad(fmt::format("= is expected, and there is {}", parser.shown()));
      const auto body = block({"endset"});
      ++at_;
      return placed(line, [name, body](Scope& s) {
        std::string before = std::exchange(s.out, {});
        body(s);
        s.levels.back()[name] = make(std::exchange(s.out, std::move(before)));
      });
    }
    parser.need("=");
    auto value = parser.expression();
    parser.need_end();
    return placed(line, [name, field, value](Scope& s) {
      auto x = value(s);
      if (field.empty()) {
        s.levels.back()[name] = std::move(x);
        return;
      }
      auto* target = s.find(name);
      if (target == nullptr || !(*target)->is_object())
        fail("{}.{} is set, and {} is no namespace()", name, field, name);
      Json changed = **target;
      changed[field] = *x;
      *target = make(std::move(changed));
    });
  }

  /// With the template's name and line before a message, of the innermost statement.
  Statement placed(int line, Statement f) const {
    struct Placed : Error {
      using Error::Error;
    };
    return [f = std::move(f), where = fmt::format("{}, line {}", name_, line)](Scope& s) {
      try {
        f(s);
      } catch (const Placed&) {
        throw;
      } catch (const Error& error) {
        throw Placed(fmt::format("{}: {}", where, error.what()));
      }
    };
  }

  const std::vector<Piece>& pieces_;
  std::string name_;
  std::size_t at_ = 0;
  int loops_ = 0;
};

}  // namespace

JinjaTemplate::JinjaTemplate(const std::string& source, const std::string& name) {
  const auto pieces = Lexer(source, name).pieces();
  all_ = TemplateParser(pieces, name).all();
}

std::string JinjaTemplate::render(const Json& variables) const {
  Scope scope;
  scope.levels.emplace_back();
  for (const auto& [name, value] : variables.items()) scope.levels.back()[name] = make(value);
  all_(scope);
  return std::move(scope.out);
}

}  // namespace ratplus::serve
