// What an HTTP server and the handlers of its requests exchange.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/serve/api_error.h"

namespace ratplus::serve {

/// A request without its body.
struct HttpHead {
  std::string method;         ///< "POST"
  std::string path;           ///< without the query: "/v1/completions"
  std::string authorization;  ///< the header of that name; empty: none
};

struct HttpRequest {
  HttpHead head;
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string body = {};
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers = {};  ///< beside those that every response has
};

/// The response {"error": {"message", "type", "param", "code"}}; 429 and 503 have Retry-After.
HttpResponse error_response(const ApiError& error);

/// The way to the client of one request. Its functions may be called by any thread, and do nothing once the client left.
class Reply {
 public:
  virtual ~Reply() = default;
  /// The whole response; once.
  virtual void send(HttpResponse response) = 0;
  /// A piece of a response of server-sent events, whose header goes before the first one; after the last one nothing
  /// follows. sent() is called by some thread when the client's connection has taken the piece: the next one waits for it.
  virtual void send_events(std::string bytes, bool last, std::function<void()> sent) = 0;
  /// gone() is called by some thread, once, if the client leaves before its response is complete.
  virtual void when_gone(std::function<void()> gone) = 0;
};

/// Called by the thread of connections: must not block.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  /// A response to a request that is refused before its body is read.
  virtual std::optional<HttpResponse> refuse(const HttpHead& head) = 0;
  virtual void handle(HttpRequest request, std::shared_ptr<Reply> reply) = 0;
  /// Notes a response that no handler made: malformed requests, those above a limit.
  virtual void note(int status) = 0;
};

}  // namespace ratplus::serve
