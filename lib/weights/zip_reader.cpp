#include "lib/weights/zip_reader.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/files/crc32.h"

namespace ratplus::weights {
namespace {

constexpr std::uint32_t local_signature = 0x04034b50;
constexpr std::uint32_t entry_signature = 0x02014b50;
constexpr std::uint32_t end_signature = 0x06054b50;
constexpr std::uint32_t end_64_signature = 0x06064b50;
constexpr std::uint32_t locator_64_signature = 0x07064b50;
constexpr std::int64_t local_bytes = 30;
constexpr std::int64_t entry_bytes = 46;
constexpr std::int64_t end_bytes = 22;
constexpr std::int64_t end_64_bytes = 56;
constexpr std::int64_t locator_64_bytes = 20;
constexpr std::int64_t longest_comment = 65535;
constexpr std::uint32_t in_zip64 = 0xffffffffu;
constexpr std::uint16_t zip64_extra = 1;

/// A little-endian number at a place of a text that is known to hold it.
template <typename T>
T number(std::string_view bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, bytes.substr(at, sizeof(T)).data(), sizeof(T));
  return value;
}

/// Fills in sizes and offsets that do not fit 32 bits, in the order in which an entry lists them. Where the field is
/// too short they stay beyond what follows them in the file, and are refused there.
void read_zip64_extra(std::string_view extra, std::initializer_list<std::int64_t*> missed) {
  while (extra.size() >= 4) {
    const auto id = number<std::uint16_t>(extra, 0);
    const std::size_t length = number<std::uint16_t>(extra, 2);
    std::string_view field = extra.substr(4, length);
    if (id == zip64_extra) {
      for (std::int64_t* value : missed) {
        if (*value != in_zip64) continue;
        if (field.size() < 8) return;
        *value = number<std::int64_t>(field, 0);
        field.remove_prefix(8);
      }
      return;
    }
    extra.remove_prefix(std::min(extra.size(), 4 + length));
  }
}

}  // namespace

/// How much of a record was read in order, and its checksum so far.
struct ZipReader::Progress {
  std::int64_t next = 0;
  std::uint32_t crc = 0;
};

/// A deflated record's bytes from front to back; an earlier place begins again.
struct ZipReader::Inflater {
  Inflater(const ByteReader& bytes, const ZipEntry& of, std::int64_t begin)
      : file(bytes), entry(&of), next_input(begin), input_left(of.stored_size) {
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) fail("{}: zlib cannot start", file.path().string());
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  void fill_input() {
    const auto count = std::min<std::int64_t>(input_left, static_cast<std::int64_t>(input.size()));
    file.read(next_input, std::span(input).first(static_cast<std::size_t>(count)));
    next_input += count;
    input_left -= count;
    stream.next_in = reinterpret_cast<Bytef*>(input.data());
    stream.avail_in = static_cast<uInt>(count);
  }

  void read(std::span<char> out) {
    while (!out.empty()) {
      if (stream.avail_in == 0 && input_left > 0) fill_input();
      const auto room = static_cast<uInt>(std::min<std::size_t>(out.size(), 1 << 20));
      stream.next_out = reinterpret_cast<Bytef*>(out.data());
      stream.avail_out = room;
      const int status = inflate(&stream, Z_NO_FLUSH);
      const auto got = room - stream.avail_out;
      if (got == 0 && status != Z_OK) {
        fail("{}: record \"{}\" cannot be decompressed; the file is damaged", file.path().string(),
             entry->name);
      }
      position += got;
      out = out.subspan(got);
    }
  }

  const ByteReader& file;
  const ZipEntry* entry;
  std::int64_t position = 0;
  std::int64_t next_input;
  std::int64_t input_left;
  z_stream stream{};
  std::vector<char> input = std::vector<char>(1 << 16);
};

ZipReader::ZipReader(const std::filesystem::path& file) : file_(file) {
  read_directory(find_directory());
  progress_.resize(entries_.size());
}

ZipReader::~ZipReader() = default;

/// The record at the archive's end says where its directory is; a comment may follow it.
ZipReader::Directory ZipReader::find_directory() const {
  const auto tail_size = std::min(file_.size(), end_bytes + longest_comment);
  const std::string tail = file_.read(file_.size() - tail_size, tail_size);
  for (auto at = tail_size - end_bytes; at >= 0; --at) {
    const auto place = static_cast<std::size_t>(at);
    if (number<std::uint32_t>(tail, place) != end_signature) continue;
    const auto end = file_.size() - tail_size + at;
    const auto entries = number<std::uint16_t>(tail, place + 10);
    const auto size = number<std::uint32_t>(tail, place + 12);
    const auto offset = number<std::uint32_t>(tail, place + 16);
    if (entries == 0xffff || size == in_zip64 || offset == in_zip64)
      return directory_64(end - locator_64_bytes);
    return {offset, size, entries};
  }
  fail("{}: no zip archive, or one that is cut short: its directory, at the end, is missing; copy it again",
       path().string());
}

ZipReader::Directory ZipReader::directory_64(std::int64_t locator) const {
  const std::string found = file_.read(locator, locator_64_bytes);
  const auto end = number<std::int64_t>(found, 8);
  if (number<std::uint32_t>(found, 0) == locator_64_signature) {
    const std::string record = file_.read(end, end_64_bytes);
    if (number<std::uint32_t>(record, 0) == end_64_signature) {
      return {.offset = number<std::int64_t>(record, 48),
              .size = number<std::int64_t>(record, 40),
              .entries = number<std::int64_t>(record, 32)};
    }
  }
  fail("{}: the place of its directory is missing (zip64); the file is damaged", path().string());
}

void ZipReader::read_directory(const Directory& directory) {
  const std::string all = file_.read(directory.offset, directory.size);
  std::string_view rest = all;
  const auto damaged = [&] { fail("{}: its directory is damaged; copy the file again", path().string()); };
  while (!rest.empty()) {
    if (rest.size() < entry_bytes || number<std::uint32_t>(rest, 0) != entry_signature) damaged();
    const auto flags = number<std::uint16_t>(rest, 8);
    const auto method = number<std::uint16_t>(rest, 10);
    const std::size_t name_size = number<std::uint16_t>(rest, 28);
    const std::size_t extra_size = number<std::uint16_t>(rest, 30);
    const std::size_t whole = entry_bytes + name_size + extra_size + number<std::uint16_t>(rest, 32);
    if (rest.size() < whole) damaged();
    ZipEntry entry{.name = std::string(rest.substr(entry_bytes, name_size)),
                   .size = number<std::uint32_t>(rest, 24),
                   .stored_size = number<std::uint32_t>(rest, 20),
                   .deflated = method == 8,
                   .crc = number<std::uint32_t>(rest, 16),
                   .header = number<std::uint32_t>(rest, 42)};
    read_zip64_extra(rest.substr(entry_bytes + name_size, extra_size),
                     {&entry.size, &entry.stored_size, &entry.header});
    if ((flags & 1) != 0 || (method != 0 && method != 8)) {
      fail("{}: record \"{}\" is encrypted or packed in another way than PyTorch's (method {})",
           path().string(), entry.name, method);
    }
    if (entry.size < 0 || entry.stored_size < 0 || entry.stored_size > file_.size() ||
        (!entry.deflated && entry.size != entry.stored_size)) {
      damaged();
    }
    if (!index_.emplace(entry.name, entries_.size()).second) damaged();
    entries_.push_back(std::move(entry));
    rest.remove_prefix(whole);
  }
  if (static_cast<std::int64_t>(entries_.size()) != directory.entries) damaged();
}

const ZipEntry* ZipReader::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &entries_[found->second];
}

/// A record's bytes follow its own header, whose name and extra fields may be longer than the directory's.
std::int64_t ZipReader::data_offset(const ZipEntry& entry) const {
  const std::string header = file_.read(entry.header, local_bytes);
  if (number<std::uint32_t>(header, 0) != local_signature) {
    fail("{}: the directory gives a wrong place for record \"{}\"; the file is damaged", path().string(),
         entry.name);
  }
  return entry.header + local_bytes + number<std::uint16_t>(header, 26) + number<std::uint16_t>(header, 28);
}

ZipReader::Progress& ZipReader::progress_of(const ZipEntry& entry) {
  return progress_[static_cast<std::size_t>(&entry - entries_.data())];
}

void ZipReader::check(const ZipEntry& entry, std::int64_t offset, std::span<const char> bytes) {
  auto& progress = progress_of(entry);
  if (offset == 0) progress = {};
  if (entry.crc == 0 || progress.next != offset) return;
  progress.crc = crc32(progress.crc, bytes);
  progress.next += static_cast<std::int64_t>(bytes.size());
  if (progress.next == entry.size && progress.crc != entry.crc) {
    fail("{}: record \"{}\" is damaged: its bytes do not match its checksum; copy the file again",
         path().string(), entry.name);
  }
}

void ZipReader::read(const ZipEntry& entry, std::int64_t offset, std::span<char> out) {
  const auto count = static_cast<std::int64_t>(out.size());
  if (offset < 0 || offset > entry.size - count) {
    fail("{}: record \"{}\" has {} bytes, and bytes {} to {} are asked for; the file is damaged",
         path().string(), entry.name, entry.size, offset, offset + count);
  }
  if (!entry.deflated) {
    file_.read(data_offset(entry) + offset, out);
  } else {
    if (!inflater_ || inflater_->entry != &entry || inflater_->position > offset)
      inflater_ = std::make_unique<Inflater>(file_, entry, data_offset(entry));
    std::vector<char> skipped(1 << 16);
    while (inflater_->position < offset) {
      const auto step = std::min<std::int64_t>(offset - inflater_->position, 1 << 16);
      inflater_->read(std::span(skipped).first(static_cast<std::size_t>(step)));
    }
    inflater_->read(out);
  }
  check(entry, offset, out);
}

std::string ZipReader::read_all(const ZipEntry& entry, std::int64_t most) {
  if (entry.size > most) {
    fail("{}: record \"{}\" has {} bytes, more than the {} that it may have", path().string(), entry.name,
         entry.size, most);
  }
  std::string bytes;
  // Grown as it is filled: a damaged size takes no memory.
  for (std::int64_t done = 0; done < entry.size;) {
    const auto step = std::min<std::int64_t>(entry.size - done, 1 << 20);
    bytes.resize(static_cast<std::size_t>(done + step));
    read(entry, done, std::span(bytes).subspan(static_cast<std::size_t>(done)));
    done += step;
  }
  return bytes;
}

}  // namespace ratplus::weights
