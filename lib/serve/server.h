// Server: OpenAI's API for completions over one model, whose patterns are served side by side.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
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
#include "lib/serve/token_names.h"

namespace ratplus::serve {

struct ServerSettings {
  std::string name = "ratplus";                      ///< of the model; alone it means the first pattern
  std::vector<std::string> patterns = {};            ///< of each engine, as in NAME@PATTERN
  std::string api_key = {};                          ///< empty: everybody is served
  std::int64_t max_tokens = 0;                       ///< of an answer at most; 0: as many as a sequence has
  std::int64_t request_sequences = 4096;             ///< prompts times answers of a request at most
  std::int64_t queue = 8192;                         ///< answers and texts to score of all requests at most
  double grace_seconds = 30;                         ///< for what runs when the server is told to end
  int threads = 2;                                   ///< for JSON and tokens
  bool log_text = false;                             ///< log prompts, too
  std::function<void(const std::string&)> log = {};  ///< takes a line; none: nothing is logged
};

/// Compares a key with one that a client sent, in a time that does not depend on their contents.
bool same_key(std::string_view key, std::string_view sent);

class Server : private HttpHandler {
 public:
  /// The inference has an engine and a scorer for each of settings.patterns. All of it outlives the server.
  Server(ServerSettings settings, HttpServer& http, infer::Inference& inference,
         const generate::ModelText& text);
  ~Server() override;

  /// Serves until stop() has ended what ran; by the thread that made the inference. Throws Error where the address is taken
  /// meanwhile, and what the computation throws.
  void run();

  // --- any thread ------------------------------------------------------------------------------------------------
  /// Refuses new requests with 503, and returns at once; run() returns when those that are there have ended, or after settings.grace_seconds.
  /// The server outlives the call: a thread that is not that of the connections tells that of run() when it has made it.
  void stop();
  /// Calls exchange() by the thread of run(), between the requests that came before and those after; none is lost. What it
  /// throws ends run().
  void exchange_weights(std::function<void()> exchange) { loop_.between(std::move(exchange)); }
  EngineLoad load() const { return loop_.load(); }
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
    const char* path;
    Answer answer;  ///< null: completions
    bool open;      ///< without a key, and while the server ends
  };
  static const std::vector<Route>& routes();
  static const Route* route_of(const HttpHead& head);

  HttpResponse health(const HttpRequest& request);
  HttpResponse metrics_text(const HttpRequest& request);
  HttpResponse models(const HttpRequest& request);
  HttpResponse tokenize(const HttpRequest& request);
  HttpResponse detokenize(const HttpRequest& request);
  HttpResponse tokenizer_info(const HttpRequest& request);
  HttpResponse chat(const HttpRequest& request);

  void complete(const HttpRequest& request, const std::shared_ptr<Reply>& reply,
                Completion::Clock::time_point came);
  void reserve(std::int64_t sequences);
  std::size_t pattern_of(const std::string& model) const;
  std::string name_of(std::size_t pattern) const;
  const data::Tokenizer& tokenizer() const;
  void completion_ended(const CompletionEnd& end);
  void log(const std::string& line) const;

  ServerSettings settings_;
  HttpServer& http_;
  const generate::ModelText& text_;
  RequestLimits limits_;
  TokenNames names_;
  Metrics metrics_;
  std::unique_ptr<Pool> pool_;
  Serial outputs_;
  EngineLoop loop_;
  CompletionPlace place_;
  std::int64_t created_ = 0;  ///< seconds since 1970
  std::atomic<std::uint64_t> next_ = 1;
  std::atomic<std::int64_t> outstanding_ = 0;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex log_mutex_;
};

}  // namespace ratplus::serve
