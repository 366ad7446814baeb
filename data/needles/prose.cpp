#include "data/needles/prose.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "data/text/text_source.h"

namespace ratplus::data {
namespace {

bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool ends_sentence(std::string_view word) {
  static constexpr std::string_view closing[] = {"\"", "'", ")", "]", "\u201d", "\u2019"};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view mark : closing) {
      if (!word.ends_with(mark)) continue;
      word.remove_suffix(mark.size());
      again = true;
    }
  }
  return word.ends_with('.') || word.ends_with('!') || word.ends_with('?');
}

bool is_key_word(std::string_view word) {
  return word.size() >= 3 && word.size() <= 8 &&
         std::ranges::all_of(word, [](char c) { return c >= 'a' && c <= 'z'; });
}

}  // namespace

Prose Prose::read(const std::vector<std::filesystem::path>& inputs, const std::string& text_key,
                  std::vector<std::string>* notes) {
  const std::vector<TextFile> files = list_text_files(inputs, notes);
  Prose prose;
  TextSource source(whole_files(files), text_key);
  for (RawDocument raw; std::ssize(prose.text_) < most_bytes && source.next(raw);)
    prose.add(parse_document(std::move(raw), text_key).text);
  if (prose.words_.empty()) fail("{}: holds no word; give prose", inputs.front().string());
  return prose;
}

void Prose::add(std::string_view text) {
  text = text.substr(0, static_cast<std::size_t>(most_bytes - std::ssize(text_)));
  for (std::size_t at = 0; at < text.size();) {
    while (at < text.size() && is_blank(text[at])) ++at;
    const std::size_t begin = at;
    while (at < text.size() && !is_blank(text[at])) ++at;
    if (at == begin) break;
    words_.push_back({static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(at - begin)});
    text_.append(text, begin, at - begin);
  }
}

std::string_view Prose::word(std::int64_t i) const {
  const Word& word = words_[static_cast<std::size_t>(i)];
  return std::string_view(text_).substr(word.begin, word.bytes);
}

std::vector<std::string> Prose::sentences(std::int64_t first, std::int64_t count) const {
  require(words() > 0, "sentences of no prose");
  std::vector<std::string> all;
  bool open = false;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string_view next = word((first + i) % words());
    if (open) {
      all.back() += ' ';
      all.back() += next;
    } else {
      all.emplace_back(next);
    }
    open = !ends_sentence(next);
  }
  return all;
}

std::vector<std::string> Prose::frequent_words(std::int64_t skipped, std::int64_t most) const {
  std::unordered_map<std::string_view, std::int64_t> counts;
  for (std::int64_t i = 0; i < words(); ++i) {
    if (is_key_word(word(i))) ++counts[word(i)];
  }
  std::vector<std::pair<std::int64_t, std::string_view>> order;
  order.reserve(counts.size());
  for (const auto& [name, count] : counts) order.emplace_back(-count, name);
  std::ranges::sort(order);
  std::vector<std::string> found;
  for (std::int64_t i = skipped; i < std::ssize(order) && std::ssize(found) < most; ++i)
    found.emplace_back(order[static_cast<std::size_t>(i)].second);
  return found;
}

}  // namespace ratplus::data
