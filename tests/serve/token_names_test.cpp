// The names of tokens, for every kind of tokenizer.
#include "lib/serve/token_names.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "base/utf8.h"
#include "tests/serve/served.h"

using namespace ratplus;

namespace {

namespace fs = std::filesystem;

/// Bytes of a name that stands for a part of a character: "bytes:\xe2\x96".
std::string bytes_of_name(const std::string& name) {
  if (!name.starts_with("bytes:\\x")) return name;
  std::string bytes;
  for (std::size_t at = 6; at + 4 <= name.size(); at += 4)
    bytes += static_cast<char>(std::stoi(name.substr(at + 2, 2), nullptr, 16));
  return bytes;
}

}  // namespace

TEST_CASE("the names of a text's tokens are its bytes, and their characters its characters") {
  const std::string text = " The answer, é日本語 😀 of\nit.";
  int kinds = 0;
  for (const char* kind : {"gpt2", "llama2", "llama3", "mistral", "neox", "qwen"}) {
    CAPTURE(std::string(kind));
    generate::ModelText model;
    model.tokenizer.emplace(fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers" /
                            (std::string(kind) + ".json"));
    model.model_tokens = model.tokenizer->vocab_size() + 2;
    const serve::TokenNames names(model);
    std::vector<std::int32_t> tokens;
    model.tokenizer->encode(text, tokens);
    std::string bytes;
    std::int64_t characters = 0;
    for (const auto token : tokens) {
      CHECK(is_utf8(names.name(token)));
      bytes += bytes_of_name(names.name(token));
      characters += names.characters(token);
    }
    const bool blank = bytes == " " + text;  // that the tokenizer puts before a text
    CHECK((bytes == text || blank));
    CHECK(characters == 26 + (blank ? 1 : 0));
    CHECK(names.name(static_cast<std::int32_t>(model.model_tokens - 1)) ==
          "token_id:" + std::to_string(model.model_tokens - 1));
    ++kinds;
  }
  CHECK(kinds == 6);
}

TEST_CASE("special tokens and bytes of a SentencePiece model have names") {
  const serve::TokenNames names(test::SmallModel::text());
  CHECK(names.name(2) == "</s>");
  CHECK(names.characters(2) == 0);
  CHECK(names.name(3 + 'a') == "a");
  CHECK(names.name(3 + 0xE2) == "bytes:\\xe2");
  CHECK(names.name(3 + 0x96) == "bytes:\\x96");
  CHECK(names.characters(3 + 0xE2) == 1);
  CHECK(names.characters(3 + 0x96) == 0);
}
