#include "lib/generate/text_scores.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/utf8.h"

namespace ratplus::generate {
namespace {

/// Well-formed text as code points; U+FFFD for bytes that are none.
std::u32string code_points(std::string_view text) {
  std::u32string points;
  while (!text.empty()) {
    const Utf8Scan scan = scan_utf8(text);
    const auto byte = [&](int i) { return static_cast<unsigned char>(text[std::size_t(i)]); };
    char32_t point = 0xFFFD;
    if (scan.well_formed) {
      point = scan.bytes == 1 ? byte(0) : byte(0) & (0x7F >> scan.bytes);
      for (int i = 1; i < scan.bytes; ++i) point = (point << 6) | (byte(i) & 0x3F);
    }
    points += point;
    text.remove_prefix(std::size_t(scan.bytes));
  }
  return points;
}

bool within(char32_t c, char32_t first, char32_t last) {
  return c >= first && c <= last;
}

/// As Python's str.split.
bool is_space(char32_t c) {
  return c == ' ' || within(c, '\t', '\r') || within(c, 0x1C, 0x1F) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || within(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

/// Python's string.punctuation.
bool is_punctuation(char32_t c) {
  return within(c, '!', '/') || within(c, ':', '@') || within(c, '[', '`') || within(c, '{', '~');
}

/// Whether a regular expression sees a part of a word in c, which is no ASCII punctuation: all but white space, controls, and the
/// signs of Latin-1 and of the blocks from general punctuation to arrows.
bool is_of_word(char32_t c) {
  if (is_space(c) || c < 0x20 || within(c, 0x7F, 0x9F)) return false;
  if (within(c, 0xA0, 0xBF))
    return c == 0xAA || c == 0xB5 || c == 0xBA || within(c, 0xB2, 0xB3) || c == 0xB9 || within(c, 0xBC, 0xBE);
  if (c == 0xD7 || c == 0xF7 || c == 0xFFFD) return false;
  return !within(c, 0x2000, 0x206F) && !within(c, 0x20A0, 0x20CF) && !within(c, 0x2190, 0x23FF) &&
         !within(c, 0x2500, 0x2BFF) && !within(c, 0x3000, 0x3004) && !within(c, 0x3008, 0x3020);
}

char32_t lower(char32_t c) {
  if (within(c, 'A', 'Z') || (within(c, 0xC0, 0xDE) && c != 0xD7)) return c + 0x20;
  if (within(c, 0x100, 0x12F) || within(c, 0x132, 0x137) || within(c, 0x14A, 0x177)) return c | 1;
  if (within(c, 0x139, 0x148) || within(c, 0x179, 0x17E)) return c + (c & 1);
  if (c == 0x178) return 0xFF;
  if (within(c, 0x391, 0x3A9) || within(c, 0x410, 0x42F)) return c + 0x20;
  if (within(c, 0x400, 0x40F)) return c + 0x50;
  return c;
}

using Words = std::vector<std::u32string>;

Words cut_at_space(const std::u32string& text) {
  Words words;
  bool inside = false;
  for (const char32_t c : text) {
    if (!is_space(c)) {
      if (!inside) words.emplace_back();
      words.back() += c;
    }
    inside = !is_space(c);
  }
  return words;
}

/// normalize_answer of LongBench, as words.
Words normalized(std::string_view text) {
  std::u32string kept;
  for (const char32_t c : code_points(text)) {
    if (!is_punctuation(c)) kept += lower(c);
  }
  std::u32string all;
  for (std::size_t i = 0; i < kept.size();) {
    auto end = i;
    while (end < kept.size() && is_of_word(kept[end])) ++end;
    const auto word = kept.substr(i, end - i);
    if (word == U"a" || word == U"an" || word == U"the") {
      all += U' ';
    } else {
      all += word;
    }
    if (end < kept.size()) all += kept[end++];
    i = end;
  }
  return cut_at_space(all);
}

/// Sentences as rouge takes them: parts between points, but for empty ones. One of white space alone is a word, which is empty.
std::vector<Words> sentences_of(std::string_view text) {
  std::vector<Words> sentences;
  std::u32string sentence;
  const auto end = [&] {
    if (sentence.empty()) return;
    sentences.push_back(cut_at_space(sentence));
    if (sentences.back().empty()) sentences.back().emplace_back();
    sentence.clear();
  };
  for (const char32_t c : code_points(text)) {
    if (c == '.') {
      end();
    } else {
      sentence += c;
    }
  }
  end();
  return sentences;
}

std::set<std::u32string> different_words(const std::vector<Words>& sentences) {
  std::set<std::u32string> words;
  for (const Words& sentence : sentences) words.insert(sentence.begin(), sentence.end());
  return words;
}

/// Adds to `words` those of a longest common subsequence; of several, the one that rouge takes.
void add_common(const Words& reference, const Words& answer, std::set<std::u32string>& words) {
  const std::size_t columns = answer.size() + 1;
  std::vector<int> length((reference.size() + 1) * columns, 0);
  const auto at = [&](std::size_t i, std::size_t j) -> int& { return length[i * columns + j]; };
  for (std::size_t i = 1; i <= reference.size(); ++i) {
    for (std::size_t j = 1; j <= answer.size(); ++j)
      at(i, j) =
          reference[i - 1] == answer[j - 1] ? at(i - 1, j - 1) + 1 : std::max(at(i - 1, j), at(i, j - 1));
  }
  for (std::size_t i = reference.size(), j = answer.size(); i > 0 && j > 0;) {
    if (reference[i - 1] == answer[j - 1]) {
      words.insert(reference[i - 1]);
      --i, --j;
    } else if (at(i - 1, j) > at(i, j - 1)) {
      --i;
    } else {
      --j;
    }
  }
}

}  // namespace

double qa_f1(std::string_view answer, std::string_view reference) {
  const Words ours = normalized(answer), theirs = normalized(reference);
  std::map<std::u32string, int> left;
  for (const auto& word : theirs) ++left[word];
  int common = 0;
  for (const auto& word : ours) {
    const auto found = left.find(word);
    if (found == left.end() || found->second == 0) continue;
    --found->second;
    ++common;
  }
  if (common == 0) return 0;
  const double precision = common / double(ours.size()), recall = common / double(theirs.size());
  return 2 * precision * recall / (precision + recall);
}

double rouge_l(std::string_view answer, std::string_view reference) {
  const auto ours = sentences_of(answer), theirs = sentences_of(reference);
  if (ours.empty() || theirs.empty()) return 0;
  std::set<std::u32string> common;
  for (const Words& sentence : theirs) {
    for (const Words& other : ours) add_common(sentence, other, common);
  }
  const auto count = double(common.size());
  const double precision = count / double(different_words(ours).size()),
               recall = count / double(different_words(theirs).size());
  return 2 * (precision * recall / (precision + recall + 1e-8));
}

}  // namespace ratplus::generate
