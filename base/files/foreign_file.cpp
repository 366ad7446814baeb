#include "base/files/foreign_file.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "base/error.h"

namespace ratplus {
namespace {

using namespace std::string_view_literals;

struct Kind {
  std::string_view head;
  std::string_view name;      ///< "a Git LFS pointer, not the file itself"
  std::string_view text_way;  ///< the way out where text, weights or settings are wanted
  std::string_view tokens_way;
  /// Long enough that no stream of token numbers begins so by chance.
  bool certain = true;
};

constexpr auto hdf5_head = "\x89HDF\r\n\x1A\n"sv;
constexpr auto utf32_way = "convert it with `iconv -f UTF-32 -t UTF-8`"sv;
constexpr auto utf16_way = "convert it with `iconv -f UTF-16 -t UTF-8`"sv;
constexpr auto utf32_name = "text in UTF-32, where UTF-8 is wanted"sv;
constexpr auto utf16_name = "text in UTF-16, where UTF-8 is wanted"sv;
constexpr auto unpack = "unpack it"sv;
constexpr auto to_bin = "write its token numbers alone into a .bin file"sv;

/// UTF-32 stands before UTF-16, whose mark it begins with.
constexpr std::array kinds{
    Kind{"version https://git-lfs.github.com/spec/"sv, "a Git LFS pointer, not the file itself"sv,
         "fetch it with `git lfs pull`"sv, "fetch it with `git lfs pull`"sv},
    Kind{"/annex/objects/"sv, "a git-annex pointer, not the file itself"sv, "fetch it with `git annex get`"sv,
         "fetch it with `git annex get`"sv},
    Kind{"\xFF\xFE\0\0"sv, utf32_name, utf32_way, utf32_way, false},
    Kind{"\0\0\xFE\xFF"sv, utf32_name, utf32_way, utf32_way, false},
    Kind{"\xFF\xFE"sv, utf16_name, utf16_way, utf16_way, false},
    Kind{"\xFE\xFF"sv, utf16_name, utf16_way, utf16_way, false},
    Kind{"\x93NUMPY"sv, "a NumPy array (.npy), which begins with a header"sv,
         "of token numbers, write the bare array with `.tofile()`"sv,
         "write its numbers alone (numpy.load(\"x.npy\").ravel().astype(\"<u4\").tofile(\"x.bin\"), and "
         "--bin-bytes 4)"sv},
    Kind{hdf5_head, "an HDF5 file"sv, "of token numbers, give it to `ratplus import`"sv,
         "rename it to .h5"sv},
    Kind{gzip_head, "packed by gzip"sv, "let its name end in .gz, or unpack it"sv, "unpack it (gzip -d)"sv},
    Kind{zstd_head, "packed by zstd"sv, "let its name end in .zst, or unpack it"sv, "unpack it (zstd -d)"sv},
    Kind{"\xFD\x37zXZ\0"sv, "packed by xz"sv, unpack, "unpack it (xz -d)"sv},
    Kind{"BZh91AY&SY"sv, "packed by bzip2"sv, unpack, "unpack it (bzip2 -d)"sv},
    Kind{"PK\x03\x04"sv, "a zip archive (as .npz and .pt files are)"sv, unpack, to_bin},
    Kind{"MMIDIDX\0\0"sv, "a Megatron index (.idx)"sv, "give the tokens' .bin file to `ratplus import`"sv,
         "give the .bin file beside it"sv},
    Kind{"ARROW1\0\0"sv, "an Arrow file"sv, "write it as JSON lines or as Parquet"sv, to_bin},
    Kind{parquet_head, "a Parquet file"sv, "let its name end in .parquet"sv,
         "give its text to `ratplus prepare`, or write its token numbers into a .bin file"sv},
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

/// A gzip member: its flags use five bits, which a token after 1F 8B 08 has by chance once in eight times only.
bool begins_with(const Kind& kind, std::string_view head) {
  if (!head.starts_with(kind.head)) return false;
  return kind.head != gzip_head || (head.size() > 4 && static_cast<unsigned char>(head[3]) < 0x20);
}

/// llm.c's token files begin with 256 numbers of 32 bits: the format with the width of a token, the version, the count.
std::string llm_c_kind(std::string_view head) {
  constexpr std::int32_t of_16_bits = 20240520;
  constexpr std::int32_t of_32_bits = 20240801;
  constexpr std::size_t header = 1024;
  std::int32_t number = 0;
  if (head.size() < header) return {};
  std::memcpy(&number, head.data(), sizeof number);
  if (number != of_16_bits && number != of_32_bits) return {};
  return fmt::format(
      "a token file of llm.c with its header of {} bytes; cut the header off (tail -c +{} FILE > "
      "tokens.bin){}",
      header, header + 1, number == of_32_bits ? " and give --bin-bytes 4" : "");
}

}  // namespace

std::string foreign_kind(std::string_view head, Wanted wanted) {
  const bool tokens = wanted != Wanted::text;
  for (const Kind& kind : kinds) {
    if (tokens && !kind.certain) continue;
    if (wanted == Wanted::hdf5_tokens && kind.head == hdf5_head) continue;
    if (begins_with(kind, head))
      return fmt::format("{}; {}", kind.name, tokens ? kind.tokens_way : kind.text_way);
  }
  if (wanted == Wanted::tokens) return llm_c_kind(head);
  if (tokens) return {};
  for (const std::size_t zero_at : {std::size_t{0}, std::size_t{1}}) {
    if (is_bare_utf16(head, zero_at)) {
      return fmt::format("{}; convert it with `iconv -f UTF-16{} -t UTF-8`", utf16_name,
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

}  // namespace ratplus
