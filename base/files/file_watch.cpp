#include "base/files/file_watch.h"

#include <fmt/chrono.h>
#include <sys/stat.h>

#include <string>

#include "base/error.h"

namespace ratplus {
namespace {

std::string shown(std::int64_t bytes, std::int64_t changed) {
  return fmt::format("{} bytes of {:%F %T} UTC", bytes, fmt::gmtime(std::time_t{changed / 1'000'000'000}));
}

}  // namespace

void FileWatch::check(const std::filesystem::path& file) {
  struct stat now {};
  if (::stat(file.c_str(), &now) != 0) return;
  const State state{.bytes = now.st_size,
                    .changed = std::int64_t{now.st_mtim.tv_sec} * 1'000'000'000 + now.st_mtim.tv_nsec};
  if (!first_) first_ = state;
  if (state == *first_) return;
  fail(
      "{}: was changed while it is in use ({}, and at first {}); put the file back as it was, its time of "
      "change included (cp -p), or begin anew",
      file.string(), shown(state.bytes, state.changed), shown(first_->bytes, first_->changed));
}

}  // namespace ratplus
