// Client: HTTP/1.1 by plain sockets, for tests of a server; and a small model behind one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "lib/generate/model_text.h"
#include "lib/infer/inference.h"
#include "lib/serve/server.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::test {

struct Response {
  int status = 0;
  std::string header;
  std::string body;  ///< chunks joined

  nlohmann::json json() const { return nlohmann::json::parse(body); }
  /// Of a stream: the objects of its events; the last event is [DONE] (checked).
  std::vector<nlohmann::json> events() const;
};

/// One connection. Throws Error where it ends too early, or nothing comes for ten seconds.
class Client {
 public:
  explicit Client(int port);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(const std::string& bytes);
  /// Bytes as they come, up to and with `end`.
  std::string read_until(const std::string& end);
  Response read_response();
  /// Whether the server closed the connection, waiting for that.
  bool closed();
  void leave();

 private:
  bool receive();

  int socket_;
  std::string buffer_;
};

std::string request_bytes(const std::string& method, const std::string& path, const std::string& body,
                          const std::string& headers = {});
/// A request on a connection of its own.
Response ask(int port, const std::string& method, const std::string& path, const std::string& body = {},
             const std::string& headers = {});
inline Response complete(int port, const nlohmann::json& body) {
  return ask(port, "POST", "/v1/completions", body.dump());
}

/// A small model with made-up weights, and a SentencePiece tokenizer with fewer tokens than the model.
struct SmallModel {
  explicit SmallModel(std::int64_t tokens = 96, double init_std = 0.3);

  static constexpr std::uint64_t seed = 3;
  static const generate::ModelText& text();
  infer::ResolvedModel model;
  std::vector<model::PatternPlan> plans;
  std::vector<std::string> patterns;
};

/// A server in this process.
class Served {
 public:
  struct Settings {
    SmallModel model = SmallModel();
    serve::ServerSettings server = {};
    serve::HttpSettings http = {};
    std::int64_t slots = 8;
    bool with_text = true;
  };
  Served() : Served(Settings()) {}
  explicit Served(Settings settings);
  ~Served();

  int port() const { return port_; }
  serve::Server& server() { return *server_; }
  infer::Inference& inference() { return *inference_; }
  /// Until nothing is in progress. False: it lasted ten seconds.
  bool becomes_idle();
  /// Waits for the end of run(); throws what it threw.
  void join();

 private:
  int port_ = 0;
  serve::Server* server_ = nullptr;
  infer::Inference* inference_ = nullptr;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace ratplus::test
