#include "base/files/append_file.h"

#include <doctest/doctest.h>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;

TEST_CASE("pieces without room wait, in order, and are written with the next that have room") {
  const test::ScratchDirectory scratch;
  AppendFile file(scratch / "log.txt");
  file.add("first\n");
  CHECK(file.trouble().empty());
  {
    const test::FileSizeLimit full(9);
    file.add("second\n");
    file.add("third\n");
    CHECK(file.trouble().find("log.txt: 10 bytes cannot be written: ") != std::string::npos);
    CHECK(read_whole_file(scratch / "log.txt") == "first\nsec");
  }
  file.add("fourth\n");
  CHECK(file.trouble().empty());
  CHECK(read_whole_file(scratch / "log.txt") == "first\nsecond\nthird\nfourth\n");
}

TEST_CASE("too much that waits is an error, and so is a file that cannot be opened") {
  const test::ScratchDirectory scratch;
  AppendFile full("/dev/full");
  const std::string piece(AppendFile::most_waiting / 2 + 1, 'x');
  full.add(piece);
  CHECK_THROWS_WITH_AS(full.add(piece), doctest::Contains("/dev/full"), Error);
  CHECK_THROWS_WITH_AS(AppendFile(scratch / "none" / "log.txt"), doctest::Contains("make its directory"),
                       Error);
}
