#include "data/tokenizer/added_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_dump.h"
#include "base/json_int32.h"

namespace ratplus::data {
namespace {

using Json = nlohmann::json;

/// Bytes of the white space (Unicode's White_Space) that `text` begins with; 0 if none.
std::size_t leading_space(std::string_view text) {
  if (text.empty()) return 0;
  const auto first = static_cast<unsigned char>(text[0]);
  if (first == ' ' || (first >= '\t' && first <= '\r')) return 1;
  for (const std::string_view two : {"\xC2\x85", "\xC2\xA0"}) {
    if (text.starts_with(two)) return 2;
  }
  for (const std::string_view three :
       {"\xE1\x9A\x80", "\xE2\x80\xA8", "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"}) {
    if (text.starts_with(three)) return 3;
  }
  const bool quad =
      text.starts_with("\xE2\x80") && text.size() > 2 && static_cast<unsigned char>(text[2]) <= 0x8A;
  return quad ? 3 : 0;  // U+2000 to U+200A
}

/// Where the white space begins that `text` ends with.
std::size_t trailing_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t begin = end - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (leading_space(text.substr(begin, end - begin)) != end - begin) break;
    end = begin;
  }
  return end;
}

}  // namespace

void AddedTokens::Finder::add(std::string content, const AddedToken& token) {
  if (content.empty()) return;
  const auto first = static_cast<unsigned char>(content.front());
  by_first_[first].push_back({std::move(content), token});
}

void AddedTokens::Finder::finish() {
  for (std::size_t byte = 0; byte < 256; ++byte) {
    auto& entries = by_first_[byte];
    std::stable_sort(entries.begin(), entries.end(),
                     [](const Entry& a, const Entry& b) { return a.content < b.content; });
    if (!entries.empty()) first_bytes_ += static_cast<char>(byte);
  }
}

const AddedTokens::Finder::Entry* AddedTokens::Finder::match(std::string_view text) const {
  // Sorted entries that begin as the text does stand together: each further byte narrows their range.
  const auto& entries = by_first_[static_cast<unsigned char>(text.front())];
  auto begin = entries.begin();
  auto end = entries.end();
  const Entry* longest = nullptr;
  for (std::size_t depth = 1; begin != end; ++depth) {
    if (begin->content.size() == depth) {
      longest = &*begin;
      while (begin != end && begin->content.size() == depth)
        ++begin;  // the same content again: the first one counts
    }
    if (depth == text.size()) break;
    const auto byte = [depth](const Entry& entry) {
      return static_cast<unsigned char>(entry.content[depth]);
    };
    const auto wanted = static_cast<unsigned char>(text[depth]);
    begin = std::partition_point(begin, end, [&](const Entry& entry) { return byte(entry) < wanted; });
    end = std::partition_point(begin, end, [&](const Entry& entry) { return byte(entry) == wanted; });
  }
  return longest;
}

template <typename Words, typename Token>
void AddedTokens::Finder::cut(std::string_view text, const Words& words, const Token& token) const {
  std::size_t done = 0;
  if (!first_bytes_.empty()) {
    for (std::size_t at = text.find_first_of(first_bytes_); at != std::string_view::npos;) {
      const Entry* found = match(text.substr(at));
      std::size_t next = at + 1;
      if (found != nullptr) {
        next = at + found->content.size();
        std::size_t begin = at;
        if (found->token.takes_left_blanks) begin = done + trailing_space(text.substr(done, at - done));
        if (done < begin) words(text.substr(done, begin - done), done == 0);
        token(found->token.id);
        done = next;
        while (found->token.takes_right_blanks && leading_space(text.substr(done)) > 0) {
          done += leading_space(text.substr(done));
        }
        next = std::max(next, done);
      }
      at = text.find_first_of(first_bytes_, next);
    }
  }
  if (done < text.size()) words(text.substr(done), done == 0);
}

AddedTokens::AddedTokens(const Json& json, const Normalizer* normalizer, const std::string& file)
    : normalizer_(normalizer) {
  for (const Json& entry : json) {
    if (!int32_of(entry.at("id")))
      fail("{}: the added token {} has the id {}", file, json_dump(entry.at("content")),
           json_dump(entry.at("id")));
    const AddedToken token{.content = entry.at("content").get<std::string>(),
                           .id = entry.at("id").get<std::int32_t>(),
                           .takes_left_blanks = entry.value("lstrip", false),
                           .takes_right_blanks = entry.value("rstrip", false),
                           .special = entry.value("special", false)};
    if (entry.value("single_word", false)) {
      fail("{}: added token \"{}\" is for single words (single_word), which this program does not implement",
           file, token.content);
    }
    if (token.id < 0) fail("{}: added token \"{}\" has the id {}", file, token.content, token.id);
    tokens_.push_back(token);
    if (entry.value("normalized", !entry.value("special", false)) && normalizer != nullptr) {
      std::string content = token.content;
      normalizer->apply(content);
      in_normalized_.add(content, token);
    } else if (entry.value("normalized", !entry.value("special", false))) {
      in_normalized_.add(token.content, token);
    } else {
      in_text_.add(token.content, token);
    }
  }
  in_text_.finish();
  in_normalized_.finish();
}

void AddedTokens::cut(std::string_view text, const std::function<void(std::string_view, bool)>& words,
                      const std::function<void(std::int32_t)>& token) const {
  in_text_.cut(
      text,
      [&](std::string_view part, bool at_start) {
        std::string normalized;
        if (normalizer_ != nullptr) {
          normalized = part;
          normalizer_->apply(normalized);
          part = normalized;
        }
        in_normalized_.cut(
            part, [&](std::string_view rest, bool first) { words(rest, at_start && first); }, token);
      },
      token);
}

}  // namespace ratplus::data
