// Settings of a request by their names, prompts as tokens, and prompts that are cut.
#include "lib/generate/settings.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/json_dump.h"
#include "lib/generate/continuation_lines.h"
#include "lib/generate/json_values.h"
#include "tests/support/messages.h"

using namespace ratplus;
using namespace ratplus::generate;
using Json = nlohmann::ordered_json;
using Tokens = std::vector<std::int32_t>;

namespace {

ModelText gpt2() {
  ModelText text;
  text.tokenizer.emplace(std::filesystem::path(RATPLUS_SOURCE_DIR) /
                         "tests/reference/data/tokenizers/gpt2.json");
  text.end_of_text = 5;
  text.model_tokens = text.tokenizer->vocab_size();
  return text;
}

Tokens encoded(const ModelText& text, const std::string& words) {
  Tokens tokens;
  text.tokenizer->encode(words, tokens);
  return tokens;
}

}  // namespace

TEST_CASE("a prompt's tokens as text: those of the model alone, and those that mark a place, have none") {
  auto text = gpt2();
  auto tokens = encoded(text, "of the answer");
  const auto whole = text.tokenizer->decode(tokens);
  CHECK(text.text_of(tokens) == whole);
  tokens.insert(tokens.begin() + 1, static_cast<std::int32_t>(text.model_tokens));  // of a padded vocabulary
  text.model_tokens += 64;
  const auto end = text.tokenizer->end_of_text();
  REQUIRE(text.tokenizer->is_special(end));
  tokens.insert(tokens.begin(), end);
  CHECK(text.text_of(tokens) == whole);
  CHECK(text.text_of({end}).empty());
}

TEST_CASE("settings: every field is read as it is written; unknown names are none") {
  const auto fields =
      Json::parse(R"({"max_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1,
    "repetition_penalty": 1.2, "presence_penalty": 0.25, "frequency_penalty": -0.5, "penalize_prompt": false,
    "logit_bias": {"5": 1.5}, "banned": [1, 2], "seed": 18446744073709551615, "n": 2, "stop": ["a", "b"], "stop_tokens": [4],
    "ignore_end_of_text": true, "log_probabilities": 0, "echo": true, "return_tokens": true, "cut": "middle", "trim": "lines"})");
  Settings settings;
  for (const auto& [name, value] : fields.items()) CHECK(set_field(settings, name, value, "here"));
  CHECK(settings.max_tokens == 7);
  CHECK(settings.sampling.temperature == 0.5);
  CHECK(settings.sampling.top_k == 3);
  CHECK(settings.sampling.top_p == 0.9);
  CHECK(settings.sampling.min_p == 0.1);
  CHECK(settings.sampling.repetition_penalty == 1.2);
  CHECK(settings.sampling.presence_penalty == 0.25);
  CHECK(settings.sampling.frequency_penalty == -0.5);
  CHECK(!settings.sampling.penalize_prompt);
  CHECK(settings.sampling.biases == std::vector<std::pair<std::int32_t, float>>{{5, 1.5F}});
  CHECK(settings.sampling.banned == Tokens{1, 2});
  CHECK(settings.sampling.seed == ~std::uint64_t{0});
  CHECK(settings.answers == 2);
  CHECK(settings.stop == std::vector<std::string>{"a", "b"});
  CHECK(settings.stop_tokens == Tokens{4});
  CHECK(settings.ignore_end_of_text);
  CHECK(settings.log_probabilities == 0);
  CHECK(settings.echo);
  CHECK(settings.return_tokens);
  CHECK(settings.cut == Cut::middle);
  CHECK(settings.trim == Trim::lines);
  // Each field changes what is written, so that a start with another value is told from this one.
  CHECK(to_json(settings).size() == fields.size());
  for (const auto& entry : fields.items()) {
    const auto& name = entry.key();
    const auto& value = entry.value();
    Settings one;
    set_field(one, name, value, "here");
    CAPTURE(name);
    CHECK(to_json(one) != to_json(Settings()));
    CHECK(test::contains(field_names(), name));
  }
  CHECK(!set_field(settings, "temp", 1, "here"));
  CHECK(set_field(settings, "stop", "x", "here"));
  CHECK(settings.stop == std::vector<std::string>{"x"});
}

TEST_CASE("cut_tokens: the last tokens, or the first half and the last of the rest") {
  Tokens tokens(10);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (const Cut cut : {Cut::none, Cut::left, Cut::middle}) CHECK(cut_tokens(tokens, 10, cut) == tokens);
  CHECK(cut_tokens(tokens, 4, Cut::left) == Tokens{6, 7, 8, 9});
  CHECK(cut_tokens(tokens, 4, Cut::middle) == Tokens{0, 1, 8, 9});
  CHECK(cut_tokens(tokens, 5, Cut::middle) == Tokens{0, 1, 7, 8, 9});
  CHECK(cut_tokens(tokens, 1, Cut::middle) == Tokens{9});
}

TEST_CASE(
    "continuations: tokens after as many as the context has; white space moves; an empty context is the end "
    "of a text") {
  const auto text = gpt2();
  const auto whole = encoded(text, "Once upon a time");
  const auto check = [&](const std::string& context, const std::string& continuation,
                         const std::string& kept) {
    CAPTURE(context);
    const auto result = encode_continuation(context, continuation, text, "here");
    CHECK(result.tokens == encoded(text, context + continuation));
    CHECK(result.first == std::ssize(encoded(text, kept)));
  };
  check("Once upon", " a time", "Once upon");
  check("Once upon ", "a time", "Once upon");
  check("Once upon \t\n\u00a0\u3000", "a time", "Once upon");
  check("On", "ce", "On");
  const auto empty = encode_continuation("", "Once upon a time", text, "here");
  CHECK(empty.first == 1);
  auto expected = whole;
  expected.insert(expected.begin(), 5);
  CHECK(empty.tokens == expected);
  const auto blanks = encode_continuation(" \n", "Once", text, "here");
  CHECK(blanks.first == 1);
  CHECK(blanks.tokens.front() == 5);
  auto unknown = gpt2();
  unknown.end_of_text = -1;
  CHECK_THROWS_WITH_AS(encode_continuation("", "a", unknown, "here"), doctest::Contains("--end-of-text"),
                       Error);
}

TEST_CASE(
    "requests: an empty text begins with the end of another; bad text and missing tokenizers are refused") {
  const auto text = gpt2();
  CHECK(request_of_text("", text, {}, "here").prompt == Tokens{5});
  CHECK(request_of_text("Once", text, {}, "here").prompt == encoded(text, "Once"));
  CHECK_THROWS_WITH_AS(request_of_text("\xff", text, {}, "here"), "here: the prompt is no well-formed UTF-8",
                       Error);
  ModelText none;
  none.missing = "it is away";
  CHECK_THROWS_WITH_AS(request_of_text("a", none, {}, "here"),
                       "here: a text needs a tokenizer, and it is away", Error);
  CHECK(!request_of_tokens({1}, none, {}, "here").as_text);
  Settings stop;
  stop.stop = {"x"};
  CHECK_THROWS_AS(request_of_tokens({1}, none, stop, "here"), Error);
}

TEST_CASE("json_number: the fewest digits that give the float back, and no infinity") {
  for (const float value : {-1.2345F, 0.1F, -7.898287F, 1e-30F, 0.0F}) {
    const auto text = json_dump(Json(json_number(value)));
    CAPTURE(text);
    CHECK(std::strtof(text.c_str(), nullptr) == value);
    CHECK(text.size() < 14);
  }
  CHECK(json_number(-INFINITY) == -9999);
}
