#include "lib/check/disk.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <system_error>

#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/files/descriptor.h"
#include "base/files/pending_file.h"

namespace ratplus::check {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t portion = std::int64_t{8} << 20;
constexpr std::int64_t synced_at_once = std::int64_t{64} << 20;
constexpr std::int64_t least_bytes = std::int64_t{4} << 20;

/// A file without a name: the system removes it with its last descriptor.
class NamelessFile {
 public:
  explicit NamelessFile(const fs::path& directory) {
    value_ = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (value_ >= 0) return;
    // A file system without O_TMPFILE (NFS): its name is taken away at once.
    auto name = (directory / ".ratplus-check-XXXXXX").string();
    value_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (value_ < 0)
      fail("{}: cannot be written: {}{}", directory.string(), std::strerror(errno), write_advice(errno));
    ::unlink(name.c_str());
  }
  ~NamelessFile() { ::close(value_); }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;
  int get() const { return value_; }

 private:
  int value_ = -1;
};

/// Bytes that no file system compresses.
std::vector<char> random_bytes() {
  std::vector<char> bytes(static_cast<std::size_t>(portion));
  std::uint64_t state = 1;
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    const std::uint64_t mixed = (state ^ (state >> 29)) * 0xbf58476d1ce4e5b9U;
    std::memcpy(bytes.data() + i, &mixed, 8);
  }
  return bytes;
}

void sync(int file, const fs::path& directory) {
  if (::fdatasync(file) != 0) fail("{}: cannot be written: {}", directory.string(), std::strerror(errno));
}

/// Reads up to `bytes` from `offset`; how many.
std::int64_t read_some(int file, std::int64_t offset, std::span<char> out, const fs::path& shown) {
  const auto count = ::pread(file, out.data(), out.size(), offset);
  if (count < 0 && errno != EINTR) fail("{}: cannot be read: {}", shown.string(), std::strerror(errno));
  return std::max<std::int64_t>(count, 0);
}

}  // namespace

DiskRates measure_disk(const fs::path& directory, Amount amount) {
  const NamelessFile file(directory);
  auto bytes = random_bytes();
  DiskRates rates;
  std::int64_t written = 0;
  {
    const ElapsedTime elapsed;
    std::int64_t synced = 0;
    while (written < amount.bytes && (elapsed.seconds() < amount.seconds || written == 0)) {
      const auto done = ::pwrite(file.get(), bytes.data(), bytes.size(), written);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0)
        fail("{}: cannot be written: {}{}", directory.string(), std::strerror(errno), write_advice(errno));
      written += done;
      if (written - synced < synced_at_once) continue;
      sync(file.get(), directory);
      synced = written;
    }
    sync(file.get(), directory);
    rates.write = static_cast<double>(written) / elapsed.seconds();
  }
  ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
  const ElapsedTime elapsed;
  std::int64_t read = 0;
  while (read < written && (elapsed.seconds() < amount.seconds || read == 0))
    read += read_some(file.get(), read, bytes, directory);
  rates.read = static_cast<double>(read) / elapsed.seconds();
  return rates;
}

double measure_reading(const std::vector<fs::path>& files, double place, Amount amount) {
  std::vector<std::int64_t> sizes;
  std::int64_t all = 0;
  for (const auto& file : files) {
    sizes.push_back(static_cast<std::int64_t>(fs::file_size(file)));
    all += sizes.back();
  }
  if (all < least_bytes) return 0;
  auto first = static_cast<std::int64_t>(place * static_cast<double>(all));
  std::size_t index = 0;
  while (first >= sizes[index] && index + 1 < sizes.size()) first -= sizes[index++];
  std::vector<char> buffer(static_cast<std::size_t>(portion));
  const auto wanted = std::min(amount.bytes, all);
  const ElapsedTime elapsed;
  std::int64_t read = 0;
  for (std::size_t opened = 0; opened <= files.size() && read < wanted; ++opened) {
    const auto& path = files[index];
    const Descriptor file(path, O_RDONLY | O_CLOEXEC);
    if (!file.ok()) fail("{}: cannot be read: {}", path.string(), std::strerror(errno));
    ::posix_fadvise(file.get(), first, std::min(wanted - read, sizes[index] - first), POSIX_FADV_DONTNEED);
    while (read < wanted && first < sizes[index]) {
      if (elapsed.seconds() >= amount.seconds && read > 0)
        return static_cast<double>(read) / elapsed.seconds();
      const auto count = read_some(file.get(), first, buffer, path);
      if (count == 0) break;
      first += count;
      read += count;
    }
    first = 0;
    index = (index + 1) % files.size();
  }
  return static_cast<double>(read) / elapsed.seconds();
}

fs::path nearest_directory(fs::path directory) {
  std::error_code ignored;
  directory = fs::absolute(directory, ignored);
  while (!fs::is_directory(directory, ignored) && directory.has_relative_path())
    directory = directory.parent_path();
  return directory;
}

std::int64_t free_space(const fs::path& directory) {
  std::error_code unknown;
  const auto space = fs::space(directory, unknown);
  return unknown ? -1 : static_cast<std::int64_t>(space.available);
}

}  // namespace ratplus::check
