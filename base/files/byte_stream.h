// ByteStream: the bytes of a file, unpacked on the way where it is compressed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace ratplus {

enum class Packing { none, gzip, zstd };

/// Reads from the beginning on, with memory of a constant size. Every failure is an Error that names the file; a packed
/// file that ends too early is one.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  /// Fills `out` from its beginning on; fewer bytes than its size only at the end of the file.
  virtual std::size_t read(std::span<char> out) = 0;
  /// Bytes of the file, as stored on disk, that were read so far.
  virtual std::int64_t consumed() const = 0;
};

/// `begin`: where to start; unpacked files only.
std::unique_ptr<ByteStream> open_bytes(const std::filesystem::path& file, Packing packing,
                                       std::int64_t begin = 0);

}  // namespace ratplus
