// Needles: tasks, the text around, lengths, formats; that a seed gives the same samples, and another one others.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/parse_json.h"
#include "data/needles/needle_files.h"
#include "data/tokenizer/train_tokenizer.h"
#include "tests/data/support.h"

using namespace ratplus;
using namespace ratplus::data;
using test::contains;
using test::message_of;
using Json = nlohmann::ordered_json;

namespace {

/// Prose, a tokenizer that was trained on it, and settings of short samples.
struct Fixture {
  test::Scratch scratch;
  NeedleOptions options;

  Fixture() {
    const std::string text = test::prose(5, 30000);
    test::write_text(scratch / "prose.txt", text);
    bool given = false;
    const auto model = train_tokenizer({.vocab_size = 400}, [&](std::string& document) {
      if (given) return false;
      document = text;
      return given = true;
    });
    test::write_text(scratch / "tokenizer.model", model);
    // Words of keys: the prose has 30 in all.
    std::string words;
    for (const char* syllable : {"ba", "ko", "lu", "mi", "ne", "ri", "so", "tu"}) {
      for (const char* end : {"dan", "fel", "gor", "hip", "jun", "kes"})
        words += std::string(syllable) + end + "\n";
    }
    test::write_text(scratch / "words.txt", words);
    options.prose = {scratch / "prose.txt"};
    options.tokenizer = scratch / "tokenizer.model";
    options.output = scratch / "out.jsonl";
    options.adjectives = options.nouns = scratch / "words.txt";
    options.samples = 10;
    options.settings.length = 1200;
    options.settings.answer_tokens = 128;
    options.tasks = ruler_needle_tasks();
  }

  NeedleResult write() const {
    return write_needles(options, [](std::int64_t) {});
  }
  std::vector<Json> lines(const std::filesystem::path& file) const {
    std::vector<Json> all;
    std::istringstream in(test::read_text(file));
    for (std::string line; std::getline(in, line);) all.push_back(parse_json<Json>(line));
    return all;
  }
  std::int64_t tokens(const std::string& text) const {
    std::vector<std::int32_t> out;
    Tokenizer(options.tokenizer).encode(text, out);
    return std::ssize(out);
  }
};

}  // namespace

TEST_CASE("needle tasks: RULER's by name, others by their parts, mistakes by name") {
  CHECK(ruler_needle_tasks().size() == 8);
  CHECK(parse_needle_task("niah_multikey_3") ==
        NeedleTask{"niah_multikey_3", Haystack::needle, NeedleKind::uuids, NeedleKind::uuids, 1, 1, 1});
  CHECK(parse_needle_task("mine=essay,words,numbers,16,2,3") ==
        NeedleTask{"mine", Haystack::essay, NeedleKind::words, NeedleKind::numbers, 16, 2, 3});
  const auto refused = [](const char* text) {
    return message_of([&] { static_cast<void>(parse_needle_task(text)); });
  };
  CHECK(contains(refused("niah_single_4"), "there is no task \"niah_single_4\"; give niah_single_1, "));
  CHECK(contains(refused("a=essay,words"), "task a: has 2 parts; give HAYSTACK,KEYS,VALUES,K,V,Q"));
  CHECK(contains(refused("a=hay,words,numbers,1,1,1"),
                 "there are no haystacks \"hay\"; give noise, essay or needle"));
  CHECK(contains(refused("a=essay,words,numbers,1,1,2"), "asks for 2 of 1 keys"));
  CHECK(contains(refused("a=essay,words,numbers,0,1,1"), "\"0\" keys are no number from 1"));
  CHECK(contains(refused("a/b=essay,words,numbers,1,1,1"), "the name is one word"));
}

TEST_CASE("prose: sentences go on from the end to the beginning, frequent words are in order") {
  const Prose prose(
      "One two  three.\nFour (five.) six seven! Eight \"nine?\" ten. alpha beta alpha beta alpha gamma");
  CHECK(prose.words() == 16);
  CHECK(prose.sentences(0, 5) == std::vector<std::string>{"One two three.", "Four (five.)"});
  CHECK(prose.sentences(14, 4) == std::vector<std::string>{"alpha gamma One two"});
  CHECK(prose.frequent_words(0, 3) == std::vector<std::string>{"alpha", "beta", "gamma"});
  CHECK(prose.frequent_words(1, 9) == std::vector<std::string>{"beta", "gamma", "six", "two"});
}

TEST_CASE("needles: every task of RULER hides what it asks for, in its words and within its length") {
  Fixture fixture;
  fixture.options.format = NeedleFormat::ruler;
  fixture.options.output = fixture.scratch / "ruler";
  fixture.options.answer_prefix = true;
  const auto result = fixture.write();
  REQUIRE(result.files.size() == 8);
  struct Words {
    const char* noun;
    std::size_t outputs;
    bool one;
  };
  const std::map<std::string, Words> words{
      {"niah_single_1", {"number", 1, true}},     {"niah_single_2", {"number", 1, true}},
      {"niah_single_3", {"uuid", 1, true}},       {"niah_multikey_1", {"number", 1, true}},
      {"niah_multikey_2", {"number", 1, true}},   {"niah_multikey_3", {"uuid", 1, true}},
      {"niah_multivalue", {"numbers", 4, false}}, {"niah_multiquery", {"numbers", 4, false}}};
  for (const NeedleTask& task : fixture.options.tasks) {
    CAPTURE(task.name);
    const auto lines = fixture.lines(fixture.options.output / task.name / "validation.jsonl");
    REQUIRE(lines.size() == 10);
    const Words& expected = words.at(task.name);
    std::set<std::int64_t> places;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const Json& line = lines[i];
      CHECK(line["index"] == i);
      const std::string input = line["input"], prefix = line["answer_prefix"];
      const std::vector<std::string> outputs = line["outputs"];
      REQUIRE(outputs.size() == expected.outputs);
      CHECK(input.starts_with(
          expected.one
              ? std::string("A special magic ") + expected.noun + " is hidden within the following text. "
              : std::string("Some special magic ") + expected.noun + " are hidden within"));
      CHECK(contains(input, std::string("\nWhat ") + (expected.one ? "is" : "are all") +
                                " the special magic " + expected.noun + " for "));
      CHECK(input.ends_with(" mentioned in the provided text?"));
      CHECK(prefix.starts_with(std::string(" The special magic ") + expected.noun + " for "));
      CHECK(prefix.ends_with(expected.one ? "provided text is" : "provided text are"));
      for (const std::string& output : outputs) {
        CHECK(test::count(input, " is: " + output + ".") >= 1);
        CHECK(output.size() == (contains(expected.noun, "uuid") ? 36 : 7));
        if (output.size() == 36) {
          CHECK(output[14] == '4');
          CHECK(contains("89ab", std::string(1, output[19])));
        }
      }
      const std::int64_t length = line["length"];
      CHECK(length == fixture.tokens(input + prefix) + 128);
      CHECK(length <= 1200);
      CHECK(length >
            (task.name == "niah_multikey_3" ? 900 : 1000));  // a needle of uuids takes some hundred tokens
      const std::string before = input.substr(0, input.find(" is: " + outputs.front() + ".") + 5);
      CHECK(std::abs(line["token_position_answer"].get<std::int64_t>() - fixture.tokens(before)) <= 2);
      places.insert(line["token_position_answer"].get<std::int64_t>());
    }
    CHECK(places.size() > 5);
  }
  const auto haystack = [&](const char* task) {
    return fixture.lines(fixture.options.output / task / "validation.jsonl")
        .front()["input"]
        .get<std::string>();
  };
  CHECK(test::count(haystack("niah_single_1"), "Here we go. There and back again.") > 10);
  CHECK(test::count(haystack("niah_multikey_2"), "One of the special magic numbers for ") > 10);
  CHECK(test::count(haystack("niah_multikey_1"), "One of the special magic numbers for ") == 4);
  CHECK(test::count(haystack("niah_multivalue"), "One of the special magic numbers for ") == 4);
  CHECK(contains(haystack("niah_multiquery"), ", and "));
}

TEST_CASE("needles: a seed gives the same bytes on any threads, another seed or subset shares no sample") {
  Fixture fixture;
  const auto inputs = [&](std::uint64_t seed, const char* subset, const char* file) {
    fixture.options.settings.seed = seed;
    fixture.options.settings.subset = subset;
    fixture.options.output = fixture.scratch / file;
    fixture.write();
    std::set<std::string> all;
    for (const Json& line : fixture.lines(fixture.options.output))
      all.insert(line["prompt"].get<std::string>());
    CHECK(all.size() == 80);
    return all;
  };
  const auto first = inputs(42, "validation", "a.jsonl");
  CHECK(inputs(42, "validation", "b.jsonl") == first);
  CHECK(test::read_text(fixture.scratch / "a.jsonl") == test::read_text(fixture.scratch / "b.jsonl"));
  for (const auto& others : {inputs(43, "validation", "c.jsonl"), inputs(42, "train", "d.jsonl")}) {
    for (const std::string& input : others) CHECK(!first.contains(input));
  }
}

TEST_CASE("needles: requests name task, references, keys and the needle's place") {
  Fixture fixture;
  fixture.options.tasks = {parse_needle_task("four=essay,words,numbers,4,1,1"),
                           parse_needle_task("all=needle,words,numbers,1,1,1")};
  fixture.write();
  const auto lines = fixture.lines(fixture.options.output);
  REQUIRE(lines.size() == 20);
  CHECK(lines[0]["id"] == "four/0");
  CHECK(lines[19]["id"] == "all/9");
  for (const Json& line : lines) {
    const Json& meta = line["meta"];
    const std::string prompt = line["prompt"], output = meta["outputs"][0];
    CHECK(prompt.ends_with("mentioned in the provided text?"));
    CHECK(meta["keys"] == test::count(prompt, "One of the special magic"));
    if (meta["task"] == "four") CHECK(meta["keys"] == 4);
    const std::int64_t all = fixture.tokens(prompt);
    const auto distance = meta["distance"].get<std::int64_t>();
    const std::int64_t before = fixture.tokens(prompt.substr(0, prompt.find(" is: " + output + ".") + 5));
    CHECK(std::abs(all - before - distance) <= 2);
    CHECK(std::abs(meta["depth"].get<double>() - 100.0 * double(all - distance) / double(all)) <= 0.51);
  }
}

TEST_CASE("needles: in few words, several questions a sample, each answered by its labels") {
  Fixture fixture;
  auto& settings = fixture.options.settings;
  fixture.options.tasks = {parse_needle_task("many=essay,words,numbers,16,1,1"),
                           parse_needle_task("all=needle,words,numbers,1,1,1")};
  fixture.options.format = NeedleFormat::samples;
  fixture.options.key_words = 1;
  fixture.options.adjectives.clear();
  settings.wording = NeedleWording::brief;
  settings.digits = 2;
  settings.questions = 5;
  settings.length = 800;
  settings.answer_tokens = 8;
  fixture.write();
  const Tokenizer tokenizer(fixture.options.tokenizer);
  const auto lines = fixture.lines(fixture.options.output);
  REQUIRE(lines.size() == 20);
  for (const Json& line : lines) {
    const std::vector<std::int32_t> tokens = line["tokens"], labels = line["labels"];
    REQUIRE(tokens.size() == labels.size());
    CHECK(tokens.size() <= 801);
    // Answers are runs of labels, each with the end of the text at its end.
    std::vector<std::string> answers;
    std::vector<std::int32_t> answer, text;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (labels[i] >= 0) CHECK(labels[i] == tokens[i]);
      if (labels[i] < 0) {
        text.push_back(tokens[i]);
      } else if (labels[i] == tokenizer.end_of_text()) {
        const std::string value = tokenizer.decode(answer), before = tokenizer.decode(text);
        const std::string question = before.substr(before.rfind("The number of "));
        CHECK(question.ends_with(" is"));
        // What follows the same words in the text.
        const auto number = value.substr(value.find_first_not_of(' '));
        CHECK(contains(before, question + " " + number + "."));
        answers.push_back(question);
        text.insert(text.end(), answer.begin(), answer.end());
        answer.clear();
      } else {
        answer.push_back(labels[i]);
      }
    }
    CHECK(answers.size() == 5);
    CHECK(std::set<std::string>(answers.begin(), answers.end()).size() == 5);
  }
  fixture.options.format = NeedleFormat::requests;
  CHECK(contains(message_of([&] { fixture.write(); }), "--questions 5 goes with --format samples"));
}

TEST_CASE("needles: samples of one question are prompts and completions") {
  Fixture fixture;
  fixture.options.format = NeedleFormat::samples;
  fixture.write();
  const auto lines = fixture.lines(fixture.options.output);
  REQUIRE(lines.size() == 80);
  CHECK(contains(lines[0]["prompt"], "Here we go."));  // a task after the other
  CHECK(contains(lines[4]["prompt"], "One of the special magic numbers"));
  const std::string four = lines[6]["completion"];
  CHECK(std::ranges::count(four, ',') == 3);
  CHECK(!contains(four, " "));
}

TEST_CASE("needles: mistakes are named with the way out, and what is there stays") {
  Fixture fixture;
  const auto refused = [&](auto change) {
    NeedleOptions options = fixture.options;
    change(options);
    return message_of([&] { write_needles(options, [](std::int64_t) {}); });
  };
  CHECK(contains(refused([](auto& o) { o.settings.length = 100; }),
                 "--sequence-length 100 has no room for a sample of niah_single_1, which takes about "));
  CHECK(contains(refused([](auto& o) { o.prose.clear(); }),
                 "hides needles in prose, and there is none; name files"));
  CHECK(contains(refused([](auto& o) {
                   o.prose.clear();
                   o.adjectives.clear();
                   o.nouns.clear();
                   o.tasks = {parse_needle_task("niah_single_1")};
                 }),
                 "takes words for keys, and there are none; name files of prose"));
  CHECK(contains(refused([](auto& o) { o.adjectives.clear(); }), "--adjectives and --nouns go together"));
  CHECK(contains(refused([](auto& o) { o.tasks = {parse_needle_task("a=essay,words,numbers,41,1,1")}; }),
                 "hides 41 needles in prose, which has 40 places"));
  CHECK(contains(refused([](auto& o) {
                   o.key_words = 1;
                   o.adjectives.clear();
                   o.tasks = {parse_needle_task("a=needle,words,numbers,1,1,1")};
                   o.settings.wording = NeedleWording::brief;
                   o.settings.length = 4000;
                 }),
                 "different keys, which there are not"));
  CHECK(
      contains(refused([](auto& o) { o.tasks.push_back(o.tasks.front()); }), "niah_single_1 is given twice"));
  fixture.write();
  const auto before = test::read_text(fixture.options.output);
  CHECK(contains(refused([](auto&) {}), "is there already"));
  CHECK(test::read_text(fixture.options.output) == before);
  CHECK_THROWS_AS(write_needles(
                      [&] {
                        NeedleOptions options = fixture.options;
                        options.force = true;
                        options.settings.seed = 7;
                        return options;
                      }(),
                      [](std::int64_t samples) {
                        if (samples > 0) throw std::runtime_error("interrupted");
                      }),
                  std::runtime_error);
  CHECK(test::read_text(fixture.options.output) == before);
}
