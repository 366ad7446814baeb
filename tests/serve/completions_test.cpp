// What /v1/completions answers: the same tokens and log-probabilities as the engine and the scorer give, as text, whole and in
// streams; and the faults that such servers have had.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "base/utf8.h"
#include "lib/generate/text_stream.h"
#include "tests/serve/served.h"

using namespace ratplus;
using test::complete;
using Json = nlohmann::json;
using Tokens = std::vector<std::int32_t>;

namespace {

/// One server for cases that need no settings of their own.
test::Served& shared() {
  static test::Served served;
  return served;
}

Json answer(const Json& body) {
  const auto response = complete(shared().port(), body);
  CAPTURE(response.body);
  REQUIRE(response.status == 200);
  CHECK(response.header.find("Content-Type: application/json\r\n") != std::string::npos);
  return response.json();
}

Tokens encoded(const std::string& text) {
  Tokens tokens;
  test::SmallModel::text().tokenizer->encode(text, tokens);
  return tokens;
}

Tokens random_tokens(std::mt19937& random, std::size_t n) {
  Tokens tokens;
  for (std::size_t i = 0; i < n; ++i) tokens.push_back(static_cast<std::int32_t>(3 + random() % 300));
  return tokens;
}

/// The model of the server with a scorer and an engine of the test's own.
struct Reference {
  explicit Reference(std::size_t pattern = 0) : world(parallel::World::solo()) {
    const test::SmallModel small;
    inference.emplace(
        small.model,
        infer::ServingRequest{.plans = {small.plans[pattern]}, .request = {.slots = 1, .rows = 128}}, world);
    inference->set_initial(test::SmallModel::seed);
  }
  infer::Scored score(const Tokens& tokens, std::int64_t tops) {
    const infer::ScoreRequest request{.tokens = tokens, .first = 1, .tops = tops, .next = true};
    infer::Scored result;
    inference->scorer().score(std::span(&request, 1),
                              [&](std::size_t, infer::Scored s) { result = std::move(s); });
    return result;
  }
  /// Greedy, until the end of a text or `n` tokens.
  Tokens generate(const Tokens& prompt, std::int64_t n) {
    Tokens tokens;
    infer::Request request{.prompt = prompt,
                           .max_tokens = n,
                           .stop_tokens = {test::SmallModel::text().end_of_text},
                           .sampling = {.temperature = 0}};
    for (auto token = test::SmallModel::text().tokenizer->vocab_size(); token < 320; ++token)
      request.sampling.banned.push_back(static_cast<std::int32_t>(token));
    inference->engine().add(request);
    while (!inference->engine().idle()) {
      for (const auto& event : inference->engine().step()) tokens.push_back(event.token);
    }
    return tokens;
  }

  parallel::World world;
  std::optional<infer::Inference> inference;
};

double largest(const Json& top) {
  double most = -std::numeric_limits<double>::infinity();
  for (const auto& [token, value] : top.items()) most = std::max(most, value.get<double>());
  return most;
}

std::string joined(const std::vector<Json>& events, int index = 0) {
  std::string text;
  for (const auto& event : events) {
    for (const auto& choice : event["choices"]) {
      if (choice["index"] == index) text += choice["text"].get<std::string>();
    }
  }
  return text;
}

}  // namespace

TEST_CASE(
    "log-likelihoods as lm-evaluation-harness asks for them: those of the scorer, an entry more than "
    "tokens") {
  std::mt19937 random(1);
  Reference reference;
  Json prompts = Json::array();
  for (const std::size_t n : {1U, 2U, 17U, 60U, 95U}) prompts.push_back(random_tokens(random, n));
  const auto json = answer({{"model", "ratplus"},
                            {"prompt", prompts},
                            {"max_tokens", 1},
                            {"temperature", 0},
                            {"logprobs", 1},
                            {"echo", true},
                            {"seed", 1234}});
  CHECK(json["object"] == "text_completion");
  CHECK(json["model"] == "ratplus");
  REQUIRE(json["choices"].size() == prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    CAPTURE(i);
    const auto& choice = json["choices"][i];
    const auto tokens = prompts[i].get<Tokens>();
    const auto n = tokens.size();
    CHECK(choice["index"] == i);
    const auto& scores = choice["logprobs"];
    for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
      REQUIRE(scores[list].size() == n + 1);
    CHECK(scores["token_logprobs"][0].is_null());
    CHECK(scores["top_logprobs"][0].is_null());
    const auto expected = reference.score(tokens, 1);
    for (std::size_t t = 1; t < n; ++t) {
      CHECK(scores["token_logprobs"][t].get<double>() ==
            doctest::Approx(expected.log_probability[t - 1]).epsilon(1e-6));
      // As the client finds out whether the token is the likeliest.
      const bool greedy = scores["token_logprobs"][t].get<double>() == largest(scores["top_logprobs"][t]);
      CHECK(greedy == (expected.top[t - 1].front().token == tokens[t]));
      CHECK(scores["top_logprobs"][t].size() == 1);
    }
    CHECK(scores["token_logprobs"][n].get<double>() ==
          doctest::Approx(expected.top.back().front().log_probability).epsilon(1e-6));
    CHECK(choice["finish_reason"] != nullptr);
  }
  CHECK(json["usage"] == Json{{"prompt_tokens", 175}, {"completion_tokens", 5}, {"total_tokens", 180}});
}

TEST_CASE(
    "a score of a greedy continuation is greedy, and scoring does not depend on company, order or what ran "
    "before") {
  Reference reference;
  auto tokens = encoded("of the answer");
  const auto first = tokens.size();
  const auto generated = reference.generate(tokens, 12);
  tokens.insert(tokens.end(), generated.begin(), generated.end());
  const Json body{{"prompt", tokens}, {"max_tokens", 1}, {"temperature", 0}, {"logprobs", 1}, {"echo", true}};
  const auto alone = answer(body)["choices"][0];
  const auto& scores = alone["logprobs"];
  // Tokens without a text are never drawn, and may be the likeliest.
  for (std::size_t t = first; t < tokens.size(); ++t) {
    const auto name = scores["top_logprobs"][t].begin().key();
    if (!name.starts_with("token_id:"))
      CHECK(scores["token_logprobs"][t] == scores["top_logprobs"][t].begin().value());
  }
  answer({{"prompt", tokens}, {"max_tokens", 8}, {"temperature", 0}});  // fills caches with the same prompt
  CHECK(answer(body)["choices"][0] == alone);
  auto many = body;
  many["prompt"] = Json::array({Tokens{5, 6, 7}, tokens, Tokens(80, 9)});
  auto beside = answer(many)["choices"][1];
  beside["index"] = 0;
  CHECK(beside == alone);
}

TEST_CASE(
    "max_tokens 0, empty prompts and tokens outside the vocabulary: an answer or a 400, and the server goes "
    "on") {
  const auto scored =
      answer({{"prompt", Tokens{5, 6, 7}}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 2}});
  CHECK(scored["choices"][0]["logprobs"]["token_logprobs"].size() == 3);
  CHECK(scored["choices"][0]["logprobs"]["top_logprobs"][1].size() == 2);
  CHECK(scored["choices"][0]["finish_reason"] == "length");
  CHECK(scored["usage"]["completion_tokens"] == 0);
  const auto nothing = answer({{"prompt", "of the"}, {"max_tokens", 0}});
  CHECK(nothing["choices"][0]["text"] == "");
  CHECK(answer({{"prompt", "of the"}, {"max_tokens", 0}, {"echo", true}})["choices"][0]["text"] == "of the");
  CHECK(answer({{"prompt", ""}, {"max_tokens", 3}})["usage"]["prompt_tokens"] == 1);
  for (const char* body :
       {R"({"prompt": []})", R"({"prompt": [[]]})", R"({"prompt": [320]})", R"({"prompt": [-1]})",
        R"({"prompt": [18446744073709551616]})", R"({"prompt": "a", "logit_bias": {"320": 1}})",
        R"({"prompt": "a", "stop_token_ids": [99999999999]})", R"({"prompt": "a", "max_tokens": -1})", "{",
        ""}) {
    CAPTURE(body);
    const auto response = test::ask(shared().port(), "POST", "/v1/completions", body);
    CHECK(response.status == 400);
    for (const char* key : {"message", "type", "param", "code"})
      CHECK(response.json()["error"].contains(key));
  }
  CHECK(answer({{"prompt", "of"}, {"max_tokens", 1}})["choices"].size() == 1);
}

TEST_CASE("no infinity and no NaN in JSON, and log-probabilities are the model's own") {
  const Tokens prompt{5, 6, 7};
  const auto plain = answer({{"prompt", prompt},
                             {"max_tokens", 4},
                             {"temperature", 0},
                             {"logprobs", 3},
                             {"echo", true},
                             {"ignore_eos", true}});
  const auto likeliest = plain["choices"][0]["logprobs"]["tokens"][3].get<std::string>();
  for (const Json& more : std::vector<Json>{{{"top_k", 1}, {"temperature", 1}},
                                            {{"temperature", 0.001}},
                                            {{"logit_bias", {{"17", -1e9}, {"18", 1e9}}}},
                                            {{"banned", {5, 6, 7, 8, 9, 10}}},
                                            {{"top_p", 0}, {"temperature", 2}}}) {
    CAPTURE(more.dump());
    Json body{{"prompt", prompt}, {"max_tokens", 4}, {"logprobs", 3}, {"echo", true}, {"seed", 1}};
    body.update(more);
    const auto response = complete(shared().port(), body);
    REQUIRE(response.status == 200);
    for (const char* word : {"NaN", "nan", "inf", "Infinity"})
      CHECK(response.body.find(word) == std::string::npos);
    const auto choice = response.json()["choices"][0];
    // The first generated token comes after the same tokens: the same distribution, whatever is drawn.
    CHECK(choice["logprobs"]["token_logprobs"].size() == 7);
    CHECK(choice["logprobs"]["top_logprobs"][3] == plain["choices"][0]["logprobs"]["top_logprobs"][3]);
  }
}

TEST_CASE("a model whose logits are not finite fails requests, and never the server") {
  test::Served served({.model = test::SmallModel(96, std::numeric_limits<double>::quiet_NaN())});
  const auto generated = complete(served.port(), {{"prompt", "of"}, {"max_tokens", 4}});
  CHECK(generated.status == 500);
  CHECK(generated.json()["error"]["message"].get<std::string>().find("not finite") != std::string::npos);
  for (const int max_tokens : {0, 1, 4}) {  // scored alone, with the token after it, and then generated
    for (const Tokens& prompt : {Tokens{5, 6}, Tokens{5}}) {
      if (prompt.size() == 1 && max_tokens == 0) continue;  // nothing of it is predicted
      const auto scored = complete(served.port(), {{"prompt", prompt},
                                                   {"max_tokens", max_tokens},
                                                   {"temperature", 0},
                                                   {"echo", true},
                                                   {"logprobs", 1}});
      CAPTURE(scored.body);
      CHECK(scored.status == 500);
      CHECK(scored.json()["error"]["message"] == generated.json()["error"]["message"]);
    }
  }
  const auto streamed = complete(served.port(), {{"prompt", "of"}, {"max_tokens", 4}, {"stream", true}});
  CHECK(streamed.status == 500);
  CHECK(served.becomes_idle());
}

TEST_CASE("generation is the engine's, and a text prompt the same as its tokens: no token is added") {
  Reference reference;
  for (const std::string text : {"of the answer", "Question", " of", "é日"}) {
    CAPTURE(text);
    const auto tokens = encoded(text);
    const auto expected = reference.generate(tokens, 10);
    const Json more{{"max_tokens", 10}, {"temperature", 0}, {"return_token_ids", true}};
    Json by_text = more, by_tokens = more;
    by_text["prompt"] = text, by_tokens["prompt"] = tokens;
    const auto a = answer(by_text), b = answer(by_tokens);
    CHECK(a["choices"][0]["token_ids"] == expected);
    CHECK(b["choices"][0] == a["choices"][0]);
    CHECK(a["usage"]["prompt_tokens"] == tokens.size());
    CHECK(a["usage"] == b["usage"]);
    const auto listed = test::ask(shared().port(), "POST", "/tokenize", Json{{"prompt", text}}.dump()).json();
    CHECK(listed["tokens"] == tokens);
  }
}

TEST_CASE("patterns are served side by side, by the model's name") {
  std::mt19937 random(2);
  const auto prompt = random_tokens(random, 70);
  for (std::size_t p = 0; p < 2; ++p) {
    Reference reference(p);
    const auto expected = reference.generate(prompt, 12);
    const auto names = p == 0 ? std::vector<std::string>{"ratplus", "ratplus@16,24,4"}
                              : std::vector<std::string>{"ratplus@1,0,0"};
    for (const auto& name : names) {
      const auto json = answer({{"model", name},
                                {"prompt", prompt},
                                {"max_tokens", 12},
                                {"temperature", 0},
                                {"return_token_ids", true}});
      CHECK(json["model"] == name);
      CHECK(json["choices"][0]["token_ids"] == expected);
    }
    const auto scored = reference.score(prompt, 1);
    const auto json = answer(
        {{"model", names.back()}, {"prompt", prompt}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 1}});
    CHECK(json["choices"][0]["logprobs"]["token_logprobs"].back().get<double>() ==
          doctest::Approx(scored.log_probability.back()).epsilon(1e-6));
  }
  const auto other = complete(shared().port(), {{"model", "gpt"}, {"prompt", "of"}});
  CHECK(other.status == 404);
  CHECK(other.json()["error"]["param"] == "model");
}

TEST_CASE("a seed gives the same answers in any company; without one they differ") {
  const Json body{{"prompt", "of the"}, {"n", 3}, {"seed", 7}, {"max_tokens", 20}, {"temperature", 1.5}};
  const auto alone = answer(body)["choices"];
  REQUIRE(alone.size() == 3);
  CHECK(alone[0]["text"] != alone[1]["text"]);
  auto many = body;
  many["prompt"] = {"answer", "of the", "of the"};
  const auto together = answer(many)["choices"];
  REQUIRE(together.size() == 9);
  for (std::size_t i = 0; i < 9; ++i) CHECK(together[i]["index"] == i);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(together[3 + i]["text"] == alone[i]["text"]);
    CHECK(together[6 + i]["text"] == alone[i]["text"]);
  }
  auto free = body;
  free.erase("seed");
  CHECK(answer(free)["choices"] != answer(free)["choices"]);
}

TEST_CASE("a stream's pieces are the whole answer, with usage where it is asked for") {
  for (const bool echo : {false, true}) {
    for (const bool scores : {false, true}) {
      CAPTURE(echo);
      CAPTURE(scores);
      Json body{{"prompt", {"of the", "answer"}},
                {"n", 2},
                {"seed", 3},
                {"max_tokens", 30},
                {"temperature", 1},
                {"echo", echo},
                {"stop", "zz"}};
      if (scores) body["logprobs"] = 2;
      const auto whole = answer(body);
      body["stream"] = true, body["stream_options"] = {{"include_usage", true}};
      const auto response = complete(shared().port(), body);
      REQUIRE(response.status == 200);
      CHECK(response.header.find("Content-Type: text/event-stream") != std::string::npos);
      auto events = response.events();
      REQUIRE(events.size() > 4);
      CHECK(events.back()["choices"].empty());
      CHECK(events.back()["usage"] == whole["usage"]);
      events.pop_back();
      for (const auto& event : events) {
        CHECK(event["usage"].is_null());
        CHECK(event["object"] == "text_completion");
      }
      for (int i = 0; i < 4; ++i) {
        const auto& expected = whole["choices"][static_cast<std::size_t>(i)];
        CHECK(joined(events, i) == expected["text"]);
        std::vector<Json> finishes;
        Json lists = Json::array();
        for (const auto& event : events) {
          const auto& choice = event["choices"][0];
          if (choice["index"] != i) continue;
          if (!choice["finish_reason"].is_null()) finishes.push_back(choice["finish_reason"]);
          if (scores)
            for (const auto& value : choice["logprobs"]["token_logprobs"]) lists.push_back(value);
        }
        REQUIRE(finishes.size() == 1);
        CHECK(finishes.front() == expected["finish_reason"]);
        if (scores) CHECK(lists == expected["logprobs"]["token_logprobs"]);
      }
    }
  }
}

TEST_CASE(
    "stop texts are found across tokens, never shown in part, and what only began like one is not lost") {
  const Json base{
      {"prompt", "of the"}, {"max_tokens", 40}, {"temperature", 1.2}, {"seed", 11}, {"ignore_eos", true}};
  const auto text = answer(base)["choices"][0]["text"].get<std::string>();
  REQUIRE(text.size() > 30);
  int found = 0;
  for (std::size_t at = 1; at + 4 < text.size(); at += 3) {
    const auto stop = text.substr(at, 4);
    if (!is_utf8(stop)) continue;
    CAPTURE(stop);
    const auto expected = text.substr(0, text.find(stop));
    auto body = base;
    body["stop"] = {stop, "never there"};
    const auto whole = answer(body);
    CHECK(whole["choices"][0]["text"] == expected);
    CHECK(whole["choices"][0]["finish_reason"] == "stop");
    CHECK(whole["usage"]["completion_tokens"].get<int>() <= 40);
    body["stream"] = true;
    const auto events = complete(shared().port(), body).events();
    CHECK(joined(events) == expected);
    CHECK(events.back()["choices"][0]["finish_reason"] == "stop");
    ++found;
  }
  CHECK(found > 5);
  auto body = base;
  body["stop"] = text.substr(text.size() - 3) + "#";  // may begin at the end, and is not there
  CHECK(answer(body)["choices"][0]["text"] == text);
  body["stream"] = true;
  CHECK(joined(complete(shared().port(), body).events()) == text);
}

TEST_CASE("characters of several tokens come whole in every event") {
  Json bias = Json::object();  // bytes, which are tokens 3 to 258
  for (int token = 259; token < 320; ++token) bias[std::to_string(token)] = -1e9;
  for (const int lead : {0xC3, 0xE2, 0xE6, 0xF0}) bias[std::to_string(lead + 3)] = 6;
  for (int byte = 0x80; byte < 0xC0; ++byte) bias[std::to_string(byte + 3)] = 3;
  std::int64_t characters = 0;
  for (int seed = 0; seed < 12; ++seed) {
    Json body{{"prompt", "of"},     {"max_tokens", 60},   {"temperature", 1},        {"seed", seed},
              {"logit_bias", bias}, {"ignore_eos", true}, {"return_token_ids", true}};
    const auto whole = answer(body)["choices"][0];
    auto prompt = encoded("of");
    generate::TextStream expected(*test::SmallModel::text().tokenizer, {});
    expected.follow(prompt);
    std::string text;
    for (const auto token : whole["token_ids"].get<Tokens>()) text += expected.add(token);
    text += expected.finish();
    CHECK(whole["text"] == text);
    body["stream"] = true;
    const auto response = complete(shared().port(), body);
    CHECK(is_utf8(response.body));
    CHECK(joined(response.events()) == text);
    for (const char c : text) characters += static_cast<unsigned char>(c) >= 0xC0 ? 1 : 0;
  }
  CHECK(characters > 50);
}

TEST_CASE("text offsets and names of tokens") {
  const auto json = answer({{"prompt", "of the answer"},
                            {"max_tokens", 6},
                            {"temperature", 1},
                            {"seed", 2},
                            {"echo", true},
                            {"logprobs", 0},
                            {"banned", Json(Tokens{})}});
  const auto& choice = json["choices"][0];
  const auto text = choice["text"].get<std::string>();
  CHECK(text.starts_with("of the answer"));
  const auto& scores = choice["logprobs"];
  CHECK(scores["top_logprobs"][1].is_null());
  const auto prompt = encoded("of the answer");
  CHECK(scores["text_offset"][0] == 0);
  CHECK(scores["text_offset"][prompt.size()] == 13);
  const auto names = scores["tokens"].get<std::vector<std::string>>();
  CHECK(names.size() == scores["text_offset"].size());
  for (std::size_t t = 1; t < prompt.size(); ++t) {
    const auto at = scores["text_offset"][t].get<std::size_t>();
    CHECK(text.substr(at, names[t].size()) == names[t]);
  }
}

TEST_CASE("without a tokenizer prompts and answers are token numbers") {
  test::Served served({.with_text = false});
  const auto json =
      complete(served.port(),
               {{"prompt", Tokens{5, 6, 7}}, {"max_tokens", 5}, {"temperature", 0}, {"logprobs", 1}})
          .json();
  CHECK(json["choices"][0]["token_ids"].size() == 5);
  CHECK(json["choices"][0]["text"] == "");
  CHECK(json["choices"][0]["logprobs"]["tokens"][0].get<std::string>().starts_with("token_id:"));
  const auto refused = complete(served.port(), {{"prompt", "of"}});
  CHECK(refused.status == 400);
  CHECK(refused.json()["error"]["message"].get<std::string>().find("tokenizer") != std::string::npos);
  for (const char* path : {"/tokenize", "/detokenize"})
    CHECK(test::ask(served.port(), "POST", path, R"({"prompt": "x", "tokens": [1]})").status == 400);
}
