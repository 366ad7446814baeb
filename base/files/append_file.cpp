#include "base/files/append_file.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/units.h"

namespace ratplus {

AppendFile::AppendFile(std::filesystem::path file, int flags)
    : file_(std::move(file)), descriptor_(file_, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags) {
  if (descriptor_.ok()) return;
  const int error = errno;
  fail("{}: cannot be opened for writing: {}{}", file_.string(), std::strerror(error), write_advice(error));
}

void AppendFile::add(std::string_view piece) {
  waiting_ += piece;
  const auto written = write_fully(descriptor_, waiting_);
  if (written < waiting_.size()) error_ = errno;
  waiting_.erase(0, written);
  if (waiting_.size() > most_waiting) fail("{}", trouble());
}

std::string AppendFile::trouble() const {
  if (waiting_.empty()) return "";
  return fmt::format("{}: {} cannot be written: {}{}", file_.string(), counted(waiting_.size(), "byte"),
                     std::strerror(error_), write_advice(error_));
}

}  // namespace ratplus
