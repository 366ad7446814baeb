#include "data/prepare/text_portions.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/files/sha256.h"
#include "data/text/parquet.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

/// Row groups, put together up to `portion_bytes`.
void add_row_groups(const TextFile& file, std::int64_t portion_bytes, std::vector<TextPart>& parts) {
  const std::vector<std::int64_t> groups = parquet::row_group_bytes(file.path);
  double unpacked = 1;
  for (const std::int64_t bytes : groups) unpacked += static_cast<double>(bytes);
  const double on_disk = static_cast<double>(file.bytes) / unpacked;
  TextPart part{.file = &file, .begin = 0, .end = 0, .bytes = 0};
  for (const std::int64_t bytes : groups) {
    ++part.end;
    part.bytes += static_cast<std::int64_t>(static_cast<double>(bytes) * on_disk);
    if (part.bytes < portion_bytes) continue;
    parts.push_back(part);
    part = {.file = &file, .begin = part.end, .end = part.end, .bytes = 0};
  }
  if (part.end > part.begin) parts.push_back(part);
}

void add_parts(const TextFile& file, std::int64_t portion_bytes, std::vector<TextPart>& parts) {
  if (file.kind == TextFile::Kind::parquet) {
    add_row_groups(file, portion_bytes, parts);
    return;
  }
  const bool divisible = file.kind == TextFile::Kind::json_lines && file.packing == Packing::none;
  if (!divisible || file.bytes <= portion_bytes) {
    parts.push_back({.file = &file, .bytes = file.bytes});
    return;
  }
  for (std::int64_t begin = 0; begin < file.bytes; begin += portion_bytes) {
    const std::int64_t end = std::min(begin + portion_bytes, file.bytes);
    parts.push_back({.file = &file, .begin = begin, .end = end, .bytes = end - begin});
  }
}

std::string source_of(const TextPortion& portion, const std::string& settings) {
  Sha256 digest;
  digest.update(settings);
  for (const TextPart& part : portion.parts) {
    digest.update(fmt::format("{} {} {}\n", file_mark(*part.file), part.begin, part.end));
  }
  return digest.hex();
}

}  // namespace

std::string file_mark(const TextFile& file) {
  const auto changed = fs::last_write_time(file.path).time_since_epoch();
  return fmt::format("{} {} {}", fs::absolute(file.path).lexically_normal().string(), file.bytes,
                     std::chrono::duration_cast<std::chrono::nanoseconds>(changed).count());
}

std::int64_t portion_bytes_for(const std::vector<TextFile>& files) {
  std::int64_t total = 0;
  for (const TextFile& file : files) total += file.bytes;
  return std::clamp<std::int64_t>(total / 64, std::int64_t{4} << 20, std::int64_t{256} << 20);
}

std::vector<TextPortion> cut_into_portions(const std::vector<TextFile>& files, std::int64_t portion_bytes,
                                           const std::string& settings) {
  std::vector<TextPortion> portions;
  std::vector<TextPart> parts;
  for (const TextFile& file : files) add_parts(file, portion_bytes, parts);
  for (const TextPart& part : parts) {
    if (portions.empty() || portions.back().bytes >= portion_bytes) portions.emplace_back();
    portions.back().parts.push_back(part);
    portions.back().bytes += part.bytes;
  }
  for (TextPortion& portion : portions) {
    portion.source = source_of(portion, settings);
    for (const TextPart& part : portion.parts) portion.marks.push_back(file_mark(*part.file));
  }
  return portions;
}

void check_unchanged(const TextPortion& portion) {
  for (std::size_t i = 0; i < portion.parts.size(); ++i) {
    const TextFile& file = *portion.parts[i].file;
    std::error_code gone;
    if (fs::exists(file.path, gone) && file_mark(file) == portion.marks[i]) continue;
    fail("{}: was changed or removed while it was read; when it is complete, run the command again",
         file.path.string());
  }
}

}  // namespace ratplus::data
