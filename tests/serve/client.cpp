#include "tests/serve/client.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "base/error.h"

namespace ratplus::test {

std::vector<nlohmann::json> Response::events() const {
  std::vector<nlohmann::json> events;
  bool done = false;
  for (std::size_t at = 0; at < body.size();) {
    const auto end = body.find("\n\n", at);
    REQUIRE(end != std::string::npos);
    const auto event = body.substr(at, end - at);
    REQUIRE(event.starts_with("data: "));
    CHECK_FALSE(done);
    if (event == "data: [DONE]") {
      done = true;
    } else {
      events.push_back(nlohmann::json::parse(event.substr(6)));
    }
    at = end + 2;
  }
  CHECK(done);
  return events;
}

Client::Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    ::close(socket_);
    fail("cannot connect to port {}", port);
  }
}

Client::~Client() {
  leave();
}

void Client::leave() {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

void Client::send(const std::string& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto n = ::send(socket_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n <= 0) return;  // the server may have answered and closed
    at += static_cast<std::size_t>(n);
  }
}

bool Client::receive() {
  pollfd waiting{socket_, POLLIN, 0};
  constexpr int milliseconds = 10000;
  if (::poll(&waiting, 1, milliseconds) != 1) fail("nothing came for ten seconds");
  char bytes[65536];
  const auto n = ::recv(socket_, bytes, sizeof(bytes), 0);
  if (n <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(n));
  return true;
}

bool Client::closed() {
  while (receive()) buffer_.clear();
  return true;
}

std::string Client::read_until(const std::string& end) {
  std::size_t at;
  while ((at = buffer_.find(end)) == std::string::npos) {
    if (!receive()) fail("the connection ended after: {}", buffer_);
  }
  auto bytes = buffer_.substr(0, at + end.size());
  buffer_.erase(0, at + end.size());
  return bytes;
}

Response Client::read_response() {
  Response response;
  response.header = read_until("\r\n\r\n");
  response.status = std::stoi(response.header.substr(9, 3));
  const auto take = [&](std::size_t n) {
    while (buffer_.size() < n) {
      if (!receive()) fail("the connection ended in a body");
    }
    auto bytes = buffer_.substr(0, n);
    buffer_.erase(0, n);
    return bytes;
  };
  const std::string length = "Content-Length: ";
  if (const auto at = response.header.find(length); at != std::string::npos) {
    response.body = take(std::stoul(response.header.substr(at + length.size())));
  } else if (response.header.find("Transfer-Encoding: chunked") != std::string::npos) {
    for (;;) {
      const auto n = std::stoul(read_until("\r\n"), nullptr, 16);
      response.body += take(n);
      CHECK(take(2) == "\r\n");
      if (n == 0) break;
    }
  } else {
    while (receive()) {
    }
    response.body = std::exchange(buffer_, {});
  }
  return response;
}

std::string request_bytes(const std::string& method, const std::string& path, const std::string& body,
                          const std::string& headers) {
  return fmt::format("{} {} HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n{}", method, path, headers,
                     body.size(), body);
}

Response ask(int port, const std::string& method, const std::string& path, const std::string& body,
             const std::string& headers) {
  Client client(port);
  client.send(request_bytes(method, path, body, headers));
  return client.read_response();
}

}  // namespace ratplus::test
