// Client: HTTP/1.1 by plain sockets, for tests of a server.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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

}  // namespace ratplus::test
