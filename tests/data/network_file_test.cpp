// Files of network file systems: lost answers, errors that are reported once, times in coarser units, late names.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "base/files/appears.h"
#include "base/files/byte_file.h"
#include "base/files/file_watch.h"
#include "base/files/pending_file.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
namespace fs = std::filesystem;
using test::contains;
using test::message_of;

namespace {

bool lose_answers = false;  ///< rename does its work, and fails with ENOENT
int sync_error = 0;         ///< that sync_file_range fails with
int stale_reads = 0;        ///< so many calls of read fail with ESTALE

}  // namespace

// In the place of the C library's, in this program.
extern "C" int rename(const char* from, const char* to) noexcept {
  const auto result = static_cast<int>(::syscall(SYS_rename, from, to));
  if (result != 0 || !lose_answers) return result;
  errno = ENOENT;
  return -1;
}

extern "C" int sync_file_range(int file, off64_t from, off64_t bytes, unsigned flags) {
  if (sync_error == 0) return static_cast<int>(::syscall(SYS_sync_file_range, file, from, bytes, flags));
  errno = sync_error;
  return -1;
}

extern "C" ssize_t read(int file, void* to, size_t bytes) {
  if (stale_reads == 0) return ::syscall(SYS_read, file, to, bytes);
  --stale_reads;
  errno = ESTALE;
  return -1;
}

TEST_CASE("network files: a rename whose answer was lost is a rename, a file that is missing is not") {
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "a", "before");
  lose_answers = true;
  const auto message = message_of([&] { write_whole_file(scratch / "a", "after"); });
  lose_answers = false;
  CHECK(message.empty());
  CHECK(read_whole_file(scratch / "a") == "after");
  CHECK(rename_path(scratch / "missing", scratch / "a") == std::errc::no_such_file_or_directory);
  CHECK(rename_path(scratch / "a", scratch / "missing" / "a") == std::errc::no_such_file_or_directory);
}

TEST_CASE(
    "network files: a write that failed behind is reported, a file system without sync_file_range is not") {
  const test::ScratchDirectory scratch;
  const std::string bytes(std::size_t{96} << 20, 'x');
  const auto write = [&](int error) {
    sync_error = error;
    const auto message = message_of([&] {
      ByteWriter out(scratch / "part", scratch / "shown", ByteWriter::Pages::dropped);
      out.write(bytes);
      out.close();
    });
    sync_error = 0;
    return message;
  };
  for (const int error : {0, EOPNOTSUPP, ENOSYS, EINVAL, ESPIPE}) {
    CAPTURE(error);
    CHECK(write(error).empty());
    CHECK(fs::file_size(scratch / "part") == bytes.size());
  }
  for (const int error : {EIO, ENOSPC, EDQUOT, ETIMEDOUT, ESTALE}) {
    CAPTURE(error);
    CHECK(contains(write(error), "cannot write " + (scratch / "shown").string()));
  }
}

TEST_CASE("network files: a file that another host replaces is read again") {
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "a", "text");
  stale_reads = 2;
  CHECK(read_whole_file(scratch / "a") == "text");
  stale_reads = 100;
  const auto message = message_of([&] { read_whole_file(scratch / "a"); });
  stale_reads = 0;
  CHECK(contains(message, "cannot read " + (scratch / "a").string()));
}

TEST_CASE("network files: a time in coarser units is no change of the file") {
  const test::ScratchDirectory scratch;
  const auto file = scratch / "shard";
  write_whole_file(file, "text");
  const auto set_time = [&](std::int64_t seconds, std::int64_t nanoseconds) {
    const timespec time{.tv_sec = seconds, .tv_nsec = nanoseconds};
    const timespec times[] = {time, time};
    REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
  };
  FileWatch watch;
  const auto changed = [&] { return !message_of([&] { watch.check(file); }).empty(); };
  set_time(1'000'000, 123'456'789);
  CHECK_FALSE(changed());
  for (const std::int64_t coarse : {123'456'789, 123'456'700, 123'456'000, 0}) {
    set_time(1'000'000, coarse);
    CHECK_FALSE(changed());
  }
  for (const std::int64_t other : {123'456'788, 123'456'790, 123'457'000, 200'000'000}) {
    set_time(1'000'000, other);
    CHECK(changed());
  }
  set_time(1'000'001, 0);
  CHECK(changed());
}

TEST_CASE("network files: a name that another host made is waited for") {
  const test::ScratchDirectory scratch;
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    fs::create_directory(scratch / "made");
  });
  CHECK(appears(scratch / "made"));
  other.join();
  CHECK_FALSE(appears(scratch / "not made", std::chrono::milliseconds(100)));
}
