// HTTP itself: connections that are kept, limits, clients that are slow or send nonsense.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <random>
#include <thread>

#include "base/error.h"
#include "tests/serve/served.h"

using namespace ratplus;
using test::ask;
using test::Client;
using test::request_bytes;
using Json = nlohmann::json;
using namespace std::chrono_literals;

namespace {

const std::string small_body = R"({"prompt": "of", "max_tokens": 2})";

/// Answers each request with many bytes.
class LargeAnswers : public serve::HttpHandler {
 public:
  static constexpr std::size_t bytes = 16 << 20;
  std::optional<serve::HttpResponse> refuse(const serve::HttpHead&) override { return std::nullopt; }
  void handle(serve::HttpRequest, std::shared_ptr<serve::Reply> reply) override {
    reply->send({.body = std::string(bytes, 'x')});
  }
  void note(int) override {}
};

}  // namespace

TEST_CASE("a connection serves many requests, also those sent ahead, in their order") {
  test::Served served;
  Client client(served.port());
  for (int i = 0; i < 20; ++i) {
    client.send(request_bytes("POST", "/v1/completions", small_body));
    const auto response = client.read_response();
    CHECK(response.status == 200);
    CHECK(response.header.find("Connection: keep-alive") != std::string::npos);
  }
  std::string ahead;
  for (int i = 0; i < 20; ++i)
    ahead += request_bytes("POST", "/v1/completions",
                           fmt::format(R"({{"prompt": "of", "max_tokens": {}}})", i % 7)) +
             request_bytes("GET", "/health", "");
  client.send(ahead);
  for (int i = 0; i < 20; ++i) {
    CHECK(client.read_response().status == 200);
    CHECK(client.read_response().body == R"({"status":"ok"})");
  }
  client.send(request_bytes("GET", "/health", "", "Connection: close\r\n"));
  CHECK(client.read_response().header.find("Connection: close") != std::string::npos);
  CHECK(client.closed());
}

TEST_CASE("small requests take no delayed acknowledgements") {
  test::Served served;
  Client client(served.port());
  const auto begin = std::chrono::steady_clock::now();
  constexpr int requests = 100;
  for (int i = 0; i < requests; ++i) {
    client.send(request_bytes("POST", "/tokenize", R"({"prompt": "of the"})"));
    CHECK(client.read_response().status == 200);
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
  CHECK(time.count() < 2);  // at 40 ms each it would be 4 s
}

TEST_CASE("requests in pieces, in chunks, of HTTP/1.0, and with Expect: 100-continue") {
  test::Served served;
  const auto bytes = request_bytes("POST", "/v1/completions", small_body);
  {
    Client client(served.port());
    for (const char byte : bytes) client.send(std::string(1, byte));
    CHECK(client.read_response().status == 200);
  }
  {
    Client client(served.port());
    client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const char byte : small_body) client.send(fmt::format("1\r\n{}\r\n", byte));
    client.send("0\r\n\r\n");
    CHECK(client.read_response().status == 200);
  }
  {
    Client client(served.port());
    client.send(fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}",
                            small_body.size(), small_body));
    CHECK(client.read_response().status == 200);
    CHECK(client.closed());
  }
  {
    const std::string body = R"({"prompt": "of", "max_tokens": 5, "stream": true})";
    Client client(served.port());
    client.send(
        fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}", body.size(), body));
    const auto response = client.read_response();
    CHECK(response.header.find("chunked") == std::string::npos);
    CHECK_FALSE(response.events().empty());
  }
  {
    Client client(served.port());
    client.send(fmt::format(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        small_body.size()));
    CHECK(client.read_until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(small_body);
    CHECK(client.read_response().status == 200);
  }
}

TEST_CASE("HEAD, whole addresses, line ends between requests, and an expectation of HTTP/1.0") {
  test::Served served;
  Client client(served.port());
  client.send("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto head = client.read_until("\r\n\r\n");
  CHECK(head.starts_with("HTTP/1.1 200 "));
  CHECK(head.find("Content-Length: 15\r\n") != std::string::npos);
  // The next bytes are the next response's.
  client.send("\r\n\r\nGET http://127.0.0.1:8000/health?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(client.read_until("\r\n").starts_with("HTTP/1.1 200 "));
  CHECK(client.read_until("}").ends_with(R"({"status":"ok"})"));
  client.send("HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(client.read_until("\r\n\r\n").starts_with("HTTP/1.1 404 "));
  CHECK_THROWS_AS(client.read_until("}"), Error);  // closed without a body
  Client old(served.port());
  old.send(
      fmt::format("POST /v1/completions HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n{}",
                  small_body.size(), small_body));
  CHECK(old.read_until("\r\n").starts_with("HTTP/1.1 200 "));
}

TEST_CASE("bodies whose end or coding is unknown are refused, and nothing behind them is read as a request") {
  test::Served served;
  const auto status_of = [&](const std::string& field) {
    Client client(served.port());
    client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + field + "\r\n" +
                request_bytes("GET", "/health", ""));
    const int status = client.read_response().status;
    CHECK_THROWS_AS(client.read_response(), Error);
    return status;
  };
  CHECK(status_of("Transfer-Encoding: gzip\r\n") == 501);
  CHECK(status_of("Content-Encoding: gzip\r\nContent-Length: 3\r\n") == 415);
  CHECK(ask(served.port(), "POST", "/v1/completions", small_body, "Content-Encoding: identity\r\n").status ==
        200);
}

TEST_CASE("bodies above the limit get 413, by their announced size or as they come") {
  test::Served served({.http = {.body_bytes = 1000}});
  const std::string big = R"({"prompt": ")" + std::string(2000, 'a') + "\"}";
  const auto announced = ask(served.port(), "POST", "/v1/completions", big);
  CHECK(announced.status == 413);
  CHECK(announced.json()["error"]["message"].get<std::string>().find("1000") != std::string::npos);
  Client client(served.port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 20; ++i) client.send(fmt::format("64\r\n{}\r\n", std::string(100, 'a')));
  CHECK(client.read_response().status == 413);
  CHECK(client.closed());
  // Before the body, for those who ask.
  Client asking(served.port());
  asking.send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000\r\n\r\n");
  CHECK(asking.read_response().status == 413);
  CHECK(ask(served.port(), "POST", "/v1/completions", small_body).status == 200);
}

TEST_CASE("what is no HTTP gets a 400 or 431 and the end; the server goes on") {
  test::Served served;
  for (const std::string bytes :
       {"hello\r\n\r\n", "GET\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "\x16\x03\x01\x02\x01\x01\xfc\x03\x03\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    CAPTURE(bytes);
    Client client(served.port());
    client.send(bytes);
    const auto status = client.read_response().status;
    CHECK((status == 400 || status == 404));
    CHECK(client.closed());
  }
  CHECK(ask(served.port(), "GET", "/health", "", "X: " + std::string(20000, 'a') + "\r\n").status == 431);
  std::mt19937 random(4);
  for (int i = 0; i < 50; ++i) {
    Client client(served.port());
    auto bytes = request_bytes("POST", "/v1/completions", small_body);
    for (int k = 0; k < 3; ++k) bytes[random() % bytes.size()] = static_cast<char>(random());
    client.send(bytes);
    client.leave();
  }
  CHECK(ask(served.port(), "POST", "/v1/completions", small_body).status == 200);
  CHECK(served.becomes_idle());
}

TEST_CASE("connections above the limit get 503; idle ones and slow senders are closed") {
  test::Served served({.http = {.connections = 3, .idle_seconds = 0.6, .read_seconds = 0.3}});
  {
    Client a(served.port()), b(served.port()), c(served.port());
    a.send("POST /v1/completions HTTP/1.1\r\n");
    std::this_thread::sleep_for(50ms);
    const auto refused = ask(served.port(), "GET", "/health");
    CHECK(refused.status == 503);
    const auto begin = std::chrono::steady_clock::now();
    CHECK(a.closed());
    CHECK(std::chrono::steady_clock::now() - begin < 550ms);
    CHECK(b.closed());
    CHECK(c.closed());
  }
  CHECK(ask(served.port(), "GET", "/health").status == 200);
}

TEST_CASE("a client that does not read delays nobody, and is left after some time") {
  test::Served served({.model = test::SmallModel(30000), .http = {.write_seconds = 0.5}, .slots = 4});
  Client slow(served.port());
  slow.send(request_bytes("POST", "/v1/completions",
                          Json{{"prompt", Json::array({"of", "of", "of"})},
                               {"max_tokens", 29000},
                               {"ignore_eos", true},
                               {"logprobs", 20},
                               {"stream", true}}
                              .dump()));
  for (int i = 0; i < 20; ++i) CHECK(ask(served.port(), "POST", "/v1/completions", small_body).status == 200);
  CHECK(served.becomes_idle());
  const auto text = ask(served.port(), "GET", "/metrics").body;
  CHECK(text.find("ratplus_completions_total{end=\"cancelled\"} 1\n") != std::string::npos);
}

TEST_CASE("a client that reads slowly gets all: each byte that it takes renews the time of a write") {
  LargeAnswers handler;
  serve::HttpServer http("127.0.0.1", 0, {.write_seconds = 1});
  http.listen();
  const int client = ::socket(AF_INET, SOCK_STREAM, 0);
  const int small = 256 << 10;
  REQUIRE(::setsockopt(client, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(http.port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  const std::string request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  REQUIRE(::send(client, request.data(), request.size(), 0) == std::ssize(request));
  std::thread connections([&] { http.run(handler); });
  std::array<char, 32 << 10> taken{};
  std::size_t all = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (;;) {
    const auto n = ::recv(client, taken.data(), taken.size(), 0);
    if (n <= 0) break;
    all += static_cast<std::size_t>(n);
    // 0.5 MB/s: the system takes more of the server's bytes once about 1 MB of its own are gone.
    if (std::chrono::steady_clock::now() - begin < 8s) std::this_thread::sleep_for(60ms);
  }
  CHECK(all > LargeAnswers::bytes);
  ::close(client);
  http.stop();
  connections.join();
}

TEST_CASE("an address that is taken, or is none, is an error with the way out") {
  test::Served served;
  const auto take = [](const std::string& host, int port) {
    serve::HttpServer http(host, port, {});
    http.listen();
  };
  CHECK_THROWS_WITH_AS(take("127.0.0.1", served.port()),
                       doctest::Contains(fmt::format("127.0.0.1:{} is in use", served.port()).c_str()),
                       Error);
  CHECK_THROWS_WITH_AS(take("192.0.2.1", 0), doctest::Contains("--host"), Error);
  CHECK_THROWS_WITH_AS(take("no such host.invalid", 0), doctest::Contains("--host"), Error);
}
