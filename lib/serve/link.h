// Link: frames of bytes between two ranks of a server, through a socket.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"

namespace ratplus::serve {

/// One end. Ends of one host and of one program alone: numbers travel as they are in memory.
class Link {
 public:
  /// Takes the socket.
  explicit Link(int socket) : socket_(socket) {}
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  /// Two ends in this process.
  static std::pair<std::unique_ptr<Link>, std::unique_ptr<Link>> pair();

  /// Sends a frame, by any thread. False: the other end is gone.
  bool send(std::string_view frame);
  /// Waits for the next frame; nothing: the other end is gone, or close() was called.
  std::optional<std::string> receive();
  /// Ends send() and receive() here and at the other end.
  void close();

 private:
  bool read(char* bytes, std::size_t count) const;

  int socket_;
  std::mutex sending_;
};

/// The root's links to the other ranks. accept() and connect() come in this order: an address between them travels by MPI.
class LinkPort {
 public:
  /// A free port of the loopback address, and a secret without which nobody is a rank.
  LinkPort();
  ~LinkPort();
  LinkPort(const LinkPort&) = delete;
  LinkPort& operator=(const LinkPort&) = delete;

  /// "PORT SECRET", for connect().
  std::string address() const;
  /// Links to the ranks 1, 2, ...: as many as `count`. Throws Error where one is missing after `seconds`.
  std::vector<std::unique_ptr<Link>> accept(int count, double seconds) const;
  /// Of rank `rank`, at least 1.
  static std::unique_ptr<Link> connect(const std::string& address, int rank);

 private:
  int socket_ = -1;
  int port_ = 0;
  std::string secret_;
};

/// Values one behind the other, in a frame.
class FrameWriter {
 public:
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void put(const T& value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void put(const std::string& text) {
    put(text.size());
    bytes_ += text;
  }
  template <typename T>
  void put(const std::vector<T>& values) {
    put(values.size());
    for (const auto& value : values) put(value);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

/// Takes them out in the same order. Throws Error where the frame ends before.
class FrameReader {
 public:
  explicit FrameReader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void take(T& value) {
    const auto bytes = cut(sizeof value);
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(&value));
  }
  void take(std::string& text) { text = std::string(cut(taken<std::size_t>())); }
  template <typename T>
  void take(std::vector<T>& values) {
    const auto count = taken<std::size_t>();
    if (count > rest_.size()) fail("a frame between ranks is damaged");
    values.resize(count);
    for (auto& value : values) take(value);
  }
  template <typename T>
  T taken() {
    T value{};
    take(value);
    return value;
  }

 private:
  std::string_view cut(std::size_t count) {
    if (count > rest_.size()) fail("a frame between ranks is damaged");
    const auto bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }

  std::string_view rest_;
};

}  // namespace ratplus::serve
