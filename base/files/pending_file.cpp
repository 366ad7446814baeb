#include "base/files/pending_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/files/descriptor.h"

namespace ratplus {
namespace {

/// Opens an empty file that no other writer has open, as far as the file system has locks: waits for the other one.
Descriptor open_alone(const std::filesystem::path& file, const std::filesystem::path& shown_as) {
  while (true) {
    Descriptor out(file, O_WRONLY | O_CREAT);
    if (!out.ok()) fail_writing(shown_as);
    int locked = 0;
    do {
      locked = ::flock(out.get(), LOCK_EX);
    } while (locked != 0 && errno == EINTR);
    if (locked == 0 && !has_name(out, file)) continue;  // the other writer has committed or removed it
    if (::ftruncate(out.get(), 0) != 0) fail_writing(shown_as);
    return out;
  }
}

/// Reads into `bytes`. Returns 0, or errno.
int read_once(const std::filesystem::path& file, std::string& bytes) {
  const Descriptor in(file, O_RDONLY);
  if (!in.ok()) return errno;
  std::error_code unknown_size;
  const auto size = std::filesystem::file_size(file, unknown_size);
  std::size_t filled = 0;
  bytes.resize(unknown_size ? 65536 : size + 1);  // one more than expected: the last read sees the end
  while (true) {
    const ssize_t got = ::read(in.get(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
    if (filled == bytes.size()) bytes.resize(2 * bytes.size());
  }
  bytes.resize(filled);
  return 0;
}

}  // namespace

void fail_writing(const std::filesystem::path& file) {
  const int error = errno;
  fail("cannot write {}: {}{}", file.string(), std::strerror(error), write_advice(error));
}

const char* write_advice(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return "; free some space or write to another file system";
    case EFBIG:
      return "; raise the file size limit (ulimit -f) or write to another file system";
    case EACCES:
    case EROFS:
    case EPERM:
      return "; write to a directory that you may write to";
    case EISDIR:
      return "; give the name of a file";
    case ENOTDIR:
      return "; a part of that path is a file: choose another";
    case ENOENT:
      return "; make its directory first";
    default:
      return "";
  }
}

PendingFile::PendingFile(std::filesystem::path final_name, std::filesystem::path shown_as)
    : final_(std::move(final_name)),
      shown_(shown_as.empty() ? final_ : std::move(shown_as)),
      partial_(final_.parent_path() / ("." + final_.filename().string() + ".partial")) {}

PendingFile::~PendingFile() {
  discard();
}

PendingFile::PendingFile(PendingFile&& other) noexcept
    : final_(std::move(other.final_)),
      shown_(std::move(other.shown_)),
      partial_(std::exchange(other.partial_, {})) {}

PendingFile& PendingFile::operator=(PendingFile&& other) noexcept {
  if (this != &other) {
    discard();
    final_ = std::move(other.final_);
    shown_ = std::move(other.shown_);
    partial_ = std::exchange(other.partial_, {});
  }
  return *this;
}

void PendingFile::discard() noexcept {
  if (partial_.empty()) return;
  std::error_code ignored;
  // Emptied first: a writer that failed may still hold the file open, and its blocks with it.
  std::filesystem::resize_file(partial_, 0, ignored);
  std::filesystem::remove(partial_, ignored);
  partial_.clear();
}

void PendingFile::commit() {
  if (is_stream(final_))
    fail(
        "cannot write {}: it is a device or a pipe, which a whole file would replace; give the name of a "
        "file",
        shown_.string());
  // The bytes before the name: after a crash the name either does not exist or stands for all of them.
  sync_path(partial_, shown_);
  if (const auto reason = rename_path(partial_, final_)) {
    errno = reason.value();
    fail_writing(shown_);
  }
  partial_.clear();
  const std::filesystem::path parent = final_.parent_path();
  sync_path(parent.empty() ? "." : parent, shown_);
}

std::error_code rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  struct stat before {};
  struct stat after {};
  const bool known = ::lstat(from.c_str(), &before) == 0;
  if (::rename(from.c_str(), to.c_str()) == 0) return {};
  const int error = errno;
  if (error == ENOENT && known && ::lstat(to.c_str(), &after) == 0 && before.st_dev == after.st_dev &&
      before.st_ino == after.st_ino)
    return {};
  return {error, std::generic_category()};
}

void sync_path(const std::filesystem::path& path, const std::filesystem::path& shown_as) {
  std::error_code ignored;
  const bool directory = std::filesystem::is_directory(path, ignored);
  const Descriptor opened(path, O_RDONLY);
  if (opened.ok() && ::fsync(opened.get()) == 0) return;
  // Some network file systems cannot sync a directory, and one may be written to but not be read (EACCES). Its names
  // are in place all the same.
  if (directory &&
      (errno == EINVAL || errno == EACCES || errno == EOPNOTSUPP || errno == ENOSYS || errno == EBADF))
    return;
  fail_writing(shown_as.empty() ? path : shown_as);
}

bool is_stream(const std::filesystem::path& file) {
  namespace fs = std::filesystem;
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return false;
  if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) return true;
  // A link by way of a process's open files, however many links lead there.
  std::error_code error;
  fs::path name = fs::absolute(file, error);
  constexpr int most_links = 40;  // as Linux follows
  for (int links = 0; links < most_links && fs::is_symlink(name, error); ++links) {
    const fs::path directory = fs::canonical(name.parent_path(), error);
    if (directory.filename() == "fd" && directory.string().starts_with("/proc/")) return true;
    name = directory / fs::read_symlink(name, error);
  }
  return false;
}

void write_whole_file(const std::filesystem::path& file, std::string_view bytes,
                      const std::filesystem::path& shown_as) {
  const std::filesystem::path& shown = shown_as.empty() ? file : shown_as;
  if (is_stream(file)) {
    if (std::filesystem::is_regular_file(file))
      fail("cannot write {}: it stands for a file that is open already; give the name of a file",
           shown.string());
    const Descriptor stream(file, O_WRONLY);
    if (!stream.ok() || write_fully(stream, bytes) < bytes.size()) fail_writing(shown);
    return;
  }
  Descriptor out;  // before the file: it is locked until the file is committed or removed
  PendingFile pending(file, shown);
  out = open_alone(pending.path(), shown);
  if (write_fully(out, bytes) < bytes.size()) fail_writing(shown);
  pending.commit();
}

std::string read_whole_file(const std::filesystem::path& file) {
  constexpr int most = 5;  // replaced so often while it was read
  std::string bytes;
  for (int attempt = 1;; ++attempt) {
    const int error = read_once(file, bytes);
    if (error == 0) return bytes;
    // Over NFS, a file that another host has replaced is gone for those who have it open.
    if (error == ESTALE && attempt < most) continue;
    fail("cannot read {}: {}{}", file.string(), std::strerror(error), error == EISDIR ? "; give a file" : "");
  }
}

}  // namespace ratplus
