// tokenizer.json files: the ids of the library `tokenizers` (tests/reference/make_tokenizers.py), on hard text.
#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <thread>

#include "base/files/sha256.h"
#include "base/json_dump.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/text_pattern.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using test::Scratch;
using Json = nlohmann::json;

namespace {

const auto directory = std::filesystem::path(RATPLUS_SOURCE_DIR) / "tests/reference/data/tokenizers";

const Json& references() {
  static const Json json = Json::parse(test::read_text(directory / "references.json"));
  return json;
}

std::string digest(const std::vector<std::int32_t>& ids) {
  return sha256_hex(fmt::format("{}", fmt::join(ids, ",")));
}

void append_utf8(std::string& text, std::uint32_t c) {
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xC0 | c >> 6), tail(0);
  } else if (c < 0x10000) {
    text += static_cast<char>(0xE0 | c >> 12), tail(6), tail(0);
  } else {
    text += static_cast<char>(0xF0 | c >> 18), tail(12), tail(6), tail(0);
  }
}

std::string block_text(std::uint32_t block) {
  std::string text;
  for (std::uint32_t c = block * 1024; c < block * 1024 + 1024; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    text += 'a', append_utf8(text, c), text += '1', append_utf8(text, c), text += ' ';
  }
  return text;
}

/// A tokenizer.json changed at one place.
std::string message_with(const Scratch& scratch, const char* kind, const char* pointer, const Json& value) {
  Json json = Json::parse(test::read_text(directory / (std::string(kind) + ".json")));
  json[Json::json_pointer(pointer)] = value;
  test::write_text(scratch / "t.json", json_dump(json));
  return message_of([&] { Tokenizer(scratch / "t.json"); });
}

}  // namespace

TEST_CASE("tokenizer.json: the library's ids and decoded text, of every kind") {
  const auto texts = references()["texts"].get<std::vector<std::string>>();
  for (const auto& entry : references()["kinds"].items()) {
    const auto& kind = entry.key();
    const auto& reference = entry.value();
    const Tokenizer tokenizer(directory / (kind + ".json"));
    for (std::size_t i = 0; i < texts.size(); ++i) {
      CAPTURE(kind);
      CAPTURE(i);
      CAPTURE(texts[i].substr(0, 200));
      std::vector<std::int32_t> ids;
      tokenizer.encode(texts[i], ids);
      const Json& expected = reference["ids"][i];
      if (expected.is_string()) {
        CHECK(digest(ids) == expected.get<std::string>());
      } else {
        CHECK(fmt::format("{}", ids) == fmt::format("{}", expected.get<std::vector<std::int32_t>>()));
      }
      // The library takes letters of added tokens for letters of the byte-level alphabet; the text itself is right, too.
      const Json& decoded = reference["decoded"][i];
      const std::string text = tokenizer.decode(ids);
      if (text != texts[i]) CHECK(text == decoded.get<std::string>());
    }
  }
}

TEST_CASE("tokenizer.json: every code point of Unicode") {
  for (const char* kind : {"llama2", "llama3", "qwen", "nfkc", "nfd"}) {
    const Tokenizer tokenizer(directory / (std::string(kind) + ".json"));
    const auto expected = references()["kinds"][kind]["blocks"].get<std::string>();
    REQUIRE(expected.size() == 1088 * 8);
    std::vector<std::string> different;
    for (std::uint32_t block = 0; block < 1088; ++block) {
      std::vector<std::int32_t> ids;
      tokenizer.encode(block_text(block), ids);
      if (digest(ids).substr(0, 8) != expected.substr(8 * block, 8))
        different.push_back(fmt::format("{:X}", block * 1024));
    }
    CHECK_MESSAGE(different.empty(), kind << ": " << fmt::format("{}", fmt::join(different, " ")));
  }
}

TEST_CASE("tokenizer.json: what is not implemented is refused by name") {
  const Scratch scratch;
  const auto type = [](const char* name) { return Json{{"type", name}}; };
  CHECK(message_with(scratch, "gpt2", "/version", "1.0").empty());
  CHECK(contains(message_with(scratch, "gpt2", "/model/type", "Unigram"),
                 "t.json: its model is of the type \"Unigram\""));
  CHECK(contains(message_with(scratch, "gpt2", "/model/dropout", 0.1), "its model has \"dropout\""));
  CHECK(contains(message_with(scratch, "gpt2", "/model/end_of_word_suffix", "</w>"),
                 "has \"end_of_word_suffix\""));
  CHECK(contains(message_with(scratch, "gpt2", "/truncation", Json{{"max_length", 5}}),
                 "it has \"truncation\""));
  CHECK(contains(message_with(scratch, "gpt2", "/normalizer", type("BertNormalizer")),
                 "its normalizer has the type \"BertNormalizer\""));
  CHECK(contains(message_with(scratch, "gpt2", "/pre_tokenizer", type("Whitespace")),
                 "its pre_tokenizer has the type \"Whitespace\""));
  CHECK(contains(message_with(scratch, "llama3", "/pre_tokenizer/pretokenizers/0/behavior", "MergedWithNext"),
                 "a Split with behavior \"MergedWithNext\""));
  CHECK(contains(
      message_with(scratch, "llama3", "/pre_tokenizer/pretokenizers/0/pattern", Json{{"Regex", "\\w+"}}),
      "the expression \\w+ has \\w"));
  CHECK(contains(
      message_with(scratch, "llama3", "/pre_tokenizer/pretokenizers/0/pattern", Json{{"Regex", "(a"}}),
      "the expression (a cannot be read: missing closing parenthesis"));
  CHECK(contains(message_with(scratch, "llama3", "/added_tokens/0/single_word", true), "single words"));
  CHECK(contains(message_with(scratch, "gpt2", "/decoder", type("WordPiece")),
                 "decoder is of the type \"WordPiece\""));
  CHECK(contains(message_with(scratch, "llama2", "/model/byte_fallback", false),
                 "neither byte-level nor has it"));
  CHECK(contains(message_with(scratch, "gpt2", "/model/merges/3", "zzz qqq"), "which its vocabulary lacks"));
  CHECK(contains(message_with(scratch, "gpt2", "/model/merges", 5), "not a sound tokenizer.json"));
  test::write_text(scratch / "cut.json", "{\"model\": {");
  CHECK(
      contains(message_of([&] { Tokenizer(scratch / "cut.json"); }), "cut.json: not a sound tokenizer.json"));
  test::write_text(scratch / "other.json", "{\"a\": 1}");
  CHECK(contains(message_of([&] { Tokenizer(scratch / "other.json"); }), "has no \"model\""));
}

TEST_CASE("tokenizer.json: which token ends a text") {
  CHECK(Tokenizer(directory / "gpt2.json").end_of_text() == 0);
  CHECK(Tokenizer(directory / "llama3.json").end_of_text() == 1);
  CHECK(Tokenizer(directory / "llama2.json").end_of_text() == 2);
  CHECK(Tokenizer(directory / "qwen.json", "<|im_end|>").end_of_text() == 1);
  CHECK(contains(message_of([] { Tokenizer(directory / "qwen.json", "<|none|>"); }),
                 "has no token \"<|none|>\""));
  const Scratch scratch;
  Json json = Json::parse(test::read_text(directory / "gpt2.json"));
  json["added_tokens"] = Json::array();
  test::write_text(scratch / "t.json", json_dump(json));
  CHECK(contains(message_of([&] { Tokenizer(scratch / "t.json").end_of_text(); }),
                 "does not say which token ends a text"));
}

TEST_CASE("merges: short and long words give what the definition says") {
  // Random merges of a small alphabet, so that many overlap; the definition, applied one merge after another.
  std::mt19937 random(3);
  Merges merges(200);
  std::map<std::pair<std::int32_t, std::int32_t>, Merges::Merge> table;
  for (std::int32_t i = 0; i < 200; ++i) {
    const auto symbol = [&] { return static_cast<std::int32_t>(random() % static_cast<unsigned>(4 + i)); };
    const std::pair<std::int32_t, std::int32_t> pair{symbol(), symbol()};
    if (table.contains(pair)) continue;
    table[pair] = {.rank = static_cast<std::uint32_t>(i), .merged = 4 + i};
    merges.add(pair.first, pair.second, table[pair]);
  }
  const auto by_definition = [&](std::vector<std::int32_t> symbols) {
    while (true) {
      Merges::Merge best;
      std::size_t place = 0;
      for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
        const auto found = table.find({symbols[i], symbols[i + 1]});
        if (found != table.end() && found->second.rank < best.rank) best = found->second, place = i;
      }
      if (best.rank == Merges::Merge::none) return symbols;
      symbols[place] = best.merged;
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
  };
  std::int64_t merged = 0;
  for (int round = 0; round < 400; ++round) {
    std::vector<std::int32_t> word(random() % 120);
    for (auto& symbol : word) symbol = static_cast<std::int32_t>(random() % 4);
    std::vector<std::int32_t> applied = word;
    merges.apply(applied);
    CHECK(applied == by_definition(word));
    merged += std::ssize(word) - std::ssize(applied);
  }
  CHECK(merged > 3000);
}

TEST_CASE(
    "merges: words that are remembered have the ids of words that are merged anew, for several tokenizers") {
  std::mt19937 random(5);
  std::set<std::string> unique;  // more than the cache has places, and longer ones than it takes
  while (unique.size() < 80'000) {
    std::string word(1 + random() % (unique.size() % 16 == 0 ? 60 : 7), 'a');
    for (char& c : word) c = static_cast<char>('a' + std::min(random() % 26, random() % 26));
    unique.insert(std::move(word));
  }
  const std::vector<std::string> words(unique.begin(), unique.end());
  const auto ids_of = [&](const Tokenizer& tokenizer, std::size_t i) {
    std::vector<std::int32_t> ids;
    tokenizer.encode(words[i], ids);
    return ids;
  };
  const Tokenizer gpt2(directory / "gpt2.json"), qwen(directory / "qwen.json");
  std::vector<std::vector<std::int32_t>> merged[2];
  for (const int which : {0, 1}) {
    // A new thread has an empty cache, and no word comes twice.
    std::thread([&] {
      for (std::size_t i = 0; i < words.size(); ++i)
        merged[which].push_back(ids_of(which == 0 ? gpt2 : qwen, i));
    }).join();
  }
  std::int64_t wrong = 0;
  for (int round = 0; round < 40; ++round) {
    const Tokenizer& tokenizer = round % 2 == 0 ? gpt2 : qwen;
    const std::size_t first = random() % (words.size() - 2500);
    for (int again = 0; again < 2; ++again) {
      for (std::size_t i = first; i < first + 2500; ++i)
        wrong += ids_of(tokenizer, i) != merged[round % 2][i] ? 1 : 0;
    }
  }
  CHECK(wrong == 0);
  CHECK(merged[0] != merged[1]);
}

TEST_CASE("added tokens: the longest one at each place, as a search by their definition finds it") {
  std::mt19937 random(7);
  const auto below = [&](unsigned bound) { return static_cast<std::size_t>(random() % bound); };
  const auto text_of = [&](std::size_t length) {
    std::string text(length, ' ');
    for (char& c : text) c = "aab<> "[below(6)];
    return text;
  };
  std::int64_t found = 0;
  for (int round = 0; round < 200; ++round) {
    Json json = Json::array();
    for (int i = 0; i < 12; ++i) {
      json.push_back({{"id", i},
                      {"content", text_of(1 + below(5))},
                      {"single_word", false},
                      {"lstrip", below(4) == 0},
                      {"rstrip", below(4) == 0},
                      {"normalized", false},
                      {"special", true}});
    }
    const AddedTokens added(json, nullptr, "t.json");
    const std::string text = text_of(below(80));
    std::string cut, expected;
    added.cut(
        text,
        [&](std::string_view words, bool first) { cut += fmt::format("[{}]{}", words, first ? "!" : ""); },
        [&](std::int32_t id) { cut += fmt::format("#{}", id); });

    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size();) {
      const Json* best = nullptr;
      const auto size_of = [](const Json& entry) {
        return entry["content"].get_ref<const std::string&>().size();
      };
      for (const Json& entry : json) {
        const bool here =
            text.compare(at, size_of(entry), entry["content"].get_ref<const std::string&>()) == 0;
        if (here && (best == nullptr || size_of(entry) > size_of(*best))) best = &entry;
      }
      if (best == nullptr) {
        ++at;
        continue;
      }
      ++found;
      std::size_t begin = at;
      while ((*best)["lstrip"] == true && begin > done && text[begin - 1] == ' ') --begin;
      if (done < begin)
        expected += fmt::format("[{}]{}", text.substr(done, begin - done), done == 0 ? "!" : "");
      expected += fmt::format("#{}", (*best)["id"].get<int>());
      done = at + size_of(*best);
      while ((*best)["rstrip"] == true && done < text.size() && text[done] == ' ') ++done;
      at = done;
    }
    if (done < text.size()) expected += fmt::format("[{}]{}", text.substr(done), done == 0 ? "!" : "");
    CAPTURE(json_dump(json));
    CAPTURE(text);
    CHECK(cut == expected);
  }
  CHECK(found > 1000);
}

TEST_CASE("text pattern: a text beyond the limit of matching is named, with the way out") {
  const TextPattern pattern("(?:a|aa|a(?=a))+$", "t.json");
  TextPattern::Match match;
  const auto message = message_of([&] { pattern.find(std::string(60, 'a') + "c", 0, match); });
  CHECK(contains(message, "t.json: its expression cannot be matched at byte 0 of a text of 61 bytes"));
  CHECK(contains(message, "cut the text into shorter documents, or leave it out"));
}

TEST_CASE("text pattern: an expression whose match is empty ends, and one without a match too") {
  const auto words = [](const char* expression, std::string_view text) {
    const TextPattern pattern(expression, "t.json");
    std::vector<std::string> found;
    std::size_t at = 0;
    for (TextPattern::Match match; pattern.find(text, at, match); at = match.end) {
      found.emplace_back(text.substr(match.begin, match.end - match.begin));
    }
    return found;
  };
  CHECK(words("a*", "baaé日a") == std::vector<std::string>{"aa", "a"});
  CHECK(words("\\p{Lu}", "abc").empty());
  CHECK(words("\\s+", "a\u180e b\u0085c\u00a0") == std::vector<std::string>{" ", "\u0085", "\u00a0"});
}
