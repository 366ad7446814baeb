// Server: OpenAI's API for completions over one model, whose patterns are served side by side.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "lib/generate/model_text.h"
#include "lib/infer/inference.h"
#include "lib/serve/completion.h"
#include "lib/serve/engine_loop.h"
#include "lib/serve/http_server.h"
#include "lib/serve/metrics.h"
#include "lib/serve/pool.h"
#include "lib/serve/rank_engines.h"
#include "lib/serve/token_names.h"

namespace ratplus::serve {

struct ServerSettings {
  std::string name = "ratplus";                      ///< of the model; alone it means the first pattern
  std::vector<std::string> patterns = {};            ///< of each engine, as in NAME@PATTERN
  std::string api_key = {};                          ///< empty: everybody is served
  std::int64_t max_tokens = 0;                       ///< of an answer at most; 0: as many as a sequence has
  std::int64_t request_sequences = 4096;             ///< prompts times answers of a request at most
  std::int64_t queue = 8192;                         ///< answers and texts to score of all requests at most
  double time_limit_seconds = 0;                     ///< of a request; 0: none
  double grace_seconds = 30;                         ///< for what runs when the server is told to end
  int threads = 2;                                   ///< for JSON and tokens
  bool log_text = false;                             ///< log prompts, too
  std::shared_ptr<const ChatTemplate> chat = {};     ///< none: conversations are refused
  std::function<void(const std::string&)> log = {};  ///< takes a line; none: nothing is logged
  std::function<void(const std::string&)> warn =
      {};  ///< takes a line about a fault of the server; none: nobody is told
};

/// Compares a key with one that a client sent, in a time that does not depend on their contents.
bool same_key(std::string_view key, std::string_view sent);

class Server : private HttpHandler {
 public:
  /// The inference has an engine and a scorer for each of settings.patterns. All of it outlives the server. `links` lead to
  /// further ranks, each in serve_rank() with an inference like this one.
  Server(ServerSettings settings, HttpServer& http, infer::Inference& inference,
         const generate::ModelText& text, std::vector<std::unique_ptr<Link>> links = {});
  ~Server() override;

  /// Serves until stop() has ended what ran; by the thread that made the inference. Throws Error where the address is taken
  /// meanwhile, and what the computation throws. False: a rank was lost, whose requests failed; the others were answered.
  bool run();

  // --- any thread ------------------------------------------------------------------------------------------------
  /// Refuses new requests with 503, and returns at once; run() returns when those that are there have ended, or after settings.grace_seconds.
  /// The server outlives the call: a thread that is not that of the connections tells that of run() when it has made it.
  void stop();
  /// Calls exchange() by the thread of run(), between the requests that came before and those after; none is lost. What it
  /// throws ends run().
  void exchange_weights(std::function<void()> exchange) { loop_.between(std::move(exchange)); }
  /// The same on the other ranks, which get this text.
  void exchange_elsewhere(const std::string& text) {
    if (ranks_) ranks_->exchange(text);
  }
  EngineLoad load() const { return engines().load(); }
  /// The other ranks' engines; none: there is one rank.
  const RankEngines* ranks() const { return ranks_.get(); }
  /// Answers and texts to score of requests that have not ended.
  std::int64_t outstanding() const { return outstanding_; }
  /// The names under which a client can ask for the model: the first pattern's alone, and each with its pattern.
  std::vector<std::string> model_names() const;

 private:
  std::optional<HttpResponse> refuse(const HttpHead& head) override;
  void handle(HttpRequest request, std::shared_ptr<Reply> reply) override;
  void note(int status) override { metrics_.count_response(status); }

  using Answer = HttpResponse (Server::*)(const HttpRequest&);
  struct Route {
    const char* method;
    const char* path;  ///< ending in "/": all paths below it
    Answer answer;     ///< null: completions
    bool open;         ///< without a key, and while the server ends

    bool leads_to(std::string_view target) const;
  };
  static const std::vector<Route>& routes();
  static const Route* route_of(const HttpHead& head);

  HttpResponse health(const HttpRequest& request);
  HttpResponse metrics_text(const HttpRequest& request);
  HttpResponse models(const HttpRequest& request);
  HttpResponse model(const HttpRequest& request);
  HttpResponse tokenize(const HttpRequest& request);
  HttpResponse detokenize(const HttpRequest& request);
  HttpResponse tokenizer_info(const HttpRequest& request);

  void complete(const HttpRequest& request, const std::shared_ptr<Reply>& reply,
                Completion::Clock::time_point came);
  void reserve(std::int64_t sequences);
  std::size_t pattern_of(const std::string& model) const;
  std::string name_of(std::size_t pattern) const;
  nlohmann::ordered_json about_model(const std::string& name) const;  ///< throws ApiError where there is none
  const data::Tokenizer& tokenizer() const;
  void completion_ended(const CompletionEnd& end);
  void log(const std::string& line) const;
  Engines& engines() { return ranks_ ? static_cast<Engines&>(*ranks_) : loop_; }
  const Engines& engines() const { return ranks_ ? static_cast<const Engines&>(*ranks_) : loop_; }
  void rank_lost(int rank);

  ServerSettings settings_;
  HttpServer& http_;
  const generate::ModelText& text_;
  RequestLimits limits_;
  TokenNames names_;
  Metrics metrics_;
  std::unique_ptr<Pool> pool_;
  Serial outputs_;
  EngineLoop loop_;
  std::unique_ptr<RankEngines> ranks_;  ///< where there are several
  CompletionPlace place_;
  std::atomic<bool> rank_lost_ = false;
  std::int64_t created_ = 0;  ///< seconds since 1970
  std::atomic<std::uint64_t> next_ = 1;
  std::atomic<std::int64_t> outstanding_ = 0;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex log_mutex_;
};

}  // namespace ratplus::serve
