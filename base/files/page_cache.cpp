#include "base/files/page_cache.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/files/pending_file.h"

namespace ratplus {
namespace {

/// Sent to the disk at once.
constexpr std::int64_t portion = std::int64_t{16} << 20;
/// That may be on their way there.
constexpr std::int64_t portions = 4;
/// Shorter reads are of headers, of which there are few.
constexpr std::int64_t shortest = std::int64_t{256} << 10;

/// Whether a file system without this call says so. Anything else is a write that failed, which may be reported only once.
bool is_unsupported(int error) {
  return error == ENOSYS || error == EOPNOTSUPP || error == EINVAL || error == ESPIPE || error == EBADF;
}

}  // namespace

WriteBehind::WriteBehind(const std::filesystem::path& file, std::filesystem::path shown_as)
    : shown_(std::move(shown_as)), file_(file, O_RDONLY) {}

void WriteBehind::wrote(std::int64_t bytes) {
  written_ += bytes;
#ifdef SYNC_FILE_RANGE_WRITE  // Linux
  if (!file_.ok()) return;
  const auto sync = [this](std::int64_t begin, unsigned how) {
    if (::sync_file_range(file_.get(), begin, portion, how) == 0) return;
    if (!is_unsupported(errno)) fail_writing(shown_);
    file_.close();
  };
  for (; file_.ok() && written_ - begun_ >= portion; begun_ += portion) sync(begun_, SYNC_FILE_RANGE_WRITE);
  for (; file_.ok() && begun_ - dropped_ > portions * portion; dropped_ += portion) {
    constexpr auto until_written =
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    sync(dropped_, until_written);
    if (!file_.ok()) return;
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
