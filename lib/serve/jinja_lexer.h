// Templates cut into their pieces and words.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ratplus::serve::jinja {

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

/// Cuts a template into texts, {{ outputs }} and {% statements %}, the words of the last two ended by Kind::end. Throws Error
/// "NAME, line N: ..." where one has no end, or a character is none of the language.
std::vector<Piece> pieces_of(const std::string& source, const std::string& name);

}  // namespace ratplus::serve::jinja
