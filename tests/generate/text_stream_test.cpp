#include "lib/generate/text_stream.h"

#include <doctest/doctest.h>
#include <sentencepiece_trainer.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/utf8.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using namespace ratplus::generate;

namespace {

namespace fs = std::filesystem;
using Tokens = std::vector<std::int32_t>;

fs::path json(const char* kind) {
  return fs::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers" / (std::string(kind) + ".json");
}

/// A small SentencePiece model as LLaMA's: bytes for unknown characters, a blank before each text.
fs::path sentencepiece_model(const fs::path& directory, const std::string& more = {}) {
  std::ofstream text(directory / "text");
  for (int i = 0; i < 3000; ++i)
    text << (i % 7 == 0 ? "Question " : i % 5 == 0 ? "answer " : "of the ") << (i % 11 == 0 ? "\n" : "");
  text.close();
  REQUIRE(sentencepiece::SentencePieceTrainer::Train(
              "--minloglevel=2 --model_type=bpe --vocab_size=330 --byte_fallback "
              "--normalization_rule_name=identity "
              "--remove_extra_whitespaces=false --hard_vocab_limit=false --input=" +
              (directory / "text").string() + " --model_prefix=" + (directory / "m").string() + more)
              .ok());
  return directory / "m.model";
}

std::string decoded(const data::Tokenizer& tokenizer, const Tokens& tokens) {
  Tokens plain;
  for (const std::int32_t token : tokens) {
    if (!tokenizer.is_special(token)) plain.push_back(token);
  }
  return tokenizer.decode(plain);
}

/// The text before the stop string that ends first; of those that end together the longest one counts.
std::string cut(const std::string& text, const std::vector<std::string>& stops) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

/// Some characters of the text, or a letter.
std::string some_stop(const std::string& text, std::mt19937& random) {
  const auto is_border = [&](std::size_t at) {
    return at >= text.size() || (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
  };
  if (text.empty() || random() % 5 == 0) return std::string(1, static_cast<char>('a' + random() % 26));
  std::size_t begin = random() % text.size();
  while (!is_border(begin)) --begin;
  std::size_t end = begin + 1 + random() % 9;
  while (!is_border(end)) ++end;
  return text.substr(begin, end - begin);
}

}  // namespace

TEST_CASE(
    "text stream: for random tokens and stop strings, the whole decoded text up to the first stop string") {
  const test::ScratchDirectory scratch;
  std::vector<fs::path> files{json("llama2"), json("mistral"), json("gpt2"), json("qwen"), json("mixed")};
  files.push_back(sentencepiece_model(scratch.path()));
  for (const fs::path& file : files) {
    CAPTURE(file.string());
    const data::Tokenizer tokenizer(file);
    std::mt19937 random(11);
    const auto size = static_cast<unsigned>(tokenizer.vocab_size());
    int ended = 0;
    constexpr int rounds = 400;
    for (int round = 0; round < rounds; ++round) {
      CAPTURE(round);
      Tokens tokens(random() % 40);
      for (std::int32_t& token : tokens) {
        token = static_cast<std::int32_t>(random() % (random() % 3 == 0 ? std::min(262U, size) : size));
      }
      const std::string text = decoded(tokenizer, tokens);
      std::vector<std::string> stops(random() % 3);
      for (std::string& stop : stops) stop = some_stop(text, random);
      check_stop_strings(stops, "test");
      const std::string expected = cut(text, stops);
      TextStream stream(tokenizer, stops);
      std::string shown;
      for (const std::int32_t token : tokens) {
        const std::string piece = stream.add(token);
        CHECK(is_utf8(piece));
        shown += piece;
        CHECK(expected.starts_with(shown));
      }
      shown += stream.finish();
      CHECK(shown == expected);
      CHECK(stream.stopped() == (expected.size() < text.size()));
      if (stream.stopped()) CHECK(text.substr(expected.size()).starts_with(stream.stop()));
      ended += stream.stopped() ? 1 : 0;
    }
    CHECK(ended > rounds / 5);
    CHECK(ended < rounds * 4 / 5);
  }
}

TEST_CASE(
    "text stream: LLaMA's leading blank goes, the end of text is no text, and a stop string is found over "
    "tokens") {
  const test::ScratchDirectory scratch;
  for (const fs::path& file : {json("llama2"), sentencepiece_model(scratch.path())}) {
    const data::Tokenizer tokenizer(file);
    Tokens tokens;
    tokenizer.encode("of the answer \U0001F680\nQuestion", tokens);
    tokens.insert(tokens.begin() + 1, 2);
    for (const bool stopping : {false, true}) {
      TextStream stream(tokenizer,
                        stopping ? std::vector<std::string>{"\nQuest"} : std::vector<std::string>{});
      std::string shown;
      std::size_t used = 0;
      for (; used < tokens.size() && !stream.stopped(); ++used) shown += stream.add(tokens[used]);
      shown += stream.finish();
      CHECK(shown == (stopping ? "of the answer \U0001F680" : "of the answer \U0001F680\nQuestion"));
      CHECK(stream.stopped() == stopping);
      CHECK(stream.stop() == (stopping ? "\nQuest" : ""));
    }
  }
}

TEST_CASE("text stream: after a prompt's tokens the text is the rest of both together") {
  const test::ScratchDirectory scratch;
  for (const fs::path& file : {json("gpt2"), sentencepiece_model(scratch.path())}) {
    CAPTURE(file.string());
    const data::Tokenizer tokenizer(file);
    for (const std::string text : {"of the answer", "of  the\nQuestion ", "d\u00e9j\u00e0 \u65e5 of"}) {
      Tokens tokens;
      tokenizer.encode(text, tokens);
      for (std::size_t cut = 0; cut <= tokens.size(); ++cut) {
        const std::span all(tokens);
        data::TokenDecoder before(tokenizer);
        std::string begun;
        for (const std::int32_t token : all.first(cut)) begun += before.add(token);
        TextStream stream(tokenizer, {});
        stream.follow(all.first(cut));
        std::string rest;
        for (const std::int32_t token : all.subspan(cut)) rest += stream.add(token);
        CHECK(begun + rest + stream.finish() == decoded(tokenizer, tokens));
      }
    }
  }
}

TEST_CASE(
    "text stream: a tokenizer that rewrites whole texts gives the text after the prompt, and stops in it "
    "alone") {
  const test::ScratchDirectory scratch;
  std::ofstream(scratch / "rules.tsv") << "74 68 65\t54 48 45\n";  // the: THE
  const data::Tokenizer tokenizer(
      sentencepiece_model(scratch.path(), " --denormalization_rule_tsv=" + (scratch / "rules.tsv").string()));
  Tokens prompt, tokens;
  tokenizer.encode("of the answer", prompt);
  tokenizer.encode("Question of the answer", tokens);
  REQUIRE(tokenizer.decode(prompt) == "of THE answer");
  const auto answer = [&](const Tokens& given, std::vector<std::string> stops, Trim trim = Trim::none) {
    TextStream stream(tokenizer, std::move(stops), trim);
    stream.follow(prompt);
    for (const auto token : given) CHECK(stream.add(token).empty());
    return stream.finish();
  };
  CHECK(answer(tokens, {}) == " Question of THE answer");
  CHECK(answer(tokens, {"THE"}) == " Question of ");
  CHECK(answer(tokens, {"of T"}, Trim::blank) == "Question ");
  CHECK(answer({}, {"of"}).empty());
  prompt.insert(prompt.begin(), tokenizer.end_of_text());
  CHECK(answer(tokens, {}) == " Question of THE answer");
  prompt.clear();
  CHECK(answer(tokens, {}) == "Question of THE answer");
}

TEST_CASE("text stream: many tokens take time in proportion") {
  const data::Tokenizer tokenizer(json("llama2"));
  Tokens tokens;
  tokenizer.encode("of the answer \U0001F680 to ", tokens);
  const auto seconds = [&](int repeats) {
    double best = 1e9;
    for (int attempt = 0; attempt < 3; ++attempt) {
      const auto begin = std::chrono::steady_clock::now();
      TextStream stream(tokenizer, {"answer to nothing", "aaaa"});
      std::size_t bytes = 0;
      for (int i = 0; i < repeats; ++i) {
        for (const std::int32_t token : tokens) bytes += stream.add(token).size();
      }
      bytes += stream.finish().size();
      CHECK(bytes > static_cast<std::size_t>(repeats) * 10);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
  };
  // Sixteen times the tokens: 16 times the time, or 256 times if each token decoded the text again.
  const double few = seconds(500), many = seconds(8000);
  CHECK(many < 80 * few);
}

TEST_CASE("an answer's beginning is trimmed before stop strings are looked for, whatever the pieces") {
  const test::ScratchDirectory scratch;
  const data::Tokenizer tokenizer(sentencepiece_model(scratch.path()));
  const auto text_of = [&](const std::string& text, Trim trim) {
    Tokens prompt, tokens;
    tokenizer.encode("Question", prompt);
    tokenizer.encode(text, tokens);
    TextStream stream(tokenizer, {"\nQuestion"}, trim);
    stream.follow(prompt);
    std::string all;
    for (const auto token : tokens) all += stream.add(token);
    return all + stream.finish();
  };
  // Encoded as a text, an answer begins with a blank after its prompt.
  CHECK(text_of("answer of\nQuestion the", Trim::none) == " answer of");
  CHECK(text_of("answer of\nQuestion the", Trim::blank) == "answer of");
  CHECK(text_of("\n\nanswer\n\nof\nQuestion the", Trim::lines) == "answer\n\nof");
  CHECK(text_of("\n\nQuestion answer\nQuestion", Trim::lines) == "Question answer");
  CHECK(text_of("\n\nQuestion answer", Trim::blank) == "\n");
  CHECK(text_of("\n  answer", Trim::lines) == "  answer");
  CHECK(text_of("\n\n\n", Trim::lines).empty());
}
