#include "base/files/descriptor.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <cerrno>
#include <string>

#include "base/files/pending_file.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

TEST_CASE("descriptor: locks are shared by readers, held by one writer, and end with the descriptor") {
  const test::ScratchDirectory scratch;
  write_whole_file(scratch / "file", "bytes");
  const Descriptor first(scratch / "file", O_RDWR), second(scratch / "file", O_RDWR);
  CHECK(try_lock(first.get(), Lock::shared) == Locked::yes);
  CHECK(try_lock(second.get(), Lock::shared) == Locked::yes);
  CHECK(try_lock(first.get(), Lock::exclusive) == Locked::held_elsewhere);
  {
    const Descriptor other(scratch / "other", O_RDWR | O_CREAT);
    CHECK(try_lock(other.get(), Lock::exclusive) == Locked::yes);
    const Descriptor again(scratch / "other", O_RDWR);
    CHECK(try_lock(again.get(), Lock::shared) == Locked::held_elsewhere);
  }
  const Descriptor free(scratch / "other", O_RDWR);
  CHECK(try_lock(free.get(), Lock::exclusive) == Locked::yes);
  CHECK(try_lock(-1, Lock::exclusive) == Locked::unsupported);
}

TEST_CASE("descriptor: what could be written is told, with the reason for the rest") {
  const test::ScratchDirectory scratch;
  {
    const Descriptor out(scratch / "file", O_WRONLY | O_CREAT);
    CHECK(write_fully(out, "") == 0);
    CHECK(write_fully(out, "four") == 4);
    const test::FileSizeLimit full(6);
    CHECK(write_fully(out, "more") == 2);
    CHECK(errno == EFBIG);
  }
  CHECK(read_whole_file(scratch / "file") == "fourmo");
}
