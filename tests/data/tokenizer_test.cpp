#include "data/tokenizer/tokenizer.h"

#include <doctest/doctest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "base/files/sha256.h"
#include "data/tokenizer/sentencepiece_cut.h"
#include "data/tokenizer/train_tokenizer.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::prose;
using test::Scratch;

namespace {

std::function<bool(std::string&)> documents(std::vector<std::string> texts) {
  return [texts = std::move(texts), next = std::size_t{0}](std::string& text) mutable {
    if (next == texts.size()) return false;
    text = texts[next++];
    return true;
  };
}

std::string train(std::int64_t vocab_size, double share = 1) {
  return train_tokenizer({.vocab_size = vocab_size, .line_share = share},
                         documents({prose(1, 4000), "", "\n\n", prose(2, 3000), std::string(9000, 'x')}));
}

/// One model for the tests that only use it.
const std::string& small_model() {
  static const std::string model = train(400);
  return model;
}

struct Fixture {
  Fixture() { test::write_text(scratch / "m.model", small_model()); }
  Scratch scratch;
};

}  // namespace

TEST_CASE("long texts may be cut for the models that are trained here, so that their memory is bounded") {
  const auto cut = sentencepiece_cut(small_model());
  CHECK(cut.allowed);
  CHECK(cut.adds_blank);
}

TEST_CASE("SHA-256: known answers (FIPS 180-4 examples), and any pieces") {
  CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1'000'000, 'a');
  CHECK(sha256_hex(million) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Sha256 pieces;
  for (std::size_t at = 0, size = 1; at < million.size(); at += size, size = size % 200 + 1) {
    pieces.update(std::string_view(million).substr(at, size));
  }
  CHECK(pieces.hex() == sha256_hex(million));
}

TEST_CASE("tokenizer: training gives the same model each time, of the size asked for") {
  CHECK(train(400) == small_model());
  CHECK(train(420) != small_model());
  Fixture fixture;
  const Tokenizer tokenizer(fixture.scratch / "m.model");
  CHECK(tokenizer.vocab_size() == 400);
  CHECK(tokenizer.end_of_text() == 2);
  CHECK(tokenizer.identity() == "sentencepiece:sha256:" + sha256_hex(small_model()));
}

TEST_CASE("tokenizer: a share of the lines is evenly spread") {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += std::string(1, static_cast<char>('a' + i % 10)) + "\n";
  // With every tenth line, one letter is all there is: three special pieces, 256 bytes, "_", "x", "_x".
  const std::string message =
      message_of([&] { train_tokenizer({.vocab_size = 1000, .line_share = 0.1}, documents({text})); });
  CHECK(contains(message, "gives at most 262;"));
}

TEST_CASE("tokenizer: hard text comes back as it was, spelt in bytes where need be") {
  Fixture fixture;
  const Tokenizer tokenizer(fixture.scratch / "m.model");
  std::vector<std::int32_t> ids;
  std::string controls;
  for (char c = 1; c < 32; ++c) controls += c;
  for (const std::string& text :
       {prose(3, 50), std::string("the gate"), std::string(" leading"), std::string("trailing  "),
        std::string("  two  blanks\n\n\tand lines\r\n"),
        std::string("\U0001F680\U0001F469\u200D\U0001F680 emoji"), std::string("日本語 العربية हिन्दी \u0301"),
        controls, std::string("nul \0 inside", 12), std::string("\uFFFD\U0010FFFF\x7F"),
        std::string("<unk> <s> </s> <0x0A>"), std::string()}) {
    CAPTURE(text);
    tokenizer.encode(text, ids);
    CHECK(tokenizer.decode(ids) == text);
    for (const std::int32_t id : ids) CHECK(id > 2);  // no unknown, begin or end in any text
  }
  tokenizer.encode("2048", ids);
  CHECK(ids.size() == 5);  // a blank and four digits
}

TEST_CASE("tokenizer: a long text is encoded in parts to the tokens of the whole") {
  Fixture fixture;
  const Tokenizer tokenizer(fixture.scratch / "m.model");
  sentencepiece::SentencePieceProcessor reference;
  REQUIRE(reference.LoadFromSerializedProto(small_model()).ok());
  for (const std::string& text : {prose(4, 40'000), std::string(150'000, 'a'),
                                  prose(5, 12'000) + std::string(3000, ' ') + prose(6, 20'000)}) {
    REQUIRE(text.size() > 65536);
    std::vector<std::int32_t> ids;
    std::vector<int> expected;
    tokenizer.encode(text, ids);
    REQUIRE(reference.Encode(text, &expected).ok());
    CHECK(std::equal(ids.begin(), ids.end(), expected.begin(), expected.end()));
    CHECK(tokenizer.decode(ids) == text);
  }
}

TEST_CASE("tokenizer: bad files, ids and training text") {
  Fixture fixture;
  const auto message = [&](const std::string& name) {
    return message_of([&] { Tokenizer(fixture.scratch / name); });
  };
  CHECK(contains(message("none.model"), "none.model: No such file"));
  test::write_text(fixture.scratch / "text.model", "hello, this is no model");
  CHECK(contains(message("text.model"),
                 "text.model is neither a SentencePiece model nor a tokenizer.json; give"));
  test::write_text(fixture.scratch / "empty.model", "");
  CHECK(contains(message("empty.model"), "empty.model is neither a SentencePiece model"));

  const Tokenizer tokenizer(fixture.scratch / "m.model");
  CHECK(contains(message_of([&] { tokenizer.decode(std::vector<std::int32_t>{400}); }), "400 is outside"));
  CHECK(contains(message_of([&] { tokenizer.decode(std::vector<std::int32_t>{-1}); }), "-1 is outside"));

  // The message tells which sizes are possible.
  const auto named = [](const std::string& text, const std::string& before) {
    const auto at = text.find(before);
    REQUIRE_MESSAGE(at != std::string::npos, text);
    return std::stoll(text.substr(at + before.size()));
  };
  for (const std::int64_t too_small : {1, 100, 259}) {
    const std::string text = message_of([&] { train(too_small); });
    CHECK(contains(text, "a vocabulary of " + std::to_string(too_small) + " cannot be trained"));
    CHECK_NOTHROW(train(named(text, "special pieces are ")));
  }
  for (const std::int64_t too_large : {std::int64_t{100'000}, std::int64_t{5'000'000'000}}) {
    const std::string text = message_of([&] { train(too_large); });
    CHECK(contains(text, "a vocabulary of " + std::to_string(too_large) + " cannot be trained"));
    CHECK_NOTHROW(train(named(text, "which gives at most ")));
  }
  CHECK(contains(message_of([&] { train_tokenizer({}, documents({"", "\n"})); }), "no text"));
  CHECK(message_of([&] {
          int calls = 0;
          train_tokenizer({}, [&](std::string& text) -> bool {
            if (++calls == 3) ratplus::fail("page {} is torn", calls);
            text = "some words";
            return true;
          });
        }) == "page 3 is torn");
}

TEST_CASE("tokenizer: long texts get the library's tokens from models of other options too") {
  const Scratch scratch;
  test::write_text(scratch / "text", prose(1, 4000));
  const std::string text = prose(4, 20'000) + " \u2581 " + prose(7, 100);
  REQUIRE(text.size() > 65536);
  for (const char* options :
       {"--add_dummy_prefix=false", "--add_dummy_prefix=false --remove_extra_whitespaces=false",
        "--treat_whitespace_as_suffix=true", "--split_by_whitespace=false",
        "--normalization_rule_name=nmt_nfkc"}) {
    CAPTURE(options);
    const std::string model = (scratch / "m").string();
    REQUIRE(
        sentencepiece::SentencePieceTrainer::Train(
            "--minloglevel=2 --model_type=bpe --vocab_size=150 --normalization_rule_name=identity --input=" +
            (scratch / "text").string() + " --model_prefix=" + model + " " + options)
            .ok());
    sentencepiece::SentencePieceProcessor reference;
    REQUIRE(reference.Load(model + ".model").ok());
    std::vector<int> expected;
    REQUIRE(reference.Encode(text, &expected).ok());
    std::vector<std::int32_t> ids;
    Tokenizer(model + ".model").encode(text, ids);
    CHECK(std::equal(ids.begin(), ids.end(), expected.begin(), expected.end()));
  }
}
