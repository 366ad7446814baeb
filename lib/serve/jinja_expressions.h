// Expressions of templates, parsed to closures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/serve/jinja.h"
#include "lib/serve/jinja_lexer.h"
#include "lib/serve/jinja_operations.h"
#include "lib/serve/jinja_values.h"

namespace ratplus::serve {

/// The state of a rendering: variables by level, and the text so far.
struct JinjaTemplate::Scope {
  std::vector<std::map<std::string, jinja::Value>> levels;  ///< the innermost last
  std::string out = {};
  std::int64_t steps = 0;
  enum class Leave : std::uint8_t { none, next, loop } leave = Leave::none;  ///< by continue or break

  jinja::Value* find(const std::string& name) {
    for (auto level = levels.rbegin(); level != levels.rend(); ++level) {
      if (const auto found = level->find(name); found != level->end()) return &found->second;
    }
    return nullptr;
  }
};

namespace jinja {

using Scope = JinjaTemplate::Scope;
using Eval = std::function<Value(Scope&)>;

struct Argument {
  std::string name;  ///< empty: by its place
  Eval value;
};

/// Parses the words of one piece to closures. Throws Error "NAME, line N: ..." for a fault.
class ExpressionParser {
 public:
  ExpressionParser(const std::vector<Word>& words, const std::string& name) : words_(words), name_(name) {}

  const Word& now() const { return words_[at_]; }
  bool is(std::string_view text) const;
  bool take(std::string_view text);
  void need(std::string_view text);
  std::string need_name();
  void need_end() const;
  std::string shown() const;
  [[noreturn]] void bad(const std::string& what) const;

  /// a if b else c
  Eval expression();

  /// Without `if`, which is a loop's filter.
  Eval disjunction();

 private:
  Eval conjunction();
  Eval negation();
  Eval comparison();
  Eval sum_of_terms();
  Eval concatenation();
  Eval product();
  Eval unary();
  Eval postfix();
  Eval call_method(const Eval& x, const std::string& name);
  Eval subscript(const Eval& x);
  std::vector<Argument> arguments_of();
  static Arguments evaluated(const std::vector<Argument>& arguments, Scope& s);
  Eval constant(Json json);
  Eval primary();
  Eval name(const std::string& name);
  Eval list();
  Eval dictionary();

  const std::vector<Word>& words_;
  const std::string& name_;
  std::size_t at_ = 0;
};

}  // namespace jinja

}  // namespace ratplus::serve
