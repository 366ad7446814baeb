// Conversations: /v1/chat/completions with a template.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/error.h"
#include "tests/serve/served.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using test::ask;
using Json = nlohmann::json;

namespace {

constexpr const char* turns =
    "{% for m in messages %}{{ bos_token if loop.first }}{{ m.role }} {{ m.content | trim }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}answer{% endif %}";

std::filesystem::path written(const test::ScratchDirectory& scratch, const std::string& name,
                              const std::string& text) {
  std::ofstream(scratch.path() / name) << text;
  return scratch.path() / name;
}

test::Response chat(int port, const Json& body) {
  return ask(port, "POST", "/v1/chat/completions", body.dump());
}

std::string refusal(const std::filesystem::path& file) {
  try {
    const serve::ChatTemplate chat(file, test::SmallModel::text());
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("a conversation is the completion of what its template writes, whole and as a stream") {
  const test::ScratchDirectory scratch;
  const auto& text = test::SmallModel::text();
  test::Served::Settings settings;
  settings.server.chat = std::make_shared<serve::ChatTemplate>(written(scratch, "t.jinja", turns), text);
  test::Served served(settings);
  const int port = served.port();
  Json body{{"messages",
             {{{"role", "of"}, {"content", "  the Question "}},
              {{"role", "the"}, {"content", {{{"type", "text"}, {"text", "answer"}}}}}}},
            {"max_completion_tokens", 9},
            {"seed", 5},
            {"ignore_eos", true}};
  std::vector<std::int32_t> prompt{text.tokenizer->end_of_text() - 1};  // <s>
  for (const char* part : {"of the Question", "the answer", "answer"}) {
    std::vector<std::int32_t> tokens;
    text.tokenizer->encode(part, tokens);
    prompt.insert(prompt.end(), tokens.begin(), tokens.end());
    if (part != std::string("answer")) prompt.push_back(text.end_of_text);
  }
  REQUIRE(prompt.size() > 8);
  const auto plain =
      test::complete(port, {{"prompt", prompt}, {"max_tokens", 9}, {"seed", 5}, {"ignore_eos", true}}).json();
  const auto response = chat(port, body);
  REQUIRE(response.status == 200);
  const auto json = response.json();
  CHECK(json["object"] == "chat.completion");
  CHECK(json["choices"][0]["message"]["role"] == "assistant");
  CHECK(json["choices"][0]["message"]["content"] == plain["choices"][0]["text"]);
  CHECK(json["choices"][0]["finish_reason"] == "length");
  CHECK(json["usage"] == plain["usage"]);
  body["stream"] = true;
  std::string streamed;
  const auto events = chat(port, body).events();
  CHECK(events.front()["choices"][0]["delta"]["role"] == "assistant");
  for (const auto& event : events) {
    CHECK(event["object"] == "chat.completion.chunk");
    streamed += event["choices"][0]["delta"]["content"].get<std::string>();
  }
  CHECK(streamed == plain["choices"][0]["text"]);
  body["stream"] = false, body["logprobs"] = true, body["top_logprobs"] = 2;
  const auto scores = chat(port, body).json()["choices"][0]["logprobs"]["content"];
  REQUIRE(scores.size() == 9);
  for (const auto& token : scores) {
    CHECK(token["logprob"].get<double>() <= token["top_logprobs"][0]["logprob"].get<double>());
    CHECK(token["top_logprobs"].size() == 2);
    CHECK(token["bytes"].is_array());
  }
  CHECK(ask(port, "GET", "/tokenizer_info").json()["chat_template"] == turns);
  // Without a limit an answer has the room that there is.
  body.erase("max_completion_tokens"), body.erase("logprobs"), body.erase("top_logprobs");
  CHECK(chat(port, body).json()["usage"]["total_tokens"] == 96);
  // A text that no tokens of a sequence hold is not encoded.
  body["messages"][0]["content"] = std::string(96 * 256, 'a');
  const auto refused = chat(port, body);
  CHECK(refused.status == 400);
  CHECK(refused.json()["error"]["param"] == "messages");
  CHECK(refused.body.find("bytes") != std::string::npos);
}

TEST_CASE("bad conversations are refused by their field") {
  const test::ScratchDirectory scratch;
  test::Served::Settings settings;
  settings.server.chat = std::make_shared<serve::ChatTemplate>(
      written(scratch, "t.jinja",
              "{% if messages[0].role != 'user' %}{{ raise_exception('a user begins') }}{% endif %}\n{{ "
              "messages[0].content + 1 if messages | length > 1 else 'x' }}"),
      test::SmallModel::text());
  test::Served served(settings);
  const Json message{{"role", "user"}, {"content", "of"}};
  const auto refused = [&](Json body, const std::string& param, const std::string& words) {
    if (!body.contains("messages")) body["messages"] = Json::array({message});
    const auto response = chat(served.port(), body);
    CAPTURE(response.body);
    CHECK(response.status == 400);
    CHECK(response.json()["error"]["param"] == param);
    CHECK(response.body.find(words) != std::string::npos);
  };
  refused({{"messages", Json::array()}}, "messages", "no \\\"messages\\\"");
  refused({{"messages", {{{"content", "x"}}}}}, "messages", "role");
  refused({{"messages", {{{"role", "system"}, {"content", "x"}}}}}, "messages", "a user begins");
  refused({{"messages", {message, message}}}, "messages",
          "line 2: + of values of the types string and number");
  refused({{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}}, "messages",
          "texts alone");
  refused({{"prompt", "x"}}, "prompt", "use /v1/completions");
  refused({{"tools", {{{"type", "function"}}}}}, "tools", "not supported");
  refused({{"top_logprobs", 2}}, "top_logprobs", "goes with");
  refused({{"logprobs", 2}}, "logprobs", "true or false");
  refused({{"response_format", {{"type", "json_object"}}}}, "response_format", "text");
  refused({{"something", 2}}, "something", "there is no field");
}

TEST_CASE("a template's file: its text or a tokenizer_config.json, refused with what is not supported") {
  const test::ScratchDirectory scratch;
  const Json config{{"bos_token", Json::object({{"content", "<s>"}})},
                    {"eos_token", "</s>"},
                    {"chat_template",
                     {{{"name", "tools"}, {"template", "{{ 1"}},
                      {{"name", "default"}, {"template", "{{ bos_token }}of{{ eos_token }}"}}}}};
  const auto file = written(scratch, "tokenizer_config.json", config.dump());
  CHECK(serve::ChatTemplate::is_in(file));
  CHECK_FALSE(serve::ChatTemplate::is_in(written(scratch, "none.json", "{}")));
  CHECK_FALSE(serve::ChatTemplate::is_in(scratch.path() / "missing.json"));
  const auto twice = written(scratch, "twice.json", R"({"chat_template": "a", "chat_template": "b"})");
  CHECK_THROWS_WITH_AS(serve::ChatTemplate::is_in(twice),
                       doctest::Contains("the name \"chat_template\" comes twice"), Error);
  const serve::ChatTemplate read(file, test::SmallModel::text());
  const auto tokens = read.tokens(read.text(Json::object()));
  CHECK(tokens.size() > 2);
  CHECK(tokens.front() == 1);
  CHECK(tokens.back() == 2);
  const auto faults = {
      std::pair{"{% macro f() %}{% endmacro %}", "line 1: {% macro %} is not supported"},
      {"a\nb{{ x | sort }}", "line 2: the filter \"sort\" is not supported"},
      {"{{ x.title() }}", "the method \"title\""},
      {"{{ x is divisibleby(3) }}", "the test \"divisibleby\""},
      {"{{ dict(a=1) }}", "the function \"dict\""},
      {"\n\n{% if x %}", "line 3: {% endif %} is missing"},
      {"{% for x in y %}{% endif %}", "is not supported"},
      {"{{ x", "line 1: {{ has no }}"},
      {"{# x", "has no #}"},
      {"{{ 'x }}", "closing quote"},
      {"{{ x y }}", "\"y\" is not expected"},
      {"{{ }}", "ends too early"},
      {"{% break %}", "outside of a loop"},
      {"{{ x[::2] }}", "a step"},
      {"{{ x ? y }}", "no part of an expression"},
  };
  for (const auto& entry : faults) {
    const auto& source = entry.first;
    const auto& message = entry.second;
    CAPTURE(source);
    const auto text = refusal(written(scratch, "bad.jinja", source));
    CAPTURE(text);
    CHECK(text.find(message) != std::string::npos);
    CHECK(text.find("bad.jinja") != std::string::npos);
  }
  CHECK(refusal(scratch.path() / "missing").find("no such file") != std::string::npos);
  CHECK(refusal(written(scratch, "none.json", "{}")).find("no \"chat_template\"") != std::string::npos);
}
