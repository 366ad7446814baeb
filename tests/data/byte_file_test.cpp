#include "base/files/byte_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "base/files/pending_file.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

using namespace ratplus;
using test::contains;
using test::message_of;
using test::ScratchDirectory;

namespace {

std::string random_bytes(std::size_t count) {
  std::mt19937_64 random(7);
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i + 8 <= count; i += 8) {
    const auto value = random();
    std::copy_n(reinterpret_cast<const char*>(&value), 8, bytes.data() + i);
  }
  return bytes;
}

}  // namespace

TEST_CASE("a file written in pieces of any size is what was written, also beyond what is kept in memory") {
  const ScratchDirectory scratch;
  // More than is under way to the disk at once, so that its first pages are dropped before its last are written.
  const auto bytes = random_bytes(std::size_t{150} << 20);
  const auto file = scratch / "bytes";
  ByteWriter out(file, file);
  const std::vector<std::size_t> sizes = {
      1, 30, 70'000, std::size_t{1} << 20, (std::size_t{1} << 20) - 1, std::size_t{16} << 20};
  for (std::size_t at = 0, i = 0; at < bytes.size(); ++i) {
    const auto size = std::min(sizes[i % sizes.size()], bytes.size() - at);
    out.write(std::string_view(bytes).substr(at, size));
    at += size;
    REQUIRE(out.size() == static_cast<std::int64_t>(at));
  }
  out.overwrite(5, "in its place");
  out.close();
  auto expected = bytes;
  expected.replace(5, 12, "in its place");
  CHECK(read_whole_file(file) == expected);

  // Read once: in order, then again at a place that was dropped.
  ByteReader in(file);
  in.expect_one_reading();
  std::string read(bytes.size(), '\0');
  for (std::size_t at = 0; at < bytes.size(); at += 3'000'000) {
    const auto size = std::min<std::size_t>(3'000'000, bytes.size() - at);
    in.read(static_cast<std::int64_t>(at), std::span(read).subspan(at, size));
  }
  CHECK(read == expected);
  CHECK(in.read(1'000'000, 400'000) == expected.substr(1'000'000, 400'000));
  CHECK(test::contains(test::message_of([&] { in.read(in.size() - 3, 4); }), "cut short"));
}

TEST_CASE("byte files: a full disk is named, with the way out, whatever pages are kept") {
  if (!std::filesystem::exists("/dev/full")) return;
  for (const auto pages : {ByteWriter::Pages::dropped, ByteWriter::Pages::kept}) {
    CHECK(contains(message_of([&] {
                     ByteWriter out("/dev/full", "the-file", pages);
                     out.write(std::string(100, 'x'));
                     out.close();
                   }),
                   "cannot write the-file: No space left on device; free some space"));
  }
}
