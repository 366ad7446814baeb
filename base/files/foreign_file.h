// Files of a known other kind, named by their first bytes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace ratplus {

/// Bytes of a file's beginning that foreign_kind looks at where text is wanted.
inline constexpr std::size_t head_bytes = 512;

/// First bytes of the kinds that programs here read, where a file's name ends in .gz, .zst or .parquet.
inline constexpr std::string_view gzip_head = "\x1F\x8B\x08";
inline constexpr std::string_view zstd_head = "\x28\xB5\x2F\xFD";
inline constexpr std::string_view parquet_head = "PAR1";

/// The content that a file should have. For tokens `head` holds 1024 bytes or more, or the whole file. Token numbers may begin with any bytes, so that among them only beginnings too
/// long for chance count as another kind.
enum class Wanted { text, tokens, hdf5_tokens };

/// Name and way out of a file that stands for another or is packed, or of text in UTF-16 or UTF-32, by its first bytes:
/// "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`". Empty if `head` is of none of these kinds.
std::string foreign_kind(std::string_view head, Wanted wanted = Wanted::text);

/// As foreign_kind, of the file on disk. Empty for a file that cannot be read, too.
std::string foreign_kind_of_file(const std::filesystem::path& file);

/// Throws Error "FILE: is KIND" if `head` is of a foreign kind.
void refuse_foreign(std::string_view head, const std::filesystem::path& file);

}  // namespace ratplus
