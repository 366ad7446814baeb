#include "lib/weights/zip_writer.h"

#include "base/error.h"
#include "base/files/crc32.h"

namespace ratplus::weights {
namespace {

constexpr std::int64_t alignment = 64;
constexpr std::int64_t local_bytes = 30;
constexpr std::int64_t crc_place = 14;  ///< in a record's own header
constexpr std::int64_t beyond_32_bits = 0xffffffffLL;
constexpr std::uint16_t utf8_names = 1u << 11;
constexpr std::uint16_t version = 45;  ///< of the format: zip64
constexpr std::uint16_t january_first_1980 = 0x21;

/// Little-endian numbers, one after another.
class Fields {
 public:
  template <typename T>
  Fields& add(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
      bytes_ += static_cast<char>(static_cast<std::uint64_t>(value) >> 8 * i & 0xffu);
    return *this;
  }
  Fields& add_text(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

std::uint32_t in_32_bits(std::int64_t value) {
  return static_cast<std::uint32_t>(value >= beyond_32_bits ? beyond_32_bits : value);
}

std::uint16_t in_16_bits(std::size_t value) {
  return static_cast<std::uint16_t>(value >= 0xffff ? 0xffff : value);
}

/// What does not fit 32 bits.
std::string zip64_extra(std::initializer_list<std::int64_t> values) {
  Fields large;
  for (const auto value : values) {
    if (value >= beyond_32_bits) large.add(value);
  }
  if (large.bytes().empty()) return {};
  return Fields()
      .add(std::uint16_t{1})
      .add(static_cast<std::uint16_t>(large.bytes().size()))
      .add_text(large.bytes())
      .bytes();
}

/// An extra field that moves what follows a header of this size at `place` to the alignment ("FB", as PyTorch's).
std::string padding(std::int64_t place, std::int64_t header_size) {
  constexpr std::int64_t own = 4;
  const auto begin = place + header_size + own;
  const auto missing = (alignment - begin % alignment) % alignment;
  return Fields()
      .add_text("FB")
      .add(static_cast<std::uint16_t>(missing))
      .add_text(std::string(static_cast<std::size_t>(missing), 'Z'))
      .bytes();
}

}  // namespace

ZipWriter::ZipWriter(const std::filesystem::path& file, const std::filesystem::path& shown_as)
    : out_(file, shown_as) {}

void ZipWriter::begin(const std::string& name, std::int64_t size) {
  end_record();
  const auto place = out_.size();
  // A header of its own lists both sizes or neither.
  std::string extra = size >= beyond_32_bits ? zip64_extra({size, size}) : "";
  extra += padding(place, local_bytes + static_cast<std::int64_t>(name.size() + extra.size()));
  const Fields header = Fields()
                            .add(std::uint32_t{0x04034b50})
                            .add(version)
                            .add(utf8_names)
                            .add(std::uint16_t{0})  // stored
                            .add(std::uint16_t{0})  // midnight
                            .add(january_first_1980)
                            .add(std::uint32_t{0})  // CRC-32, once it is known
                            .add(in_32_bits(size))
                            .add(in_32_bits(size))
                            .add(static_cast<std::uint16_t>(name.size()))
                            .add(static_cast<std::uint16_t>(extra.size()))
                            .add_text(name)
                            .add_text(extra);
  out_.write(header.bytes());
  records_.push_back({.name = name, .size = size, .header = place});
  written_ = 0;
}

void ZipWriter::write(std::string_view bytes) {
  auto& record = records_.back();
  record.crc = crc32(record.crc, bytes);
  written_ += static_cast<std::int64_t>(bytes.size());
  out_.write(bytes);
}

void ZipWriter::add(const std::string& name, std::string_view bytes) {
  begin(name, static_cast<std::int64_t>(bytes.size()));
  write(bytes);
}

void ZipWriter::end_record() {
  if (records_.empty()) return;
  const auto& record = records_.back();
  require(written_ == record.size, "record {} of {} bytes got {}", record.name, record.size, written_);
  out_.overwrite(record.header + crc_place, Fields().add(record.crc).bytes());
}

void ZipWriter::finish() {
  end_record();
  const auto directory = out_.size();
  for (const auto& record : records_) {
    const std::string extra = zip64_extra({record.size, record.size, record.header});
    out_.write(Fields()
                   .add(std::uint32_t{0x02014b50})
                   .add(version)
                   .add(version)
                   .add(utf8_names)
                   .add(std::uint16_t{0})
                   .add(std::uint16_t{0})
                   .add(january_first_1980)
                   .add(record.crc)
                   .add(in_32_bits(record.size))
                   .add(in_32_bits(record.size))
                   .add(static_cast<std::uint16_t>(record.name.size()))
                   .add(static_cast<std::uint16_t>(extra.size()))
                   .add(std::uint16_t{0})  // comment
                   .add(std::uint16_t{0})  // disk
                   .add(std::uint16_t{0})  // attributes
                   .add(std::uint32_t{0})
                   .add(in_32_bits(record.header))
                   .add_text(record.name)
                   .add_text(extra)
                   .bytes());
  }
  const auto size = out_.size() - directory;
  const auto count = static_cast<std::uint64_t>(records_.size());
  if (directory >= beyond_32_bits || count >= 0xffff) {
    const auto end_64 = out_.size();
    out_.write(Fields()
                   .add(std::uint32_t{0x06064b50})
                   .add(std::uint64_t{44})  // bytes of this record that follow
                   .add(version)
                   .add(version)
                   .add(std::uint32_t{0})
                   .add(std::uint32_t{0})
                   .add(count)
                   .add(count)
                   .add(size)
                   .add(directory)
                   .add(std::uint32_t{0x07064b50})
                   .add(std::uint32_t{0})
                   .add(end_64)
                   .add(std::uint32_t{1})
                   .bytes());
  }
  out_.write(Fields()
                 .add(std::uint32_t{0x06054b50})
                 .add(std::uint16_t{0})
                 .add(std::uint16_t{0})
                 .add(in_16_bits(records_.size()))
                 .add(in_16_bits(records_.size()))
                 .add(in_32_bits(size))
                 .add(in_32_bits(directory))
                 .add(std::uint16_t{0})
                 .bytes());
  out_.close();
}

}  // namespace ratplus::weights
