// HttpServer: HTTP/1.1 on one address: connections, limits and time-outs, by Boost.Beast on a thread of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/serve/http.h"

namespace ratplus::serve {

struct HttpSettings {
  std::int64_t body_bytes = std::int64_t{16} << 20;  ///< of a request at most
  std::int64_t connections = 1024;                   ///< at a time at most
  double idle_seconds = 300;                         ///< a connection without a request is closed
  double read_seconds = 60;                          ///< from the first byte of a request to its last
  double write_seconds = 60;                         ///< in which a client takes no byte of a response
};

class HttpServer {
 public:
  /// Takes host:port, where port 0 is a free one. Throws Error naming both where that is not to be had. Nobody is accepted
  /// before run().
  HttpServer(const std::string& host, int port, const HttpSettings& settings);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const;
  /// "http://127.0.0.1:8000".
  std::string address() const;

  /// Listens, if it does not yet: clients that come before run() wait for it. Throws Error where another program does.
  void listen();
  /// Serves until stop(), by the thread that calls it.
  void run(HttpHandler& handler);

  // --- any thread ------------------------------------------------------------------------------------------------
  /// Closes connections without a request, and every other one after its response; calls drained(), by the thread of run(),
  /// when no request is unanswered. New connections are still taken, for a handler that refuses them.
  void drain(std::function<void()> drained);
  /// Ends run() at once.
  void stop();
  /// Calls f by the thread of run() after some seconds.
  void after(double seconds, std::function<void()> f);
  /// Calls f by the thread of run() for each of these signals that this process gets.
  void on_signals(const std::vector<int>& signals, std::function<void(int)> f);
  std::int64_t connections() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::serve
