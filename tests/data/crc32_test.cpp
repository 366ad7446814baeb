#include "base/files/crc32.h"

#include <doctest/doctest.h>

#include <numeric>
#include <string>
#include <vector>

using namespace ratplus;

TEST_CASE("a CRC-32 is that of zip and zlib, in however many pieces") {
  const std::string digits = "123456789";
  CHECK(crc32(0, digits) == 0xcbf43926);  // the value that the polynomial's catalogues give for it
  CHECK(crc32(0, {}) == 0);
  std::vector<char> bytes(100003);
  std::iota(bytes.begin(), bytes.end(), char{0});
  const std::span<const char> all(bytes);
  const auto whole = crc32(0, all);
  for (const std::size_t cut : {1, 15, 16, 4096, 77777}) {
    CHECK(crc32(crc32(0, all.first(cut)), all.subspan(cut)) == whole);
  }
}
