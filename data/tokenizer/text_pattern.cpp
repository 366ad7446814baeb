#include "data/tokenizer/text_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "base/error.h"

namespace ratplus::data {
namespace {

/// Unicode's White_Space, which is Oniguruma's \s; PCRE2 counts U+180E to it.
constexpr std::string_view white_space =
    R"(\t-\r\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// The expression in PCRE2's words. Of the escapes, only those pass that mean the same to both.
std::string translate(std::string_view expression, const std::string& where) {
  const auto refuse = [&](std::string_view what) {
    fail("{}: the expression {} has {}, which this program does not know; use another tokenizer", where,
         expression, what);
  };
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c == '\\' && i + 1 < expression.size()) {
      const char escaped = expression[++i];
      const bool same = std::string_view("rntfvpPx").find(escaped) != std::string_view::npos ||
                        (static_cast<unsigned char>(escaped) < 0x80 &&
                         std::isalnum(static_cast<unsigned char>(escaped)) == 0);
      if (escaped == 's') {
        out += in_class ? std::string(white_space) : "[" + std::string(white_space) + "]";
      } else if (escaped == 'S' && !in_class) {
        out += "[^" + std::string(white_space) + "]";
      } else if (same) {
        out += {c, escaped};
      } else {
        refuse(expression.substr(i - 1, 2));
      }
      continue;
    }
    if (in_class && (c == '[' || (c == '&' && expression.substr(i, 2) == "&&"))) refuse("a class in a class");
    // "a{2,3}+" repeats a repetition here, and is one without backtracking there.
    if (c == '}' && expression.substr(i, 2) == "}+") {
      const std::size_t open = expression.rfind('{', i);
      const auto inside = expression.substr(open + 1, i - open - 1);
      if (inside.find_first_not_of("0123456789,") == std::string_view::npos) refuse("{n,m}+");
    }
    if (!in_class && c == '[')
      in_class = true;
    else if (in_class && c == ']')
      in_class = false;
    out += c;
  }
  return out;
}

}  // namespace

struct TextPattern::Impl {
  struct FreeCode {
    void operator()(pcre2_code* compiled) const { pcre2_code_free(compiled); }
  };
  std::unique_ptr<pcre2_code, FreeCode> code;
  std::string where;
};

TextPattern::TextPattern(const std::string& expression, const std::string& where)
    : impl_(std::make_unique<Impl>()) {
  const std::string translated = translate(expression, where);
  int error = 0;
  PCRE2_SIZE at = 0;
  impl_->where = where;
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &at, nullptr));
  if (impl_->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(error, text.data(), text.size());
    fail("{}: the expression {} cannot be read: {}", where, expression,
         reinterpret_cast<const char*>(text.data()));
  }
  pcre2_jit_compile(impl_->code.get(),
                    PCRE2_JIT_COMPLETE);  // where there is no compiler, matching is only slower
}

TextPattern::~TextPattern() = default;
TextPattern::TextPattern(TextPattern&&) noexcept = default;
TextPattern& TextPattern::operator=(TextPattern&&) noexcept = default;

bool TextPattern::find(std::string_view text, std::size_t from, Match& match) const {
  // A thread's own room for results and for the compiled code's stack, which a long word needs.
  struct Room {
    pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
    pcre2_match_context* context = pcre2_match_context_create(nullptr);
    pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 64 << 20, nullptr);
    Room() { pcre2_jit_stack_assign(context, nullptr, stack); }
    ~Room() {
      pcre2_match_data_free(data);
      pcre2_match_context_free(context);
      pcre2_jit_stack_free(stack);
    }
  };
  thread_local const Room room;
  while (from < text.size()) {
    const int found = pcre2_match(impl_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                  from, PCRE2_NO_UTF_CHECK, room.data, room.context);
    if (found == PCRE2_ERROR_NOMATCH) return false;
    if (found < 0) {
      std::array<PCRE2_UCHAR, 256> words{};
      pcre2_get_error_message(found, words.data(), words.size());
      fail(
          "{}: its expression cannot be matched at byte {} of a text of {} bytes ({}); cut the text into "
          "shorter "
          "documents, or leave it out",
          impl_->where, from, text.size(), reinterpret_cast<const char*>(words.data()));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(room.data);
    match = {offsets[0], offsets[1]};
    if (match.end > match.begin) return true;
    from = match.end + 1;
    while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80) ++from;
  }
  return false;
}

}  // namespace ratplus::data
