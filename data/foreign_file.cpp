#include "data/foreign_file.h"

#include <array>
#include <fstream>

#include "kernels/error.h"

namespace ratplus::data {
namespace {

using namespace std::string_view_literals;

struct Kind {
  std::string_view head;
  std::string_view words;
};

constexpr std::string_view utf32 =
    "text in UTF-32, where UTF-8 is wanted; convert it with `iconv -f UTF-32 -t UTF-8`";
constexpr std::string_view utf16 =
    "text in UTF-16, where UTF-8 is wanted; convert it with `iconv -f UTF-16 -t UTF-8`";

/// UTF-32 stands before UTF-16, whose mark it begins with.
constexpr std::array kinds{
    Kind{"version https://git-lfs.github.com/spec/"sv,
         "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"sv},
    Kind{"/annex/objects/"sv, "a git-annex pointer, not the file itself; fetch it with `git annex get`"sv},
    Kind{"\xFF\xFE\0\0"sv, utf32},
    Kind{"\0\0\xFE\xFF"sv, utf32},
    Kind{"\xFF\xFE"sv, utf16},
    Kind{"\xFE\xFF"sv, utf16},
    Kind{"\x93NUMPY"sv, "a NumPy array (.npy); of token numbers, write the bare array with `.tofile()`"sv},
    Kind{"\x89HDF\r\n\x1A\n"sv, "an HDF5 file; of token numbers, give it to `ratplus import`"sv},
    Kind{"\x1F\x8B"sv, "packed with gzip; let its name end in .gz, or unpack it"sv},
    Kind{"\x28\xB5\x2F\xFD"sv, "packed with zstd; let its name end in .zst, or unpack it"sv},
    Kind{"\xFD\x37zXZ\0"sv, "packed with xz; unpack it"sv},
    Kind{"PK\x03\x04"sv, "a zip archive; unpack it"sv},
};

/// Latin text without a byte order mark: every second byte is 0.
bool is_bare_utf16(std::string_view head, std::size_t zero_at) {
  constexpr std::size_t least = 16;
  if (head.size() < least) return false;
  for (std::size_t i = 0; i < least; ++i) {
    if ((head[i] == '\0') != (i % 2 == zero_at)) return false;
  }
  return true;
}

}  // namespace

std::string foreign_kind(std::string_view head) {
  for (const Kind& kind : kinds) {
    if (head.starts_with(kind.head)) return std::string(kind.words);
  }
  for (const std::size_t zero_at : {std::size_t{0}, std::size_t{1}}) {
    if (is_bare_utf16(head, zero_at)) {
      return fmt::format(
          "text in UTF-16, where UTF-8 is wanted; convert it with `iconv -f UTF-16{} -t UTF-8`",
          zero_at == 0 ? "BE" : "LE");
    }
  }
  return {};
}

std::string foreign_kind_of_file(const std::filesystem::path& file) {
  std::string head(head_bytes, '\0');
  std::ifstream in(file, std::ios::binary);
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(in.gcount()));
  return foreign_kind(head);
}

void refuse_foreign(std::string_view head, const std::filesystem::path& file) {
  if (const std::string kind = foreign_kind(head); !kind.empty()) fail("{}: is {}", file.string(), kind);
}

}  // namespace ratplus::data
