// The server's other answers: models, tokens, metrics, keys, limits, and its end.
#include "lib/serve/server.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <random>

#include "base/error.h"
#include "tests/serve/served.h"

using namespace ratplus;
using test::ask;
using test::complete;
using Json = nlohmann::json;
using Tokens = std::vector<std::int32_t>;
using test::soon;

namespace {

/// The value of a metric without labels.
double metric(int port, const std::string& name) {
  const auto text = ask(port, "GET", "/metrics").body;
  const auto at = text.find("\n" + name + " ");
  REQUIRE(at != std::string::npos);
  return std::stod(text.substr(at + name.size() + 2));
}

double seconds_since(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - time).count();
}

}  // namespace

TEST_CASE("models, health, and the tokenizer as lm-evaluation-harness uses it") {
  test::Served served;
  const int port = served.port();
  const auto models = ask(port, "GET", "/v1/models").json();
  CHECK(models["object"] == "list");
  REQUIRE(models["data"].size() == 3);
  CHECK(models["data"][0]["id"] == "ratplus");
  CHECK(models["data"][2]["id"] == "ratplus@1,0,0");
  for (const auto& model : models["data"]) {
    CHECK(model["object"] == "model");
    CHECK(model["owned_by"] == "ratplus");
    CHECK(model["max_model_len"] == 96);
    CHECK(model["created"].get<std::int64_t>() > 1'700'000'000);
  }
  for (const char* path : {"/v1/models/ratplus@1,0,0", "/v1/models/ratplus%401%2c0%2C0"})
    CHECK(ask(port, "GET", path).json() == models["data"][2]);
  for (const char* path : {"/v1/models/", "/v1/models/other", "/v1/models/ratplus%4", "/v1/models/%zz"}) {
    CAPTURE(path);
    CHECK(ask(port, "GET", path).status == 404);
  }
  CHECK(ask(port, "DELETE", "/v1/models/ratplus").status == 405);
  CHECK(ask(port, "GET", "/health").status == 200);
  const auto info = ask(port, "GET", "/tokenizer_info").json();
  CHECK(info["eos_token"] == "</s>");
  for (const char* none : {"bos_token", "pad_token", "chat_template"}) CHECK(info[none].is_null());
  const auto end =
      ask(port, "POST", "/tokenize", R"({"prompt": "</s>", "add_special_tokens": false})").json();
  CHECK(end["tokens"] == Tokens{2});
  const auto tokens = ask(port, "POST", "/tokenize", R"({"prompt": "of the é", "add_special_tokens": false})")
                          .json()["tokens"];
  CHECK(ask(port, "POST", "/detokenize", Json{{"tokens", tokens}}.dump()).json()["prompt"] == "of the é");
  CHECK(ask(port, "POST", "/detokenize", R"({"tokens": [310]})").status == 400);
  CHECK(ask(port, "POST", "/detokenize", R"({"tokens": [-1]})").status == 400);
  CHECK(ask(port, "POST", "/tokenize", R"({"prompt": 5})").json()["error"]["param"] == "prompt");
  // A text is no longer than that of a sequence.
  std::string text;
  while (text.size() < std::size_t{96} * 256) text += "of the ";
  text.resize(std::size_t{96} * 256);
  CHECK(ask(port, "POST", "/tokenize", Json{{"prompt", text}}.dump()).status == 200);
  const auto too_long = ask(port, "POST", "/tokenize", Json{{"prompt", text + "o"}}.dump());
  CHECK(too_long.status == 400);
  CHECK(too_long.json()["error"]["param"] == "prompt");
  CHECK(too_long.body.find("24577 bytes, and a sequence has at most 96 tokens") != std::string::npos);
  const auto chat = ask(port, "POST", "/v1/chat/completions", R"({"messages": []})");
  CHECK(chat.status == 400);
  CHECK(chat.body.find("chat template") != std::string::npos);
}

TEST_CASE("RULER's client: PUT /generate in both forms gives the completion alone") {
  test::Served served;
  const auto expected = complete(served.port(), {{"prompt", "of the"}, {"max_tokens", 9}, {"temperature", 0}})
                            .json()["choices"][0]["text"];
  const auto one = ask(
      served.port(), "PUT", "/generate",
      R"({"prompt": "of the", "max_tokens": 9, "temperature": 0.0, "top_k": 32, "top_p": 1.0, "stop": []})");
  CHECK(one.json() == Json{{"text", Json::array({expected})}});
  const auto two = ask(served.port(), "POST", "/generate",
                       R"({"text": "of the", "sampling_params": {"max_new_tokens": 9, "temperature": 0}})");
  CHECK(two.json() == Json{{"text", expected}});
  CHECK(ask(served.port(), "PUT", "/generate", R"({"prompt": "x", "echo": true})").status == 400);
}

TEST_CASE("metrics count what happened, in Prometheus' form") {
  test::Served served;
  const int port = served.port();
  complete(port, {{"prompt", {"of", "the"}}, {"max_tokens", 5}, {"ignore_eos", true}});
  complete(port, {{"prompt", Tokens{5, 6, 7}}, {"max_tokens", 0}, {"echo", true}, {"logprobs", 1}});
  complete(port, {{"prompt", 7}});
  CHECK(served.becomes_idle());
  CHECK(metric(port, "ratplus_generated_tokens_total") == 10);
  CHECK(metric(port, "ratplus_scored_tokens_total") == 2);
  CHECK(metric(port, "ratplus_first_token_seconds_count") == 2);
  CHECK(metric(port, "ratplus_token_seconds_count") == 8);
  CHECK(metric(port, "ratplus_request_seconds_count") == 2);
  CHECK(metric(port, "ratplus_sequences_running") == 0);
  const auto text = ask(port, "GET", "/metrics").body;
  CHECK(text.find("ratplus_responses_total{status=\"400\"} 1\n") != std::string::npos);
  CHECK(text.find("ratplus_completions_total{end=\"length\"} 2\n") != std::string::npos);
  CHECK(text.find("ratplus_request_seconds_bucket{le=\"+Inf\"} 2\n") != std::string::npos);
}

TEST_CASE("a key is asked for, except for health and metrics") {
  test::Served served({.server = {.api_key = "secret"}});
  const int port = served.port();
  const std::string body = R"({"prompt": "of", "max_tokens": 1})";
  for (const char* header : {"", "Authorization: Bearer \r\n", "Authorization: Bearer secre\r\n",
                             "Authorization: Bearer secret2\r\n", "Authorization: secret\r\n"}) {
    const auto response = ask(port, "POST", "/v1/completions", body, header);
    CHECK(response.status == 401);
    CHECK(response.json()["error"]["type"] == "authentication_error");
  }
  CHECK(ask(port, "POST", "/v1/completions", body, "Authorization: Bearer secret\r\n").status == 200);
  CHECK(ask(port, "POST", "/v1/completions", body, "authorization: bearer secret\r\n").status == 200);
  CHECK(ask(port, "GET", "/health").status == 200);
  CHECK(ask(port, "GET", "/metrics").status == 200);
  CHECK(ask(port, "GET", "/v1/models").status == 401);
  CHECK(serve::same_key("ab", "ab"));
  CHECK_FALSE(serve::same_key("ab", "abab"));
  CHECK_FALSE(serve::same_key("ab", ""));
  CHECK_FALSE(serve::same_key("", "a"));
}

TEST_CASE("paths and methods that are not there") {
  test::Served served;
  CHECK(ask(served.port(), "GET", "/v2").status == 404);
  const auto method = ask(served.port(), "GET", "/v1/completions");
  CHECK(method.status == 405);
  CHECK(method.header.find("Allow: POST\r\n") != std::string::npos);
  const auto health = ask(served.port(), "DELETE", "/health");
  CHECK(health.status == 405);
  CHECK(health.header.find("Allow: GET, HEAD\r\n") != std::string::npos);
  CHECK(ask(served.port(), "GET", "/v1/models?x=1").status == 200);
}

TEST_CASE("a full queue answers 429, and is empty again when requests have ended") {
  test::Served served(
      {.model = test::SmallModel(4000), .server = {.request_sequences = 6, .queue = 6}, .slots = 1});
  const Json body{{"prompt", {"of", "the", "of", "the"}}, {"max_tokens", 300}, {"ignore_eos", true}};
  test::Client first(served.port());
  first.send(test::request_bytes("POST", "/v1/completions", body.dump()));
  REQUIRE(soon([&] { return served.server().outstanding() == 4; }));
  const auto second = complete(served.port(), body);
  CHECK(second.status == 429);
  CHECK(second.header.find("Retry-After: ") != std::string::npos);
  CHECK(first.read_response().status == 200);
  CHECK(served.becomes_idle());
  CHECK(complete(served.port(), {{"prompt", "of"}, {"max_tokens", 1}}).status == 200);
  // More than the queue ever holds is a bad request, not one to try again.
  CHECK(complete(served.port(), {{"prompt", Json::array({"a", "a", "a", "a", "a", "a", "a"})}}).status ==
        400);
}

TEST_CASE("limits of answers") {
  test::Served served({.server = {.max_tokens = 8}});
  CHECK(complete(served.port(), {{"prompt", "of"}, {"max_tokens", 9}}).json()["error"]["param"] ==
        "max_tokens");
  const auto usual = complete(served.port(), {{"prompt", "of"}, {"ignore_eos", true}}).json();
  CHECK(usual["usage"]["completion_tokens"] == 8);
}

TEST_CASE("a request that takes longer than its limit gets 504, streaming or not, and leaves its slot") {
  test::Served::Settings settings{.model = test::SmallModel(20000)};
  settings.server.time_limit_seconds = 0.3;
  test::Served served(settings);
  const int port = served.port();
  Json body{{"prompt", Tokens(8, 5)}, {"max_tokens", 19900}, {"ignore_eos", true}};
  const auto late = complete(port, body);
  CHECK(late.status == 504);
  CHECK(late.body.find("after 0.3 s (the server's --time-limit)") != std::string::npos);
  body["stream"] = true;
  const auto stream = complete(port, body);
  CHECK(stream.body.find("--time-limit") != std::string::npos);
  CHECK(served.becomes_idle());
  body["max_tokens"] = 3, body["stream"] = false;
  CHECK(complete(port, body).status == 200);
  CHECK(ask(port, "GET", "/metrics").body.find("ratplus_responses_total{status=\"504\"} 2") !=
        std::string::npos);
}

TEST_CASE("limits of time beyond what a clock counts are none") {
  test::Served served(
      {.model = test::SmallModel(4000), .server = {.time_limit_seconds = 1e300, .grace_seconds = 1e300}});
  test::Client client(served.port());
  const Json body{{"prompt", "of"}, {"max_tokens", 2000}, {"ignore_eos", true}, {"stream", true}};
  client.send(test::request_bytes("POST", "/v1/completions", body.dump()));
  client.read_until("data: ");
  served.server().stop();
  client.read_until("data: [DONE]");
  served.join();
}

TEST_CASE("a client that leaves frees its slot, streaming or not") {
  test::Served served({.model = test::SmallModel(6000), .slots = 2});
  for (const bool stream : {false, true}) {
    CAPTURE(stream);
    const Json body{
        {"prompt", {"of", "the", "of"}}, {"max_tokens", 5900}, {"ignore_eos", true}, {"stream", stream}};
    const auto generated = metric(served.port(), "ratplus_generated_tokens_total");
    {
      test::Client client(served.port());
      client.send(test::request_bytes("POST", "/v1/completions", body.dump()));
      if (stream) client.read_until("data: ");
      REQUIRE(soon([&] { return served.server().load().running == 2; }));
    }
    CHECK(served.becomes_idle());
    CHECK(served.server().load().cache_share == 0);
    CHECK(metric(served.port(), "ratplus_generated_tokens_total") - generated < 3 * 5900);
  }
  const auto text = ask(served.port(), "GET", "/metrics").body;
  CHECK(text.find("ratplus_completions_total{end=\"cancelled\"} 2\n") != std::string::npos);
}

TEST_CASE("an end in order finishes what runs, refuses what comes, and returns") {
  test::Served served({.model = test::SmallModel(4000)});
  const int port = served.port();
  test::Client running(port), idle(port), waiting(port);
  running.send(test::request_bytes(
      "POST", "/v1/completions",
      Json{{"prompt", "of"}, {"max_tokens", 2500}, {"ignore_eos", true}, {"stream", true}}.dump()));
  running.read_until("data: ");
  served.server().stop();
  CHECK(soon([&] {
    try {
      return ask(port, "GET", "/health").status == 503;
    } catch (const Error&) {
      return false;
    }
  }));
  const auto refused = complete(port, {{"prompt", "of"}});
  CHECK(refused.status == 503);
  CHECK(refused.header.find("Retry-After") != std::string::npos);
  CHECK(idle.closed());
  CHECK(running.read_until("0\r\n\r\n").find("[DONE]") != std::string::npos);
  served.join();
}

TEST_CASE("what lasts longer than the grace gets an error, and the server ends nevertheless") {
  test::Served served({.model = test::SmallModel(20000), .server = {.grace_seconds = 0.2}});
  test::Client running(served.port()), streaming(served.port());
  Json body{{"prompt", "of"}, {"max_tokens", 19000}, {"ignore_eos", true}};
  running.send(test::request_bytes("POST", "/v1/completions", body.dump()));
  body["stream"] = true;
  streaming.send(test::request_bytes("POST", "/v1/completions", body.dump()));
  streaming.read_until("data: ");
  REQUIRE(soon([&] { return served.server().load().running == 2; }));
  const auto begin = std::chrono::steady_clock::now();
  served.server().stop();
  CHECK(running.read_response().status == 503);
  CHECK(streaming.read_until("0\r\n\r\n").find("\"error\"") != std::string::npos);
  served.join();
  CHECK(seconds_since(begin) < 8);
}

TEST_CASE("weights are exchanged between requests, none of which is lost") {
  test::Served served({.model = test::SmallModel(1000), .ranks = 1});
  const int port = served.port();
  const Json body{{"prompt", "of the"}, {"max_tokens", 40}, {"temperature", 0}, {"ignore_eos", true}};
  const auto before = complete(port, body).json()["choices"];
  REQUIRE(served.becomes_idle());
  test::Client running(port);
  auto longer = body;
  longer["max_tokens"] = 500;
  running.send(test::request_bytes("POST", "/v1/completions", longer.dump()));
  REQUIRE(soon([&] { return served.server().load().running == 1; }));
  served.server().exchange_weights([&] { served.inference().set_initial(99); });
  const auto after = complete(port, body).json()["choices"];
  CHECK(after != before);
  const auto old = running.read_response().json()["choices"][0]["text"].get<std::string>();
  CHECK(old.starts_with(before[0]["text"].get<std::string>()));
  CHECK(complete(port, body).json()["choices"] == after);
}

TEST_CASE(
    "prompts that begin alike: the same answers, counted; scores and other patterns read nothing; new "
    "weights drop it") {
  const test::SmallModel model(400);
  test::Served plain({.model = model, .ranks = 1}),
      served({.model = model, .prefix_bytes = 4 << 20, .ranks = 1});
  const int port = served.port();
  Tokens prompt;
  for (int i = 0; i < 300; ++i) prompt.push_back(i * 7 % 300 + 3);
  Json body{
      {"prompt", prompt}, {"max_tokens", 8}, {"seed", 2}, {"ignore_eos", true}, {"return_token_ids", true}};
  const auto tokens_of = [](const test::Response& response) {
    REQUIRE(response.status == 200);
    return response.json()["choices"][0]["token_ids"];
  };
  const auto expected = tokens_of(complete(plain.port(), body));
  for (const double hits : {0, 1, 2}) {
    CHECK(tokens_of(complete(port, body)) == expected);
    CHECK(soon([&] { return metric(port, "ratplus_prefix_hits_total") == hits; }));
  }
  CHECK(metric(port, "ratplus_prefix_tokens_total") == 512);
  CHECK(metric(port, "ratplus_prefix_snapshots") == 1);
  CHECK(metric(port, "ratplus_prefix_bytes") > 0);
  body["model"] = "ratplus@1,0,0";
  CHECK(tokens_of(complete(port, body)) == tokens_of(complete(plain.port(), body)));
  CHECK(metric(port, "ratplus_prefix_hits_total") == 2);
  body.erase("model");
  body["echo"] = true, body["logprobs"] = 1, body["max_tokens"] = 0;
  CHECK(complete(port, body).json()["choices"][0]["logprobs"] ==
        complete(plain.port(), body).json()["choices"][0]["logprobs"]);
  CHECK(metric(port, "ratplus_prefix_hits_total") == 2);
  body["echo"] = false, body.erase("logprobs"), body["max_tokens"] = 8;
  for (auto* each : {&served, &plain})
    each->server().exchange_weights([each] { each->inference().set_initial(77); });
  const auto other = tokens_of(complete(port, body));
  CHECK(metric(port, "ratplus_prefix_hits_total") == 2);
  CHECK(other != expected);
  CHECK(other == tokens_of(complete(plain.port(), body)));
  // The answers to one prompt compute it once.
  body["n"] = 4, body["prompt"] = Tokens(50, 9);
  CHECK(complete(port, body).json()["choices"] == complete(plain.port(), body).json()["choices"]);
  CHECK(soon([&] { return metric(port, "ratplus_prefix_hits_total") == 5; }));
}

TEST_CASE("a failure of the computation ends the server with its message") {
  test::Served served;
  served.server().exchange_weights([] { fail("the file is damaged"); });
  CHECK_THROWS_WITH_AS(served.join(), "the file is damaged", Error);
}

TEST_CASE("requests are logged by number and size, prompts where that is asked for") {
  for (const bool text : {false, true}) {
    std::mutex mutex;
    std::string lines;
    {
      test::Served served({.server = {.log_text = text, .log = [&](const std::string& line) {
                                        const std::lock_guard lock(mutex);
                                        lines += line + "\n";
                                      }}});
      complete(served.port(), {{"prompt", "of the answer"}, {"max_tokens", 3}, {"ignore_eos", true}});
      complete(served.port(), {{"prompt", "of the answer"}, {"max_tokens", -3}});
    }
    CHECK(lines.find("request 1: length, 1 answer of 1 prompt") != std::string::npos);
    CHECK(lines.find("3 out") != std::string::npos);
    CHECK(lines.find("/v1/completions: 400") != std::string::npos);
    CHECK((lines.find("of the answer") != std::string::npos) == text);
  }
}

TEST_CASE("200 clients of mixed lengths, of which half leave early: no reply is lost, no slot is kept") {
  test::Served served({.model = test::SmallModel(200), .slots = 16});
  const int port = served.port();
  std::atomic<int> answered = 0, left = 0, wrong = 0;
  std::vector<std::thread> threads;
  constexpr int clients = 200, at_a_time = 8;
  for (int t = 0; t < at_a_time; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = t; i < clients; i += at_a_time) {
        try {
          const bool stream = random() % 2 == 0, leaves = i / at_a_time % 2 == 0;
          const bool scores = random() % 3 == 0;
          const int max_tokens = leaves ? 100 : 1 + static_cast<int>(random() % 60);
          Json body{{"prompt", Tokens(1 + random() % 90, 5)},
                    {"max_tokens", max_tokens},
                    {"ignore_eos", true},
                    {"stream", stream},
                    {"temperature", random() % 2},
                    {"seed", i}};
          if (scores) body["echo"] = true, body["logprobs"] = 1;
          test::Client client(port);
          client.send(test::request_bytes("POST", "/v1/completions", body.dump()));
          if (leaves) {
            if (stream && random() % 2 == 0) client.read_until("data: ");
            ++left;
            continue;
          }
          const auto response = client.read_response();
          const bool whole = stream ? response.body.ends_with("data: [DONE]\n\n")
                                    : response.json()["usage"]["completion_tokens"] == max_tokens;
          ++(response.status == 200 && whole ? answered : wrong);
        } catch (const std::exception&) {
          ++wrong;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(answered + left == clients);
  CHECK(answered > clients / 3);
  CHECK(served.becomes_idle());
  CHECK(served.server().load().cache_share == 0);
}
