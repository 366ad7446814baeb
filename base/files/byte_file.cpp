#include "base/files/byte_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/files/pending_file.h"

namespace ratplus {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

}  // namespace

ByteReader::ByteReader(std::filesystem::path file) : path_(std::move(file)), file_(path_, O_RDONLY) {
  struct stat status {};
  if (!file_.ok() || ::fstat(file_.get(), &status) != 0) {
    fail("cannot read {}: {}", path_.string(), std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) fail("cannot read {}: it is not a regular file", path_.string());
  size_ = status.st_size;
}

void ByteReader::read(std::int64_t offset, std::span<char> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  if (offset < 0 || offset > size_ - count) {
    fail("{}: ends at byte {}, before bytes {} to {} that its header lists; it is cut short or damaged",
         path_.string(), size_, offset, offset + count);
  }
  const auto begin = offset;
  while (!out.empty()) {
    const ssize_t got = ::pread(file_.get(), out.data(), out.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read {}: {}", path_.string(), std::strerror(errno));
    if (got == 0) fail("{}: became shorter while it was read", path_.string());
    out = out.subspan(static_cast<std::size_t>(got));
    offset += got;
  }
  once_.read(begin, count);
}

std::string ByteReader::read(std::int64_t offset, std::int64_t count) const {
  if (count < 0 || count > size_) {
    fail("{}: has {} bytes, and not the {} that it says it has; it is cut short or damaged", path_.string(),
         size_, count);
  }
  std::string bytes(static_cast<std::size_t>(count), '\0');
  read(offset, std::span(bytes));
  return bytes;
}

ByteWriter::ByteWriter(const std::filesystem::path& file, std::filesystem::path shown_as, Pages pages)
    : shown_(std::move(shown_as)), file_(file, O_WRONLY | O_CREAT | O_TRUNC), pages_(pages) {
  if (!file_.ok()) fail_writing(shown_);
  if (pages_ == Pages::dropped) behind_ = WriteBehind(file, shown_);
  buffer_.reserve(buffer_bytes);
}

void ByteWriter::write(std::string_view bytes) {
  size_ += static_cast<std::int64_t>(bytes.size());
  if (buffer_.size() + bytes.size() >= buffer_bytes) flush();
  if (bytes.size() >= buffer_bytes) return write_through(bytes);
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void ByteWriter::align(std::int64_t alignment) {
  write(std::string(static_cast<std::size_t>((alignment - size_ % alignment) % alignment), '\0'));
}

void ByteWriter::flush() {
  write_through({buffer_.data(), buffer_.size()});
  buffer_.clear();
}

void ByteWriter::write_through(std::string_view bytes) {
  if (write_fully(file_, bytes) < bytes.size()) fail_writing(shown_);
  if (pages_ == Pages::dropped) behind_.wrote(std::ssize(bytes));
}

void ByteWriter::overwrite(std::int64_t offset, std::string_view bytes) {
  flush();
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(file_.get(), bytes.data(), bytes.size(), offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_writing(shown_);
    bytes.remove_prefix(static_cast<std::size_t>(written));
    offset += written;
  }
}

void ByteWriter::close() {
  flush();
  if (!file_.close()) fail_writing(shown_);
}

}  // namespace ratplus
