#include "lib/serve/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <exception>
#include <future>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <utility>

#include "base/background_thread.h"
#include "base/json_dump.h"
#include "base/json_int32.h"
#include "base/start_thread.h"
#include "base/units.h"
#include "base/utf8.h"
#include "lib/serve/http_status.h"

namespace ratplus::serve {
namespace {

using Json = nlohmann::ordered_json;

HttpResponse json_response(const Json& json) {
  return {.body = json_dump(json)};
}

std::uint64_t random_seed() {
  static std::atomic<std::uint64_t> next =
      (std::uint64_t{std::random_device{}()} << 32) | std::random_device{}();
  return next += 0x9E3779B97F4A7C15;
}

RequestLimits limits_of(const ServerSettings& settings, infer::Inference& inference) {
  return {.vocabulary = inference.model().config.vocab_size,
          .tokens = inference.engine().settings().tokens,
          .max_tokens = settings.max_tokens,
          .sequences = std::min(settings.request_sequences, settings.queue)};
}

/// The text under a key of a body.
std::string text_field(const Json& body, const char* name) {
  if (!body.contains(name) || !body.at(name).is_string())
    throw ApiError(bad_request, name, fmt::format("\"{}\" is missing or no text", name));
  return body.at(name).get<std::string>();
}

}  // namespace

bool same_key(std::string_view key, std::string_view sent) {
  // The loop is as long as what was sent, which its sender knows.
  unsigned differ = key.size() == sent.size() ? 0 : 1;
  for (std::size_t i = 0; i < sent.size(); ++i) {
    const char expected = key.empty() ? '\0' : key[i % key.size()];
    differ |= static_cast<unsigned char>(expected) ^ static_cast<unsigned char>(sent[i]);
  }
  return differ == 0;
}

Server::Server(ServerSettings settings, HttpServer& http, infer::Inference& inference,
               const generate::ModelText& text, std::vector<std::unique_ptr<Link>> links)
    : settings_(std::move(settings)),
      http_(http),
      text_(text),
      limits_(limits_of(settings_, inference)),
      names_(text),
      pool_(std::make_unique<Pool>(std::max(settings_.threads, 1))),
      outputs_(*pool_),
      loop_(inference, settings_.patterns.size(),
            [this](std::function<void()> task) { outputs_.post(std::move(task)); }),
      ranks_(links.empty() ? nullptr
                           : std::make_unique<RankEngines>(
                                 loop_, std::move(links),
                                 [this](std::function<void()> task) { outputs_.post(std::move(task)); },
                                 [this](int rank) { rank_lost(rank); })),
      place_{.loop = engines(),
             .pool = *pool_,
             .metrics = metrics_,
             .text = text_,
             .names = names_,
             .ended = [this](const CompletionEnd& end) { completion_ended(end); }},
      created_(std::chrono::duration_cast<std::chrono::seconds>(
                   std::chrono::system_clock::now().time_since_epoch())
                   .count()) {}

Server::~Server() = default;

bool Server::run() {
  http_.listen();
  auto connections = start_thread([this] {
    leave_signals_to_main_thread();
    http_.run(*this);
  });
  std::exception_ptr failure;
  try {
    loop_.run();
  } catch (...) {
    failure = std::current_exception();
  }
  // Clients get what is on its way to them.
  stopping_ = true;
  engines().stop("the server ends");
  constexpr auto time = std::chrono::seconds(3);
  const auto drained = std::make_shared<std::promise<void>>();
  http_.drain([drained] { drained->set_value(); });
  drained->get_future().wait_for(time);
  http_.stop();
  connections.join();
  if (ranks_) ranks_->close(std::chrono::duration<double>(time).count());
  pool_.reset();
  if (failure) std::rethrow_exception(failure);
  return !rank_lost_;
}

void Server::rank_lost(int rank) {
  rank_lost_ = true;
  if (settings_.warn)
    settings_.warn(fmt::format("rank {} is gone; its requests failed, and the server ends", rank));
  stop();
}

void Server::stop() {
  if (stopping_.exchange(true)) return;
  log(fmt::format("ending: {} in progress", counted(outstanding_.load(), "answer")));
  // Requests that are there yet get an error, and the time to read it.
  http_.after(settings_.grace_seconds, [this] {
    log("ending: what still ran is cut off");
    engines().stop("the server ends, and the time for what runs is over");
  });
  http_.drain([this] { engines().stop("the server ends"); });  // last: from here on run() may return
}

std::string Server::name_of(std::size_t pattern) const {
  return settings_.name + "@" + settings_.patterns[pattern];
}

std::vector<std::string> Server::model_names() const {
  std::vector<std::string> names{settings_.name};
  for (std::size_t p = 0; p < settings_.patterns.size(); ++p) names.push_back(name_of(p));
  return names;
}

std::size_t Server::pattern_of(const std::string& model) const {
  if (model.empty() || model == settings_.name) return 0;
  for (std::size_t p = 0; p < settings_.patterns.size(); ++p) {
    if (model == name_of(p)) return p;
  }
  throw ApiError(not_found, "model",
                 fmt::format("there is no model \"{}\"; this server has {}", model.substr(0, 100),
                             fmt::join(model_names(), ", ")),
                 "model_not_found");
}

// --- routes ------------------------------------------------------------------------------------------------------

namespace {

/// Of a path as it was sent, with each %XX as the byte that it names.
std::string decoded(std::string_view sent) {
  std::string result;
  for (std::size_t i = 0; i < sent.size(); ++i) {
    unsigned byte = 0;
    const char* const begin = sent.data() + i + 1;
    if (sent[i] == '%' && i + 2 < sent.size() &&
        std::from_chars(begin, begin + 2, byte, 16).ptr == begin + 2) {
      result += static_cast<char>(byte);
      i += 2;
    } else {
      result += sent[i];
    }
  }
  return result;
}

}  // namespace

const std::vector<Server::Route>& Server::routes() {
  static const std::vector<Route> all = {
      {"POST", "/v1/completions", nullptr, false},
      {"PUT", "/generate", nullptr, false},
      {"POST", "/generate", nullptr, false},
      {"POST", "/v1/chat/completions", nullptr, false},
      {"GET", "/v1/models", &Server::models, false},
      {"GET", "/v1/models/", &Server::model, false},
      {"POST", "/tokenize", &Server::tokenize, false},
      {"POST", "/detokenize", &Server::detokenize, false},
      {"GET", "/tokenizer_info", &Server::tokenizer_info, false},
      {"GET", "/health", &Server::health, true},
      {"GET", "/metrics", &Server::metrics_text, true},
  };
  return all;
}

bool Server::Route::leads_to(std::string_view target) const {
  const std::string_view here = path;
  return here.ends_with('/') ? target.size() > here.size() && target.starts_with(here) : target == here;
}

const Server::Route* Server::route_of(const HttpHead& head) {
  for (const auto& route : routes()) {
    if (route.leads_to(head.path) && head.method == route.method) return &route;
  }
  return nullptr;
}

std::optional<HttpResponse> Server::refuse(const HttpHead& head) {
  const auto* route = route_of(head);
  if (route != nullptr && route->open) return std::nullopt;
  if (!settings_.api_key.empty()) {
    constexpr std::string_view bearer = "bearer ";
    const std::string_view sent = head.authorization;
    const bool is_bearer =
        std::ranges::equal(bearer, sent.substr(0, bearer.size()), {}, {},
                           [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!is_bearer || !same_key(settings_.api_key, sent.substr(bearer.size())))
      return error_response(ApiError(unauthorized, {},
                                     "the request has no valid key; send Authorization: Bearer KEY",
                                     "invalid_api_key"));
  }
  if (route == nullptr) {
    std::string methods;
    for (const auto& other : routes()) {
      if (!other.leads_to(head.path)) continue;
      methods += (methods.empty() ? "" : ", ") + std::string(other.method);
      if (other.method == std::string_view("GET")) methods += ", HEAD";
    }
    if (methods.empty())
      return error_response(ApiError(not_found, {}, fmt::format("there is no {}", head.path.substr(0, 200))));
    auto response =
        error_response(ApiError(wrong_method, {}, fmt::format("{} takes {}", head.path, methods)));
    response.headers.emplace_back("Allow", methods);
    return response;
  }
  if (stopping_)
    return error_response(ApiError(unavailable, {}, "the server ends and takes no new requests"));
  return std::nullopt;
}

void Server::handle(HttpRequest request, std::shared_ptr<Reply> reply) {
  const auto came = Completion::Clock::now();
  pool_->post(
      [this, came, request = std::make_shared<HttpRequest>(std::move(request)), reply = std::move(reply)] {
        HttpResponse response;
        try {
          const auto* route = route_of(request->head);
          if (route->answer == nullptr) {
            complete(*request, reply, came);
            return;
          }
          response = (this->*route->answer)(*request);
        } catch (const ApiError& error) {
          response = error_response(error);
        } catch (const std::exception& error) {
          response = error_response(ApiError(server_failed, {}, error.what()));
        }
        metrics_.count_response(response.status);
        if (response.status >= bad_request)
          log(fmt::format("{} {}: {}", request->head.method, request->head.path, response.status));
        reply->send(std::move(response));
      });
}

/// Counts sequences until their completion ends.
void Server::reserve(std::int64_t sequences) {
  if (outstanding_.fetch_add(sequences) + sequences <= settings_.queue) return;
  outstanding_ -= sequences;
  throw ApiError(
      too_many, {},
      fmt::format("{} answers are in progress or wait, and the queue has room for {} (--queue); try "
                  "again later",
                  outstanding_.load(), settings_.queue));
}

void Server::complete(const HttpRequest& request, const std::shared_ptr<Reply>& reply,
                      Completion::Clock::time_point came) {
  Completion::Asked asked{.came = came};
  if (request.head.path == "/generate") {
    auto parsed = parse_generate(request.body, limits_);
    asked.form = parsed.nested ? CompletionForm::generate_nested : CompletionForm::generate;
    asked.request = std::move(parsed.completion);
    tokenizer();
  } else if (request.head.path == "/v1/chat/completions") {
    if (!settings_.chat)
      throw ApiError(
          bad_request, "messages",
          "the model has no chat template: it continues texts; use /v1/completions with a prompt (or start "
          "the server with --chat-template)");
    asked.form = CompletionForm::chat;
    asked.request = parse_chat(request.body, *settings_.chat, limits_);
  } else {
    asked.request = parse_completion(request.body, limits_);
  }
  asked.pattern = pattern_of(asked.request.model);
  asked.model = asked.request.model.empty() ? settings_.name : asked.request.model;
  if (!asked.request.seeded) asked.request.settings.sampling.seed = random_seed();
  asked.prompts = prepare(asked.request, text_, limits_);
  const auto sequences = Completion::sequences_of(asked.request);
  reserve(sequences);
  asked.number = next_++;
  if (settings_.log_text) {
    for (const auto& prompt : asked.request.prompts)
      log(fmt::format("request {}: prompt {}", asked.number,
                      prompt.as_tokens ? json_dump(Json(prompt.tokens)) : json_dump(Json(prompt.text))));
  }
  const auto started = Completion::start(place_, std::move(asked), reply);
  const auto limit = settings_.time_limit_seconds;
  if (limit <= 0) return;
  http_.after(limit, [started, limit] {
    if (const auto completion = started.lock()) completion->expire(limit);
  });
}

void Server::completion_ended(const CompletionEnd& end) {
  outstanding_ -= end.sequences;
  if (end.reason != "cancelled") metrics_.count_response(end.status);
  log(fmt::format("request {}: {}, {} of {}, {} in, {} out, {:.3f} s", end.number, end.reason,
                  counted(end.answers, "answer"), counted(end.prompts, "prompt"),
                  counted(end.prompt_tokens, "token"), end.generated_tokens, end.seconds));
}

void Server::log(const std::string& line) const {
  if (!settings_.log) return;
  const std::lock_guard lock(log_mutex_);
  settings_.log(line);
}

HttpResponse Server::health(const HttpRequest&) {
  if (stopping_) return error_response(ApiError(unavailable, {}, "the server ends"));
  return json_response({{"status", "ok"}});
}

HttpResponse Server::metrics_text(const HttpRequest&) {
  return {.body = metrics_.text(load()), .content_type = "text/plain; version=0.0.4"};
}

Json Server::about_model(const std::string& name) const {
  return {{"id", name},
          {"object", "model"},
          {"created", created_},
          {"owned_by", "ratplus"},
          {"max_model_len", limits_.tokens},
          {"pattern", settings_.patterns[pattern_of(name)]}};
}

HttpResponse Server::models(const HttpRequest&) {
  Json json;
  json["object"] = "list";
  json["data"] = Json::array();
  for (const auto& name : model_names()) json["data"].push_back(about_model(name));
  return json_response(json);
}

HttpResponse Server::model(const HttpRequest& request) {
  constexpr std::string_view above = "/v1/models/";
  return json_response(about_model(decoded(std::string_view(request.head.path).substr(above.size()))));
}

const data::Tokenizer& Server::tokenizer() const {
  if (!text_.tokenizer)
    throw ApiError(bad_request, {}, "the model has no tokenizer; use /v1/completions with token numbers");
  return *text_.tokenizer;
}

/// The name of a special token alone is that token: lm-evaluation-harness finds the end of text so.
HttpResponse Server::tokenize(const HttpRequest& request) {
  const auto text = text_field(parse_body(request.body), "prompt");
  check_bytes("prompt", text, limits_);
  if (!is_utf8(text)) throw ApiError(bad_request, "prompt", "\"prompt\" is no well-formed UTF-8");
  std::vector<std::int32_t> tokens;
  const auto end = text_.end_of_text;
  if (text_.tokenizer && end >= 0 && end < text_.tokenizer->vocab_size() && text == names_.name(end)) {
    tokens = {end};
  } else {
    tokenizer().encode(text, tokens);
  }
  return json_response({{"count", tokens.size()}, {"max_model_len", limits_.tokens}, {"tokens", tokens}});
}

HttpResponse Server::detokenize(const HttpRequest& request) {
  const auto body = parse_body(request.body);
  if (!body.contains("tokens") || !body.at("tokens").is_array())
    throw ApiError(bad_request, "tokens", "\"tokens\" is missing or no list of token numbers");
  const auto known = tokenizer().vocab_size();
  std::vector<std::int32_t> tokens;
  for (const auto& value : body.at("tokens")) {
    const auto token = int32_of(value);
    if (!token || *token < 0 || *token >= known)
      throw ApiError(
          bad_request, "tokens",
          fmt::format("\"tokens\" holds what is no token: they are whole numbers from 0 to {}", known - 1));
    tokens.push_back(*token);
  }
  return json_response({{"prompt", tokenizer().decode(tokens)}});
}

HttpResponse Server::tokenizer_info(const HttpRequest&) {
  const auto known = tokenizer().vocab_size();
  const auto end = text_.end_of_text;
  Json json;
  json["tokenizer_class"] = "ratplus";
  json["eos_token"] = nullptr;
  if (end >= 0 && end < known) json["eos_token"] = names_.name(end);
  for (const char* name : {"bos_token", "pad_token", "chat_template"}) json[name] = nullptr;
  if (settings_.chat) json["chat_template"] = settings_.chat->source();
  json["vocab_size"] = known;
  json["model_max_length"] = limits_.tokens;
  return json_response(json);
}

}  // namespace ratplus::serve
