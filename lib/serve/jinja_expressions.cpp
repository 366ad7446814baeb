#include "lib/serve/jinja_expressions.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "base/error.h"

namespace ratplus::serve::jinja {

namespace {

template <typename Map>
std::string names_of(const Map& map) {
  std::vector<std::string> names;
  for (const auto& [name, value] : map) names.push_back(name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

bool ExpressionParser::is(std::string_view text) const {
  return (now().kind == Kind::sign || now().kind == Kind::name) && now().text == text;
}

bool ExpressionParser::take(std::string_view text) {
  if (!is(text)) return false;
  ++at_;
  return true;
}

void ExpressionParser::need(std::string_view text) {
  if (!take(text)) bad(fmt::format("{} is expected, and there is {}", text, shown()));
}

std::string ExpressionParser::need_name() {
  if (now().kind != Kind::name) bad(fmt::format("a name is expected, and there is {}", shown()));
  return words_[at_++].text;
}

void ExpressionParser::need_end() const {
  if (now().kind != Kind::end) bad(fmt::format("{} is not expected here", shown()));
}

std::string ExpressionParser::shown() const {
  return now().kind == Kind::end ? "the end" : fmt::format("\"{}\"", now().text);
}

void ExpressionParser::bad(const std::string& what) const {
  fail("{}, line {}: {}", name_, now().line, what);
}

Eval ExpressionParser::expression() {
  auto value = disjunction();
  while (take("if")) {
    auto condition = disjunction();
    Eval other = [](Scope&) { return undefined(); };
    if (take("else")) other = expression();
    value = [value, condition, other](Scope& s) { return truth(*condition(s)) ? value(s) : other(s); };
  }
  return value;
}

Eval ExpressionParser::disjunction() {
  auto left = conjunction();
  while (take("or")) {
    left = [left, right = conjunction()](Scope& s) {
      auto x = left(s);
      return truth(*x) ? x : right(s);
    };
  }
  return left;
}

Eval ExpressionParser::conjunction() {
  auto left = negation();
  while (take("and")) {
    left = [left, right = negation()](Scope& s) {
      auto x = left(s);
      return truth(*x) ? right(s) : x;
    };
  }
  return left;
}

Eval ExpressionParser::negation() {
  if (!take("not")) return comparison();
  return [x = negation()](Scope& s) { return make(!truth(*x(s))); };
}

Eval ExpressionParser::comparison() {
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

Eval ExpressionParser::sum_of_terms() {
  auto left = concatenation();
  while (is("+") || is("-")) {
    const auto sign = words_[at_++].text;
    left = Eval(
        [left, right = concatenation(), sign](Scope& s) { return arithmetic(sign, *left(s), *right(s)); });
  }
  return left;
}

Eval ExpressionParser::concatenation() {
  auto left = product();
  while (take("~")) {
    left = Eval([left, right = product()](Scope& s) { return make(to_text(*left(s)) + to_text(*right(s))); });
  }
  return left;
}

Eval ExpressionParser::product() {
  auto left = unary();
  while (is("*") || is("/") || is("//") || is("%")) {
    const auto sign = words_[at_++].text;
    left = Eval([left, right = unary(), sign](Scope& s) { return arithmetic(sign, *left(s), *right(s)); });
  }
  return left;
}

Eval ExpressionParser::unary() {
  if (take("-")) {
    return Eval([x = unary()](Scope& s) { return arithmetic("-", Json(0), *x(s)); });
  }
  return postfix();
}

Eval ExpressionParser::postfix() {
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

Eval ExpressionParser::call_method(const Eval& x, const std::string& name) {
  const auto found = methods().find(name);
  if (found == methods().end())
    bad(fmt::format("the method \"{}\" is not supported; there are {}", name, names_of(methods())));
  return Eval([x, arguments = arguments_of(), f = found->second](Scope& s) {
    const auto value = x(s);
    return f(value, evaluated(arguments, s));
  });
}

Eval ExpressionParser::subscript(const Eval& x) {
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

std::vector<Argument> ExpressionParser::arguments_of() {
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

Arguments ExpressionParser::evaluated(const std::vector<Argument>& arguments, Scope& s) {
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

Eval ExpressionParser::constant(Json json) {
  return [value = make(std::move(json))](Scope&) { return value; };
}

Eval ExpressionParser::primary() {
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

Eval ExpressionParser::name(const std::string& name) {
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
    return Eval(
        [arguments = arguments_of(), f = function->second](Scope& s) { return f(evaluated(arguments, s)); });
  }
  const bool is_function = function != functions().end();
  return [name, is_function](Scope& s) {
    const auto* found = s.find(name);
    return found != nullptr ? *found : is_function ? make(true) : undefined();
  };
}

Eval ExpressionParser::list() {
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

Eval ExpressionParser::dictionary() {
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

}  // namespace ratplus::serve::jinja
