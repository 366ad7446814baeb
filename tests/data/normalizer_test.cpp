// Normal forms of texts with long runs of marks, which take a way of their own, against ICU's.
#include <doctest/doctest.h>
#include <unicode/unorm2.h>
#include <unicode/ustring.h>

#include <array>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "data/tokenizer/word_cutter.h"

using namespace ratplus;

namespace {

std::string utf8(const std::u16string& wide) {
  std::string text(4 * wide.size() + 1, '\0');
  int32_t bytes = 0;
  UErrorCode error = U_ZERO_ERROR;
  u_strToUTF8(text.data(), static_cast<int32_t>(text.size()), &bytes, wide.data(),
              static_cast<int32_t>(wide.size()), &error);
  REQUIRE(U_SUCCESS(error));
  text.resize(static_cast<std::size_t>(bytes));
  return text;
}

std::string by_icu(const UNormalizer2* form, const std::u16string& wide) {
  std::u16string normal(4 * wide.size() + 16, u'\0');
  UErrorCode error = U_ZERO_ERROR;
  const auto units = unorm2_normalize(form, wide.data(), static_cast<int32_t>(wide.size()), normal.data(),
                                      static_cast<int32_t>(normal.size()), &error);
  REQUIRE(U_SUCCESS(error));
  normal.resize(static_cast<std::size_t>(units));
  return utf8(normal);
}

}  // namespace

TEST_CASE("normal forms: runs of marks of any length, in any order, on bases that compose and that do not") {
  // Of classes 230, 220, 216, 202, 240; U+0344 decomposes into two.
  constexpr std::array<char16_t, 8> marks = {0x0301, 0x0316, 0x0323, 0x0344, 0x031B, 0x0327, 0x0345, 0x0308};
  constexpr std::array<char16_t, 4> bases = {u'x', u'a', u'o', 0x1EA5};
  struct Form {
    const char* name;
    const UNormalizer2* (*instance)(UErrorCode*);
  };
  std::mt19937 random(5);
  for (const auto& form : {Form{"NFC", unorm2_getNFCInstance}, Form{"NFD", unorm2_getNFDInstance},
                           Form{"NFKC", unorm2_getNFKCInstance}, Form{"NFKD", unorm2_getNFKDInstance}}) {
    CAPTURE(std::string(form.name));
    UErrorCode error = U_ZERO_ERROR;
    const auto* icu = form.instance(&error);
    const auto normalizer = data::make_normalizer({{"type", form.name}}, "test");
    for (const std::size_t length : {1, 2, 31, 32, 33, 63, 64, 65, 66, 80, 200, 1000}) {
      for (const auto base : bases) {
        for (const bool two_kinds : {true, false}) {
          std::u16string wide = u"and ";
          wide += base;
          for (std::size_t i = 0; i < length; ++i)
            wide += two_kinds ? marks[i % 2] : marks[random() % marks.size()];
          wide += u" then";
          std::string text = utf8(wide);
          normalizer->apply(text);
          CAPTURE(length);
          CAPTURE(static_cast<int>(base));
          CHECK(text == by_icu(icu, wide));
        }
      }
    }
  }
}
