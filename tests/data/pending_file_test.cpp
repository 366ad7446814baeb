// PendingFile and write_whole_file where the name is no file's: a pipe stays a pipe, and a name of an open file that name.
#include "base/files/pending_file.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>

#include "base/files/descriptor.h"
#include "tests/data/support.h"

using namespace ratplus;
using test::contains;
using test::message_of;
namespace fs = std::filesystem;

TEST_CASE("a whole file goes into a pipe, and no file takes its name") {
  const test::ScratchDirectory scratch;
  const auto pipe = scratch / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const Descriptor reader(pipe, O_RDONLY | O_NONBLOCK);
  REQUIRE(reader.ok());
  CHECK(is_stream(pipe));
  write_whole_file(pipe, "hello");
  std::array<char, 16> got{};
  CHECK(::read(reader.get(), got.data(), got.size()) == 5);
  CHECK(std::string(got.data()) == "hello");
  PendingFile pending(pipe);
  write_whole_file(pending.path(), "whole");
  CHECK(contains(message_of([&] { pending.commit(); }), "pipe: it is a device or a pipe"));
  CHECK(fs::is_fifo(pipe));
}

TEST_CASE("a name of an open file is not replaced") {
  const test::ScratchDirectory scratch;
  const auto file = scratch / "file", stdout_like = scratch / "stdout", link = scratch / "link";
  write_whole_file(file, "before");
  const Descriptor open(file, O_WRONLY);
  REQUIRE(open.ok());
  fs::create_symlink("/proc/self/fd/" + std::to_string(open.get()), stdout_like);
  fs::create_symlink(file, link);
  CHECK(is_stream(stdout_like));
  CHECK(contains(message_of([&] { write_whole_file(stdout_like, "after"); }), "a file that is open already"));
  CHECK(fs::is_symlink(stdout_like));
  CHECK(read_whole_file(file) == "before");
  const auto second = scratch / "second";
  fs::create_symlink("stdout", second);
  CHECK(is_stream(second));
  const auto current = scratch / "current";
  fs::create_symlink("/proc/self/root" + fs::absolute(file).string(), current);
  for (const auto& plain : {file, link, current, scratch / "none", fs::path(scratch / ".")})
    CHECK(!is_stream(plain));
}
