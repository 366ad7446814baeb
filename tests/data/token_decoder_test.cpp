// TokenDecoder: the text of tokens one by one is that of all at once, of every kind of tokenizer.
#include <doctest/doctest.h>
#include <sentencepiece_trainer.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/parse_json.h"
#include "base/utf8.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/train_tokenizer.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::prose;
using test::Scratch;

namespace {

using Tokens = std::vector<std::int32_t>;

const auto directory = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers";

std::string whole(const Tokenizer& tokenizer, const Tokens& tokens) {
  Tokens plain;
  for (const std::int32_t token : tokens) {
    if (!tokenizer.is_special(token)) plain.push_back(token);
  }
  return tokenizer.decode(plain);
}

void check_pieces(const Tokenizer& tokenizer, const Tokens& tokens) {
  TokenDecoder decoder(tokenizer);
  for (int round = 0; round < 2; ++round) {  // the second after finish()
    std::string text;
    for (const std::int32_t token : tokens) {
      const std::string piece = decoder.add(token);
      CHECK(is_utf8(piece));
      text += piece;
    }
    text += decoder.finish();
    CHECK(text == whole(tokenizer, tokens));
  }
}

/// Lists of tokens: of any, of those below 300 mostly (bytes, in vocabularies that have them), of encoded text.
void check_tokenizer(const Tokenizer& tokenizer, bool prompt) {
  std::mt19937 random(7);
  const auto size = static_cast<unsigned>(tokenizer.vocab_size());
  for (int i = 0; i < 300; ++i) {
    Tokens tokens(random() % 24);
    for (std::int32_t& token : tokens) {
      token = static_cast<std::int32_t>(
          random() % (random() % 4 < static_cast<unsigned>(i % 4) ? std::min(300U, size) : size));
    }
    CAPTURE(i);
    check_pieces(tokenizer, tokens);
  }
  Tokens tokens;
  for (const std::string& text : {prose(3, 20), std::string(" leading"), std::string("   three  blanks "),
                                  std::string("\u2581 \u2581\u2581a"),
                                  std::string("\U0001F680\U0001F469\u200D\U0001F680 日本語 हिन्दी \u0301"),
                                  std::string("\uFFFD\U0010FFFF")}) {
    tokenizer.encode(text, tokens);
    check_pieces(tokenizer, tokens);
    // As soon as a token ends a character, all is given.
    TokenDecoder decoder(tokenizer);
    std::string given;
    for (std::size_t n = 1; n <= tokens.size(); ++n) {
      given += decoder.add(tokens[n - 1]);
      const std::string so_far =
          whole(tokenizer, {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(n)});
      CHECK(so_far.starts_with(given));
      if (prompt && !contains(so_far, "\uFFFD")) CHECK(given == so_far);
    }
  }
}

/// A SentencePiece model of these options.
std::string trained(const Scratch& scratch, const std::string& options) {
  test::write_text(scratch / "text", prose(1, 4000));
  const std::string model = (scratch / "m").string();
  REQUIRE(sentencepiece::SentencePieceTrainer::Train(
              "--minloglevel=2 --hard_vocab_limit=false --input=" + (scratch / "text").string() +
              " --model_prefix=" + model + " " + options)
              .ok());
  return model + ".model";
}

}  // namespace

TEST_CASE("token decoder: SentencePiece models, whatever they do with blanks and unknown characters") {
  const Scratch scratch;
  for (const char* options :
       {"--model_type=bpe --vocab_size=400 --byte_fallback --normalization_rule_name=identity "
        "--remove_extra_whitespaces=false",
        "--model_type=bpe --vocab_size=400 --byte_fallback --add_dummy_prefix=false "
        "--remove_extra_whitespaces=false",
        "--model_type=bpe --vocab_size=400 --byte_fallback",
        "--model_type=bpe --vocab_size=150 --add_dummy_prefix=false",
        "--model_type=bpe --vocab_size=150 --treat_whitespace_as_suffix=true",
        "--model_type=unigram --vocab_size=120 --unk_surface=?? --control_symbols=<turn> "
        "--user_defined_symbols=\u2581x\u2581",
        "--model_type=bpe --vocab_size=150 --unk_surface="}) {
    CAPTURE(options);
    const Tokenizer tokenizer(trained(scratch, options));
    check_tokenizer(tokenizer, true);
    CHECK(tokenizer.is_special(1));
    CHECK(tokenizer.is_special(2));
    CHECK_FALSE(tokenizer.is_special(0));  // <unk> has a text
  }
}

TEST_CASE("token decoder: a SentencePiece model that rewrites whole texts gives them at the end") {
  const Scratch scratch;
  test::write_text(scratch / "rules.tsv", "74 68 65\t54 48 45\n");  // the: THE
  const Tokenizer tokenizer(trained(scratch, "--model_type=bpe --vocab_size=150 --denormalization_rule_tsv=" +
                                                 (scratch / "rules.tsv").string()));
  Tokens tokens;
  tokenizer.encode("whether the gate", tokens);
  CHECK(tokenizer.decode(tokens) == "wheTHEr THE gate");
  check_pieces(tokenizer, tokens);
  check_tokenizer(tokenizer, false);
}

TEST_CASE("token decoder: tokenizer.json files of every kind") {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().filename() == "references.json") continue;
    CAPTURE(entry.path().string());
    check_tokenizer(Tokenizer(entry.path()), true);
  }
}

TEST_CASE("token decoder: special tokens are no text, other added tokens are") {
  const Tokenizer mixed(directory / "mixed.json");
  CHECK(mixed.is_special(700));
  CHECK_FALSE(mixed.is_special(702));
  TokenDecoder decoder(mixed);
  CHECK(decoder.add(700) == "");
  CHECK(decoder.add(702) == "user");
  const Tokenizer llama(directory / "llama2.json");
  Tokens tokens;
  llama.encode("of the", tokens);
  tokens.insert(tokens.begin(), 1);
  tokens.push_back(2);
  TokenDecoder between(llama);
  std::string text;
  for (const std::int32_t token : tokens) text += between.add(token);
  CHECK(text + between.finish() == "of the");
}

TEST_CASE("token decoder: characters in bytes come whole, and U+FFFD for what can be none") {
  const Tokenizer llama(directory / "llama2.json");
  Tokens byte(256);
  const auto json = parse_json(test::read_text(directory / "llama2.json"));
  for (int i = 0; i < 256; ++i)
    byte[static_cast<std::size_t>(i)] = json["model"]["vocab"][fmt::format("<0x{:02X}>", i)];
  TokenDecoder decoder(llama);
  CHECK(decoder.add(byte[0xF0]) == "");
  CHECK(decoder.add(byte[0x9F]) == "");
  CHECK(decoder.add(byte[0x9A]) == "");
  CHECK(decoder.add(byte[0x80]) == "\U0001F680");
  CHECK(decoder.add(byte[0xE2]) == "");
  CHECK(decoder.add(byte['a']) == "\uFFFDa");
  CHECK(decoder.add(byte[0x80]) == "\uFFFD");
  CHECK(decoder.add(byte[0xC3]) == "");
  CHECK(decoder.finish() == "\uFFFD");
}

TEST_CASE("token decoder: time is linear in the tokens, and ids outside the vocabulary are refused") {
  const Scratch scratch;
  for (const bool json : {false, true}) {
    const Tokenizer tokenizer(
        json ? directory / "llama2.json"
             : std::filesystem::path(trained(scratch, "--model_type=bpe --vocab_size=400 --byte_fallback")));
    const std::int32_t blank = [&] {  // a piece that decodes to nothing at the beginning of a text
      Tokens tokens;
      tokenizer.encode("a b", tokens);
      return tokens.front();
    }();
    TokenDecoder decoder(tokenizer);
    std::size_t bytes = 0;
    for (int i = 0; i < 1'000'000; ++i) bytes += decoder.add(i % 3 == 0 ? 2 : blank).size();
    CHECK(bytes > 0);
    CHECK(contains(message_of([&] { decoder.add(-1); }), "token id -1 is outside the vocabulary of "));
    const auto size = static_cast<std::int32_t>(tokenizer.vocab_size());
    CHECK(contains(message_of([&] { decoder.add(size); }), "is outside the vocabulary of "));
    CHECK(contains(message_of([&] { static_cast<void>(tokenizer.is_special(size)); }), "is outside"));
  }
}
