#include "base/files/page_cache.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/files/pending_file.h"

namespace ratplus {
namespace {

/// Sent to the disk at once.
constexpr std::int64_t portion = std::int64_t{16} << 20;
/// That may be on their way there.
constexpr std::int64_t portions = 4;
/// Shorter reads are of headers, of which there are few.
constexpr std::int64_t shortest = std::int64_t{256} << 10;

}  // namespace

WriteBehind::WriteBehind(const std::filesystem::path& file, std::filesystem::path shown_as)
    : shown_(std::move(shown_as)), file_(file, O_RDONLY) {}

void WriteBehind::wrote(std::int64_t bytes) {
  written_ += bytes;
#ifdef SYNC_FILE_RANGE_WRITE  // Linux
  if (!file_.ok()) return;
  for (; written_ - begun_ >= portion; begun_ += portion) {
    if (::sync_file_range(file_.get(), begun_, portion, SYNC_FILE_RANGE_WRITE) != 0) file_.close();
  }
  for (; begun_ - dropped_ > portions * portion; dropped_ += portion) {
    constexpr auto until_written =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    if (::sync_file_range(file_.get(), dropped_, portion, until_written) != 0) {
      const int error = errno;
      if (error == EIO || error == ENOSPC || error == EDQUOT)
        fail("cannot write {}: {}{}", shown_.string(), std::strerror(error), write_advice(error));
      file_.close();
      return;
    }
    const auto from = std::max<std::int64_t>(dropped_ - portion, 0);
    ::posix_fadvise(file_.get(), from, dropped_ + portion - from, POSIX_FADV_DONTNEED);
  }
#endif
}

ReadOnce::ReadOnce(const std::filesystem::path& file) : file_(file, O_RDONLY) {}

void ReadOnce::read(std::int64_t begin, std::int64_t count) const {
  if (!file_.ok() || count < shortest) return;
  ::posix_fadvise(file_.get(), begin + count, count, POSIX_FADV_WILLNEED);
  // The system keeps pages in groups, and those that a read ended in stay: the next one drops them.
  const auto from = std::max<std::int64_t>(begin - portion, 0);
  ::posix_fadvise(file_.get(), from, begin + count - from, POSIX_FADV_DONTNEED);
}

void ReadOnce::drop_all() const {
  if (file_.ok()) ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace ratplus
