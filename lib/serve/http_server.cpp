#include "lib/serve/http_server.h"

#include <fmt/format.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <deque>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "lib/serve/http_status.h"

namespace ratplus::serve {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;
using Seconds = std::chrono::duration<double>;

constexpr std::uint32_t header_bytes = 16 << 10;
constexpr std::size_t read_bytes = 16 << 10;
/// Of requests that a client sends before the answer to the one before; it is not read further then.
constexpr std::size_t most_ahead = 1 << 20;
/// Of a body that is refused: read so that the client gets to the response.
constexpr std::size_t most_discarded = 4 << 20;
constexpr double linger_seconds = 2;

/// Decades stand for all that is longer, which the clock cannot count.
auto steady(double seconds) {
  constexpr double most = 1e9;
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(Seconds(std::min(seconds, most)));
}

/// The path alone of "/path?query", or of "http://host/path", as proxies are asked.
std::string path_of(std::string target) {
  for (const beast::string_view scheme : {"http://", "https://"}) {
    if (!beast::iequals(beast::string_view(target).substr(0, scheme.size()), scheme)) continue;
    const auto slash = target.find('/', scheme.size());
    target = slash == std::string::npos ? "/" : target.substr(slash);
    break;
  }
  return target.substr(0, target.find('?'));
}

std::string head_of(const HttpResponse& response, bool keep_alive) {
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\nServer: ratplus\r\nContent-Type: {}\r\nContent-Length: {}\r\n",
                  response.status, std::string(http::obsolete_reason(http::status(response.status))),
                  response.content_type, response.body.size());
  for (const auto& [name, value] : response.headers) head += name + ": " + value + "\r\n";
  return head + (keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
}

bool is_line_end(char byte) {
  return byte == '\r' || byte == '\n';
}

HttpResponse refusal(int status, const std::string& message) {
  return error_response(ApiError(status, {}, message));
}

}  // namespace

class Connection;

struct HttpServer::Impl {
  Impl(const std::string& host, int port, const HttpSettings& with);
  void accept();
  void ended(Connection& connection);
  void check_drained();

  HttpSettings settings;
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer accept_again{io};
  tcp::endpoint endpoint;
  std::string host_name;
  HttpHandler* handler = nullptr;
  std::set<std::shared_ptr<Connection>> open;
  std::atomic<std::int64_t> open_count = 0;
  std::int64_t busy = 0;  ///< connections with a request that is not fully answered
  std::function<void()> drained;
  bool listening = false;
  bool draining = false;
};

/// One client. All functions run on the server's thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(HttpServer::Impl& server, tcp::socket socket)
      : server_(server), socket_(std::move(socket)), timer_(server.io) {}

  void start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    begin_request();
    read();
  }
  /// Says that there are too many connections.
  void refuse(const HttpResponse& response) {
    server_.handler->note(response.status);
    write(head_of(response, false) + response.body, true, {});
  }
  void close_if_idle() {
    if (!busy_ && !begun_) close();
  }
  bool busy() const { return busy_; }

  // --- of the Reply of request `number` ---
  void respond(std::uint64_t number, const HttpResponse& response) {
    if (!current(number)) return;
    const bool last = !keep_alive_ || server_.draining;
    write(head_of(response, !last) + (head_only_ ? "" : response.body), true, {});
  }
  void respond_events(std::uint64_t number, const std::string& bytes, bool last, std::function<void()> sent) {
    if (!current(number)) return;
    std::string out;
    if (!std::exchange(streaming_, true)) {
      // A client of HTTP/1.0 knows no chunks: the end of the connection is the end of the stream.
      chunked_ = http_1_1_;
      if (!chunked_) keep_alive_ = false;
      const bool closes = !keep_alive_ || server_.draining;
      if (closes) keep_alive_ = false;
      out = fmt::format(
          "HTTP/1.1 200 OK\r\nServer: ratplus\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
          "Cache-Control: no-cache\r\n{}Connection: {}\r\n\r\n",
          chunked_ ? "Transfer-Encoding: chunked\r\n" : "", keep_alive_ ? "keep-alive" : "close");
    }
    out += chunked_ ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : bytes;
    if (last && chunked_) out += "0\r\n\r\n";
    write(std::move(out), last, std::move(sent));
  }
  void set_gone(std::uint64_t number, std::function<void()> gone) {
    if (current(number)) {
      gone_ = std::move(gone);
    } else if (number >= number_) {  // the client left before
      gone();
    }
  }
  void close() {
    if (std::exchange(closed_, true)) return;
    error_code ignored;
    timer_.cancel();
    socket_.shutdown(tcp::socket::shutdown_both, ignored);
    socket_.close(ignored);
    set_busy(false);
    // What waits to be sent keeps the request alive, which is told first.
    const auto unsent = std::exchange(out_, {});
    if (auto gone = std::exchange(gone_, {})) gone();
    server_.ended(*this);
  }

 private:
  struct Out {
    std::string bytes;
    bool last;  ///< of a response
    std::function<void()> sent;
  };

  bool current(std::uint64_t number) const { return !closed_ && busy_ && number == number_; }

  void set_busy(bool busy) {
    if (busy == busy_) return;
    busy_ = busy;
    server_.busy += busy ? 1 : -1;
    if (!busy) server_.check_drained();
  }

  /// Closes the connection where no other wait_for() or stop_waiting() came before.
  void wait_for(double seconds) {
    timer_.expires_after(steady(seconds));
    timer_.async_wait([self = shared_from_this()](error_code ec) {
      if (ec || self->timer_.expiry() > std::chrono::steady_clock::now()) return;
      self->close();
    });
  }
  /// Closes the connection of a client that takes nothing for the time of a write, unless another wait came before.
  void wait_for_client() {
    timer_.expires_after(steady(server_.settings.write_seconds));
    timer_.async_wait([self = shared_from_this(), held = held_bytes()](error_code ec) {
      if (ec || self->closed_ || self->timer_.expiry() > std::chrono::steady_clock::now()) return;
      if (self->held_bytes() < held) {
        self->wait_for_client();
      } else {
        self->close();
      }
    });
  }
  /// Bytes that the system holds for the client. It takes more of ours once a large part of them is gone.
  int held_bytes() {
    int bytes = 0;
    return ::ioctl(socket_.native_handle(), SIOCOUTQ, &bytes) == 0 ? bytes : 0;
  }
  void stop_waiting() { timer_.expires_at(asio::steady_timer::time_point::max()); }

  void begin_request() {
    parser_.emplace();
    parser_->header_limit(header_bytes);
    parser_->body_limit(static_cast<std::uint64_t>(server_.settings.body_bytes));
    parser_->eager(false);
    begun_ = head_checked_ = head_only_ = streaming_ = false;
    wait_for(server_.settings.idle_seconds);
  }

  /// There is always one read, so that a client that leaves is noticed.
  void read() {
    if (reading_ || closed_ || (busy_ && buffer_.size() > most_ahead)) return;
    reading_ = true;
    socket_.async_read_some(asio::buffer(incoming_),
                            [self = shared_from_this()](error_code ec, std::size_t n) {
                              self->reading_ = false;
                              if (self->closed_) return;
                              if (ec) {
                                self->close();
                                return;
                              }
                              asio::buffer_copy(self->buffer_.prepare(n), asio::buffer(self->incoming_, n));
                              self->buffer_.commit(n);
                              self->took(n);
                            });
  }

  void took(std::size_t n) {
    if (closing_) {
      buffer_.consume(buffer_.size());
      discarded_ += n;
      if (discarded_ > most_discarded) {
        close();
        return;
      }
    } else if (!busy_) {
      parse();
    }
    read();
  }

  void parse() {
    while (!closed_ && !closing_ && !busy_ && buffer_.size() > 0) {
      if (!begun_ && is_line_end(*static_cast<const char*>(buffer_.data().data()))) {
        buffer_.consume(1);  // some clients end a body with one
        continue;
      }
      if (!std::exchange(begun_, true)) wait_for(server_.settings.read_seconds);
      error_code ec;
      const auto n = parser_->put(buffer_.data(), ec);
      buffer_.consume(n);
      if (ec == http::error::need_more) {
        if (n == 0) return;
        continue;
      }
      if (ec) {
        refuse_bytes(ec);
        return;
      }
      if (parser_->is_header_done() && !std::exchange(head_checked_, true) && !check_head()) return;
      if (parser_->is_done()) handle();
    }
  }

  void refuse_bytes(error_code ec) {
    if (ec == http::error::body_limit) {
      refuse_request(refusal(413, fmt::format("the body is larger than the limit of {} bytes (the server's "
                                              "--max-body)",
                                              server_.settings.body_bytes)));
    } else if (ec == http::error::header_limit) {
      refuse_request(refusal(431, fmt::format("the header is larger than {} bytes", header_bytes)));
    } else {
      refuse_request(refusal(400, "the request is no HTTP/1.1: " + ec.message()));
    }
  }

  /// Answers what is not read to its end; the connection ends.
  void refuse_request(const HttpResponse& response) {
    server_.handler->note(response.status);
    begin_answer();
    keep_alive_ = false;
    respond(number_, response);
  }

  void begin_answer() {
    ++number_;
    set_busy(true);
    stop_waiting();
  }

  HttpHead head() const {
    const auto& message = parser_->get();
    return {.method = head_only_ ? "GET" : std::string(message.method_string()),
            .path = path_of(std::string(message.target())),
            .authorization = std::string(message[http::field::authorization])};
  }

  /// Refuses by the header alone, or goes on to the body. False: it was refused.
  bool check_head() {
    http_1_1_ = parser_->get().version() >= 11;
    keep_alive_ = parser_->keep_alive();
    head_only_ = parser_->get().method() == http::verb::head;
    if (parser_->get().count(http::field::transfer_encoding) > 0 && !parser_->chunked()) {
      // Nobody knows where its body ends.
      refuse_request(refusal(not_implemented, "of transfer encodings there is \"chunked\" alone"));
      return false;
    }
    if (const auto coding = parser_->get()[http::field::content_encoding];
        !coding.empty() && !beast::iequals(coding, "identity")) {
      refuse_request(
          refusal(unsupported_media_type, "the body is compressed (Content-Encoding); send it plain"));
      return false;
    }
    if (const auto response = server_.handler->refuse(head())) {
      refuse_request(*response);
      return false;
    }
    if (http_1_1_ && !parser_->is_done() &&
        beast::iequals(parser_->get()[http::field::expect], "100-continue"))
      write("HTTP/1.1 100 Continue\r\n\r\n", false, {});
    parser_->eager(true);
    return true;
  }

  void handle();

  /// One write at a time, in their order.
  void write(std::string bytes, bool last, std::function<void()> sent) {
    out_.push_back({std::move(bytes), last, std::move(sent)});
    if (out_.size() == 1) write_next();
  }

  void write_next() {
    if (busy_) wait_for_client();
    write_some(0);
  }

  /// As much as there is room for: each progress renews the time of a write.
  void write_some(std::size_t from) {
    const auto& bytes = out_.front().bytes;
    socket_.async_write_some(asio::buffer(bytes.data() + from, bytes.size() - from),
                             [self = shared_from_this(), from](error_code ec, std::size_t n) {
                               if (self->closed_) return;
                               if (ec) {
                                 self->close();
                               } else if (from + n < self->out_.front().bytes.size()) {
                                 if (self->busy_) self->wait_for_client();
                                 self->write_some(from + n);
                               } else {
                                 self->wrote();
                               }
                             });
  }

  void wrote() {
    auto out = std::move(out_.front());
    out_.pop_front();
    if (busy_) stop_waiting();
    if (out.sent) out.sent();
    if (out.last) {
      end_answer();
    } else if (!out_.empty()) {
      write_next();
    }
  }

  void end_answer() {
    gone_ = {};
    const bool goes_on = keep_alive_ && busy_ && !server_.draining;
    if (goes_on) {
      begin_request();
      set_busy(false);
      parse();
      read();
      return;
    }
    // The client's last bytes are read, or the response would be lost where the system sees them unread.
    closing_ = true;
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    set_busy(false);
    if (closed_) return;
    wait_for(linger_seconds);
    buffer_.consume(buffer_.size());
    read();
  }

  HttpServer::Impl& server_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::array<char, read_bytes> incoming_;  ///< of the read in progress, while buffer_ is parsed
  beast::flat_buffer buffer_;              ///< that was not parsed yet
  std::optional<http::request_parser<http::string_body>> parser_;
  std::deque<Out> out_;
  std::function<void()> gone_;
  std::uint64_t number_ = 0;  ///< of the request, on this connection
  std::size_t discarded_ = 0;
  bool begun_ = false;         ///< bytes of a request came
  bool head_checked_ = false;  ///< its header is there and not refused
  bool head_only_ = false;     ///< its method is HEAD: the response has no body
  bool busy_ = false;          ///< it is there and not fully answered
  bool reading_ = false;
  bool streaming_ = false, chunked_ = false;
  bool http_1_1_ = true, keep_alive_ = true;
  bool closing_ = false;  ///< the last response is out
  bool closed_ = false;
};

namespace {

class ConnectionReply : public Reply {
 public:
  ConnectionReply(asio::io_context& io, std::shared_ptr<Connection> connection, std::uint64_t number)
      : io_(io), connection_(std::move(connection)), number_(number) {}

  void send(HttpResponse response) override {
    asio::post(io_, [c = connection_, n = number_, r = std::move(response)] { c->respond(n, r); });
  }
  void send_events(std::string bytes, bool last, std::function<void()> sent) override {
    asio::post(io_, [c = connection_, n = number_, b = std::move(bytes), last,
                     s = std::move(sent)]() mutable { c->respond_events(n, b, last, std::move(s)); });
  }
  void when_gone(std::function<void()> gone) override {
    asio::post(
        io_, [c = connection_, n = number_, g = std::move(gone)]() mutable { c->set_gone(n, std::move(g)); });
  }

 private:
  asio::io_context& io_;
  std::shared_ptr<Connection> connection_;
  std::uint64_t number_;
};

}  // namespace

void Connection::handle() {
  HttpRequest request{.head = head(), .body = {}};
  request.body = std::move(parser_->get().body());
  begin_answer();
  server_.handler->handle(std::move(request),
                          std::make_shared<ConnectionReply>(server_.io, shared_from_this(), number_));
}

HttpServer::Impl::Impl(const std::string& host, int port, const HttpSettings& with)
    : settings(with), host_name(host) {
  error_code ec;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, ec);
  if (ec || found.empty()) fail("--host {}: is no address of this machine: {}", host, ec.message());
  const tcp::endpoint wanted = *found.begin();
  acceptor.open(wanted.protocol());
  acceptor.set_option(tcp::acceptor::reuse_address(true));
  acceptor.bind(wanted, ec);
  if (ec == asio::error::address_in_use) {
    fail(
        "{}:{} is in use by another program, maybe another server; give another --port, or --port 0 for a "
        "free one",
        host, port);
  }
  if (ec == asio::error::access_denied)
    fail("{}:{}: only root may take ports below 1024; give a larger --port", host, port);
  if (ec) fail("{}:{}: cannot be taken: {}; --host is an address of this machine", host, port, ec.message());
  endpoint = acceptor.local_endpoint();
}

void HttpServer::Impl::accept() {
  acceptor.async_accept([this](error_code ec, tcp::socket socket) {
    if (ec == asio::error::operation_aborted) return;
    if (ec) {  // no descriptor is left, or the client is gone: others go on
      accept_again.expires_after(std::chrono::milliseconds(50));
      accept_again.async_wait([this](error_code cancelled) {
        if (!cancelled) accept();
      });
      return;
    }
    const auto connection = std::make_shared<Connection>(*this, std::move(socket));
    const bool full = static_cast<std::int64_t>(open.size()) >= settings.connections;
    open.insert(connection);
    open_count = static_cast<std::int64_t>(open.size());
    if (full) {
      connection->refuse(refusal(
          503, fmt::format("{} connections are open, the limit (--max-connections)", settings.connections)));
    } else {
      connection->start();
    }
    accept();
  });
}

void HttpServer::Impl::ended(Connection& connection) {
  open.erase(connection.shared_from_this());
  open_count = static_cast<std::int64_t>(open.size());
}

void HttpServer::Impl::check_drained() {
  if (draining && busy == 0 && drained) asio::post(io, std::exchange(drained, {}));
}

HttpServer::HttpServer(const std::string& host, int port, const HttpSettings& settings)
    : impl_(std::make_unique<Impl>(host, port, settings)) {}

HttpServer::~HttpServer() = default;

int HttpServer::port() const {
  return impl_->endpoint.port();
}

std::string HttpServer::address() const {
  const auto host = impl_->endpoint.address();
  return fmt::format("http://{}{}{}:{}", host.is_v6() ? "[" : "", host.to_string(), host.is_v6() ? "]" : "",
                     port());
}

void HttpServer::listen() {
  if (std::exchange(impl_->listening, true)) return;
  error_code ec;
  impl_->acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) {
    fail(
        "{}:{} is in use by another program, maybe another server; give another --port, or --port 0 for a "
        "free one",
        impl_->host_name, port());
  }
}

void HttpServer::run(HttpHandler& handler) {
  impl_->handler = &handler;
  impl_->accept();
  const auto work = asio::make_work_guard(impl_->io);
  impl_->io.run();
  // What is left must not outlive the handler.
  while (!impl_->open.empty()) (*impl_->open.begin())->close();
}

void HttpServer::drain(std::function<void()> drained) {
  asio::post(impl_->io, [this, drained = std::move(drained)]() mutable {
    impl_->draining = true;
    impl_->drained = std::move(drained);
    const auto all = impl_->open;
    for (const auto& connection : all) connection->close_if_idle();
    impl_->check_drained();
  });
}

void HttpServer::stop() {
  impl_->io.stop();
}

void HttpServer::after(double seconds, std::function<void()> f) {
  asio::post(impl_->io, [this, seconds, f = std::move(f)]() mutable {
    const auto timer = std::make_shared<asio::steady_timer>(impl_->io, steady(seconds));
    timer->async_wait([timer, f = std::move(f)](error_code ec) {
      if (!ec) f();
    });
  });
}

void HttpServer::on_signals(const std::vector<int>& signals, std::function<void(int)> f) {
  const auto set = std::make_shared<asio::signal_set>(impl_->io);
  for (const int signal : signals) set->add(signal);
  // Called again for each.
  struct Waiter : std::enable_shared_from_this<Waiter> {
    void wait() {
      set->async_wait([self = shared_from_this()](error_code ec, int signal) {
        if (ec) return;
        self->f(signal);
        self->wait();
      });
    }
    std::shared_ptr<asio::signal_set> set;
    std::function<void(int)> f;
  };
  const auto waiter = std::make_shared<Waiter>();
  waiter->set = set;
  waiter->f = std::move(f);
  waiter->wait();
}

std::int64_t HttpServer::connections() const {
  return impl_->open_count;
}

}  // namespace ratplus::serve
