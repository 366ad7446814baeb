// Descriptor: an open file of POSIX, closed with the object.
#pragma once

#include <filesystem>
#include <utility>

namespace ratplus {

class Descriptor {
 public:
  Descriptor() = default;
  /// Opens it as open(2) does with these flags.
  Descriptor(const std::filesystem::path& file, int flags);
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      close();
      value_ = std::exchange(other.value_, -1);
    }
    return *this;
  }

  int get() const { return value_; }
  bool ok() const { return value_ >= 0; }
  /// Whether the last bytes were written, as far as the system reports it here.
  bool close();

 private:
  int value_ = -1;
};

/// Whether the open file is the one of this name: another process may have renamed or removed it since it was opened.
bool has_name(const Descriptor& open, const std::filesystem::path& file);

}  // namespace ratplus
