#include "lib/serve/jinja_lexer.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "lib/serve/jinja_values.h"

namespace ratplus::serve::jinja {

namespace {

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

}  // namespace

std::vector<Piece> pieces_of(const std::string& source, const std::string& name) {
  return Lexer(source, name).pieces();
}

}  // namespace ratplus::serve::jinja
