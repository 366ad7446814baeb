// The parser of requests: every field's type and range, and errors that name the field.
#include "lib/serve/completion_request.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <nlohmann/json.hpp>

#include "tests/serve/served.h"

using namespace ratplus;
using namespace ratplus::serve;
using Json = nlohmann::json;
using namespace std::chrono_literals;

namespace {

constexpr RequestLimits limits{.vocabulary = 320, .tokens = 96, .sequences = 64};

CompletionRequest parsed(const std::string& body) {
  return parse_completion(body, limits);
}

/// The field that the request is refused for; "none" where it is not.
std::string fault_of(const std::string& body) {
  try {
    prepare(parsed(body), test::SmallModel::text(), limits);
    return "none";
  } catch (const ApiError& error) {
    CHECK(error.status() == 400);
    CHECK(std::string(error.what()).size() > 10);
    return error.param();
  }
}

std::string with(const std::string& field) {
  return R"({"prompt": "of the", )" + field + "}";
}

}  // namespace

TEST_CASE("prompts are a text, texts, tokens, or lists of tokens") {
  CHECK(parsed(R"({"prompt": "a"})").prompts.front().text == "a");
  CHECK(parsed(R"({"prompt": ["a", "b"]})").prompts.size() == 2);
  const auto tokens = parsed(R"({"prompt": [1, 2, 3]})").prompts;
  REQUIRE(tokens.size() == 1);
  CHECK(tokens.front().tokens == std::vector<std::int32_t>{1, 2, 3});
  const auto lists = parsed(R"({"prompt": [[1], [2, 319]]})").prompts;
  REQUIRE(lists.size() == 2);
  CHECK(lists.back().tokens == std::vector<std::int32_t>{2, 319});
  for (const char* bad : {"[]", "[[]]", "[[1], []]", "7", "true", "{}", "[\"a\", 1]", "[1, \"a\"]",
                          "[[1], \"a\"]", "[[[1]]]", "[null]", "[1.5]", "[true]"})
    CHECK_MESSAGE(fault_of(std::string(R"({"prompt": )") + bad + "}") == "prompt", bad);
  CHECK(fault_of("{}") == "prompt");
  CHECK(fault_of(R"({"prompt": null})") == "prompt");
}

TEST_CASE("an empty text is the end of a text") {
  const auto prepared = prepare(parsed(R"({"prompt": ["", "of"]})"), test::SmallModel::text(), limits);
  CHECK(prepared.front().prompt == std::vector<std::int32_t>{test::SmallModel::text().end_of_text});
}

TEST_CASE("tokens outside the vocabulary are refused wherever they stand") {
  for (const char* token : {"320", "-1", "2147483648", "4294967296", "18446744073709551616",
                            "-9223372036854775809", "1e30", "1e999", "0.5", "null", "\"1\""}) {
    CAPTURE(token);
    const std::string list = std::string("[") + token + "]";
    CHECK(fault_of(R"({"prompt": [1, )" + std::string(token) + "]}") != "none");
    CHECK(fault_of(R"({"prompt": [[1], [2, )" + std::string(token) + "]]}") != "none");
    CHECK(fault_of(with(R"("stop_token_ids": )" + list)) != "none");
    CHECK(fault_of(with(R"("banned": )" + list)) != "none");
  }
  CHECK(fault_of(R"({"prompt": [1, 320]})") == "prompt");
  CHECK(fault_of(with(R"("stop_token_ids": [320])")) == "stop_token_ids");
  for (const char* token : {"320", "-1", "4294967296", "18446744073709551616", "x", ""})
    CHECK_MESSAGE(fault_of(with(R"("logit_bias": {")" + std::string(token) + R"(": 1})")) == "logit_bias",
                  token);
}

TEST_CASE("every field has its type and its range") {
  const std::array<std::pair<const char*, const char*>, 26> bad = {{
      {"model", "1"},
      {"max_tokens", "-1"},
      {"max_tokens", "1.5"},
      {"max_tokens", "1e9"},
      {"temperature", "-0.1"},
      {"temperature", "\"1\""},
      {"top_p", "1.1"},
      {"top_p", "-1"},
      {"top_k", "-2"},
      {"min_p", "2"},
      {"n", "0"},
      {"n", "129"},
      {"logprobs", "21"},
      {"logprobs", "true"},
      {"echo", "1"},
      {"stream", "\"yes\""},
      {"stop", "[\"\"]"},
      {"stop", "7"},
      {"seed", "1.5"},
      {"suffix", "\"x\""},
      {"best_of", "2"},
      {"min_tokens", "1"},
      {"stream_options", "{}1"},
      {"presence_penalty", "1000"},
      {"repetition_penalty", "0"},
      {"logit_bias", "[1]"},
  }};
  for (const auto& entry : bad) {
    const auto& field = entry.first;
    const auto& value = entry.second;
    CAPTURE(field);
    CAPTURE(value);
    const auto fault = fault_of(with('"' + std::string(field) + "\": " + value));
    if (std::string(value) != "{}1") CHECK(fault == field);
    CHECK(fault != "none");
  }
  CHECK(fault_of(with(R"("max_tokns": 3)")) == "max_tokns");
  CHECK(fault_of(with(R"("stream_options": {"include_usage": true})")) == "stream_options");
  CHECK(fault_of(R"({"n": 128, "prompt": ["a", "b"]})") == "n");
  CHECK(fault_of(with(R"("best_of": 2, "n": 2)")) == "none");
  const auto request = parsed(with(
      R"("max_tokens": 0, "temperature": 0.5, "top_k": -1, "seed": -5, "user": "u", "logprobs": null, "n": 2,
         "stop": "x", "stream": true, "stream_options": {"include_usage": true}, "skip_special_tokens": true)"));
  CHECK(request.settings.max_tokens == 0);
  CHECK(request.settings.sampling.temperature == 0.5);
  CHECK(request.settings.sampling.top_k == 0);
  CHECK(request.seeded);
  CHECK(request.settings.sampling.seed == static_cast<std::uint64_t>(-5));
  CHECK_FALSE(request.settings.log_probabilities);
  CHECK(request.settings.answers == 2);
  CHECK(request.include_usage);
  CHECK(parsed(R"({"prompt": "a"})").settings.sampling.temperature == 1);
}

TEST_CASE("bodies that are no JSON object, or nested a thousand times, are refused") {
  for (const std::string body :
       {"", "{", "[]", "\"x\"", "{\"prompt\": \"a\"}}", "{\"prompt\": \"\xff\"}", "nul"})
    CHECK_MESSAGE(fault_of(body).empty(), body);
  CHECK(fault_of(std::string("{\"prompt\": \"a\0\"}", 16)).empty());
  CHECK(fault_of(R"({"prompt": )" + std::string(100000, '[') + std::string(100000, ']') + "}").empty());
  CHECK(fault_of(R"({"prompt": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "max_tokens": 1})") == "none");
}

TEST_CASE("messages hold the beginning of what was sent") {
  const std::string many(100'000, 'a');
  const std::string digits(100'000, '1');
  for (const auto& body :
       {R"({")" + many + R"(": 1})", with(R"("max_tokens": )" + digits), R"({"prompt": ")" + many + "\xff\"}",
        with(R"("max_tokens": ")" + many + "\""), with(R"("stream_options": {")" + many + R"(": 1})"),
        with(R"("model": 5, ")" + many + R"(": 1)")}) {
    try {
      parsed(body);
      FAIL("it was not refused");
    } catch (const ApiError& error) {
      CHECK(std::string(error.what()).size() + error.param().size() < 1000);
    }
  }
}

TEST_CASE("an object of very many names is read or refused at once") {
  std::string names;
  for (int i = 0; i < 300'000; ++i) names += fmt::format("{}\"{}\": 1", i == 0 ? "" : ", ", i);
  const auto began = std::chrono::steady_clock::now();
  CHECK(fault_of(with("\"user\": {" + names + "}")) == "none");
  CHECK(fault_of(with("\"logit_bias\": {" + names + "}")) == "logit_bias");
  CHECK(fault_of(with(names)).empty());
  CHECK_THROWS_AS(parse_generate(R"({"text": "of", "sampling_params": {)" + names + "}}", limits), ApiError);
  // Minutes, where each name is compared with all others.
  CHECK(std::chrono::steady_clock::now() - began < 20s);
}

TEST_CASE("what every answer of a request keeps is bounded by their number") {
  const auto fault = [](int prompts, const std::string& name, const Json& value) {
    Json body{{"prompt", std::vector<std::string>(static_cast<std::size_t>(prompts), "of")}};
    body[name] = value;
    return fault_of(body.dump());
  };
  const std::string text(1 << 20, 'x');
  CHECK(fault(16, "stop", text) == "none");
  CHECK(fault(17, "stop", text) == "stop");
  const std::vector<int> tokens(1 << 19, 5);
  for (const char* name : {"stop_token_ids", "banned"}) {
    CHECK(fault(32, name, tokens) == "none");
    CHECK(fault(33, name, tokens) == name);
  }
}

TEST_CASE("log-probabilities of a request are bounded") {
  const auto fault = [](Json body) { return fault_of(body.dump()); };
  const std::vector<std::vector<int>> prompts(32, std::vector<int>(94, 5));
  // 32 prompts of 94 and 2 tokens, 2 answers, 20 tokens beside each.
  Json body{{"prompt", prompts}, {"logprobs", 20}, {"echo", true}, {"max_tokens", 2}, {"n", 2}};
  CHECK(fault(body) == "none");
  const RequestLimits more{.vocabulary = 320, .tokens = 4096, .sequences = 4096};
  const auto refused = [&](int count, int echo_tokens, int max_tokens, int logprobs) {
    const std::vector<std::vector<int>> long_ones(static_cast<std::size_t>(count),
                                                  std::vector<int>(static_cast<std::size_t>(echo_tokens), 5));
    const Json asked{
        {"prompt", long_ones}, {"logprobs", logprobs}, {"echo", true}, {"max_tokens", max_tokens}};
    try {
      prepare(parse_completion(asked.dump(), more), test::SmallModel::text(), more);
      return false;
    } catch (const ApiError& error) {
      CHECK(error.param() == "logprobs");
      return true;
    }
  };
  CHECK_FALSE(refused(512, 4095, 1, 1));  // 2^22
  CHECK(refused(513, 4095, 1, 1));
  CHECK(refused(49, 95, 4000, 20));
  CHECK_FALSE(refused(48, 95, 4000, 20));
}

TEST_CASE("a text that no tokens of a sequence hold is refused before it is encoded") {
  const Json body{{"prompt", std::string(96 * 256 + 1, 'a')}};
  try {
    prepare(parsed(body.dump()), test::SmallModel::text(), limits);
    FAIL("it was not refused");
  } catch (const ApiError& error) {
    CHECK(error.code() == "context_length_exceeded");
    CHECK(std::string(error.what()).find("24577 bytes") != std::string::npos);
    CHECK(std::string(error.what()).find("96 tokens") != std::string::npos);
  }
}

TEST_CASE("a prompt that leaves no room is refused with both numbers") {
  const auto& text = test::SmallModel::text();
  const auto message = [&](int prompt, const char* more) {
    Json body{{"prompt", std::vector<int>(static_cast<std::size_t>(prompt), 5)}};
    if (more != nullptr) body["max_tokens"] = std::stoi(more);
    try {
      prepare(parsed(body.dump()), text, limits);
      return std::string();
    } catch (const ApiError& error) {
      CHECK(error.code() == "context_length_exceeded");
      return std::string(error.what());
    }
  };
  CHECK(message(95, "1").empty());
  CHECK(message(96, "0").empty());
  CHECK(message(95, nullptr).empty());  // fewer than the usual 16 tokens
  const auto too_long = message(96, "1");
  CHECK(too_long.find("96 tokens") != std::string::npos);
  CHECK(too_long.find("97") != std::string::npos);
  CHECK(message(3, "94").find("at most 96") != std::string::npos);
  CHECK_FALSE(message(200, nullptr).empty());
}

TEST_CASE("banning all tokens that have a text is refused") {
  std::vector<int> all;
  for (int token = 0; token < test::SmallModel::text().tokenizer->vocab_size(); ++token) all.push_back(token);
  CHECK(fault_of(Json{{"prompt", "of"}, {"banned", all}}.dump()) == "banned");
}

TEST_CASE("RULER's two forms") {
  const auto one = parse_generate(
      R"({"prompt": "of", "max_tokens": 5, "temperature": 0, "top_k": 32, "stop": ["x"]})", limits);
  CHECK_FALSE(one.nested);
  CHECK(one.completion.settings.max_tokens == 5);
  const auto two =
      parse_generate(R"({"text": "of", "sampling_params": {"max_new_tokens": 7, "temperature": 0}})", limits);
  CHECK(two.nested);
  CHECK(two.completion.settings.max_tokens == 7);
  CHECK(two.completion.prompts.front().text == "of");
  CHECK_THROWS_AS(parse_generate(R"({"prompt": "of", "stream": true})", limits), ApiError);
  CHECK(parse_generate(R"({"text": "of", "sampling_params": null})", limits).nested);
  for (const char* twice : {R"({"text": "of", "text": "of"})", R"({"text": "of", "prompt": "a"})",
                            R"({"text": "of", "sampling_params": {"prompt": "a"}})",
                            R"({"text": "of", "max_tokens": 1, "sampling_params": {"max_new_tokens": 2}})"})
    CHECK_THROWS_AS(parse_generate(twice, limits), ApiError);
}
