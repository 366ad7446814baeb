#include "lib/serve/jinja.h"

#include <fmt/core.h>

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "lib/serve/jinja_expressions.h"
#include "lib/serve/jinja_lexer.h"
#include "lib/serve/jinja_values.h"

namespace ratplus::serve {

namespace jinja {

namespace {

using Statement = JinjaTemplate::Statement;

constexpr std::int64_t most_steps = 1'000'000;

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

}  // namespace jinja

JinjaTemplate::JinjaTemplate(const std::string& source, const std::string& name) {
  const auto pieces = jinja::pieces_of(source, name);
  all_ = jinja::TemplateParser(pieces, name).all();
}

std::string JinjaTemplate::render(const nlohmann::ordered_json& variables) const {
  Scope scope;
  scope.levels.emplace_back();
  for (const auto& [name, value] : variables.items()) scope.levels.back()[name] = jinja::make(value);
  all_(scope);
  return std::move(scope.out);
}

}  // namespace ratplus::serve
