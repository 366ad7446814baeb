#include "base/files/file_watch.h"

#include <fmt/chrono.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <string>

#include "base/error.h"

namespace ratplus {
namespace {

std::string shown(std::int64_t bytes, std::int64_t changed) {
  return fmt::format("{} bytes of {:%F %T} UTC", bytes, fmt::gmtime(std::time_t{changed / 1'000'000'000}));
}

/// Equal, or one is the other in coarser units: a host that wrote a file knows its time more precisely than the file
/// system that keeps it.
bool same_time(std::int64_t a, std::int64_t b) {
  constexpr std::array<std::int64_t, 4> units = {1, 100, 1'000, 1'000'000'000};  // ns
  const std::int64_t earlier = std::min(a, b), later = std::max(a, b);
  return std::ranges::any_of(units, [&](std::int64_t unit) { return later - later % unit == earlier; });
}

}  // namespace

void FileWatch::check(const std::filesystem::path& file) {
  struct stat now {};
  if (::stat(file.c_str(), &now) != 0) return;
  const State state{.bytes = now.st_size,
                    .changed = std::int64_t{now.st_mtim.tv_sec} * 1'000'000'000 + now.st_mtim.tv_nsec};
  if (!first_) first_ = state;
  if (state.bytes == first_->bytes && same_time(state.changed, first_->changed)) return;
  fail(
      "{}: was changed while it is in use ({}, and at first {}); put the file back as it was, its time of "
      "change included (cp -p), or begin anew",
      file.string(), shown(state.bytes, state.changed), shown(first_->bytes, first_->changed));
}

}  // namespace ratplus
