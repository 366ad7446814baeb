// Descriptor: an open file of POSIX, closed with the object.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>
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

/// Writes bytes at the file's position, on after signals. Returns how many were written: fewer than there are where write(2)
/// fails, whose errno stands then.
std::size_t write_fully(const Descriptor& out, std::string_view bytes);

enum class Lock { shared, exclusive };
enum class Locked {
  yes,
  held_elsewhere,  ///< by another process, or another opening of the file
  unsupported,     ///< the file system has no locks (Lustre, NFS); errno says more
};
/// Locks an open file (flock(2)) without waiting, until its last descriptor is closed.
Locked try_lock(int descriptor, Lock lock);

/// Whether the open file is the one of this name: another process may have renamed or removed it since it was opened.
bool has_name(const Descriptor& open, const std::filesystem::path& file);

}  // namespace ratplus
