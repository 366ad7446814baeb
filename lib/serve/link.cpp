#include "lib/serve/link.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <random>
#include <sstream>

namespace ratplus::serve {
namespace {

constexpr std::uint64_t most_frame = std::uint64_t{1} << 32;

[[noreturn]] void fail_socket(const char* what) {
  fail("ranks of the server cannot reach each other on this host: {}: {}", what, std::strerror(errno));
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

/// What a rank says first.
std::string hello(const std::string& secret, int rank) {
  return fmt::format("{} {}", secret, rank);
}

}  // namespace

Link::~Link() {
  ::close(socket_);
}

std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> Link::pair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail_socket("socketpair");
  return {std::make_unique<Link>(ends[0]), std::make_unique<Link>(ends[1])};
}

bool Link::send(std::string_view frame) {
  const std::uint64_t size = frame.size();
  std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
  bytes += frame;
  const std::lock_guard lock(sending_);
  for (std::string_view rest = bytes; !rest.empty();) {
    const auto sent = ::send(socket_, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    rest.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool Link::read(char* bytes, std::size_t count) const {
  while (count > 0) {
    const auto got = ::recv(socket_, bytes, count, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    bytes += got;
    count -= static_cast<std::size_t>(got);
  }
  return true;
}

std::optional<std::string> Link::receive() {
  std::uint64_t size = 0;
  if (!read(reinterpret_cast<char*>(&size), sizeof size) || size > most_frame) return std::nullopt;
  std::string frame(size, '\0');
  if (!read(frame.data(), frame.size())) return std::nullopt;
  return frame;
}

void Link::close() {
  ::shutdown(socket_, SHUT_RDWR);
}

LinkPort::LinkPort() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  auto address = loopback(0);
  socklen_t size = sizeof address;
  constexpr int most_waiting = 128;
  if (socket_ < 0 || ::bind(socket_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(socket_, most_waiting) != 0 ||
      ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    fail_socket("a port of 127.0.0.1");
  port_ = ntohs(address.sin_port);
  std::random_device random;
  for (int i = 0; i < 4; ++i) secret_ += fmt::format("{:08x}", random());
}

LinkPort::~LinkPort() {
  ::close(socket_);
}

std::string LinkPort::address() const {
  return fmt::format("{} {}", port_, secret_);
}

std::vector<std::unique_ptr<Link>> LinkPort::accept(int count, double seconds) const {
  using Clock = std::chrono::steady_clock;
  const auto end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::vector<std::unique_ptr<Link>> links(static_cast<std::size_t>(count));
  while (std::ranges::any_of(links, [](const auto& link) { return link == nullptr; })) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd ready{.fd = socket_, .events = POLLIN, .revents = 0};
    if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) == 0)
      fail("a rank of the server does not reach rank 0 after {} s", seconds);
    const int socket = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) continue;
    auto link = std::make_unique<Link>(socket);
    // A stranger's silence must not hold up the ranks.
    constexpr timeval patience{.tv_sec = 2, .tv_usec = 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const auto said = link->receive();
    for (int rank = 1; said && rank <= count; ++rank) {
      if (*said == hello(secret_, rank)) {
        constexpr timeval for_ever{};
        ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &for_ever, sizeof for_ever);
        const int on = 1;
        ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        links[static_cast<std::size_t>(rank - 1)] = std::move(link);
        break;
      }
    }
  }
  return links;
}

std::unique_ptr<Link> LinkPort::connect(const std::string& address, int rank) {
  std::istringstream text(address);
  int port = 0;
  std::string secret;
  text >> port >> secret;
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const auto root = loopback(port);
  if (socket < 0 || ::connect(socket, reinterpret_cast<const sockaddr*>(&root), sizeof root) != 0)
    fail_socket("rank 0");
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  auto link = std::make_unique<Link>(socket);
  if (!link->send(hello(secret, rank))) fail_socket("rank 0");
  return link;
}

}  // namespace ratplus::serve
