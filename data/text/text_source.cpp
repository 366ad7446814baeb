#include "data/text/text_source.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/files/foreign_file.h"
#include "base/utf8.h"
#include "data/text/json_text.h"
#include "data/text/parquet.h"

namespace ratplus::data {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

[[noreturn]] void fail_too_long(const TextFile& file, const char* what, std::size_t most) {
  fail("{}: {} of more than {:.3g} GiB; cut it into documents (.jsonl, one a line)", file.path.string(), what,
       static_cast<double>(most) / (1 << 30));
}

void remove_byte_order_mark(std::string& bytes) {
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.erase(0, 3);
}

/// A .txt file: one document.
class WholeText : public TextSource::Reader {
 public:
  WholeText(const TextPart& part, std::size_t most_bytes)
      : file_(*part.file), most_bytes_(most_bytes), stream_(open_bytes(file_.path, file_.packing)) {}

  bool next(RawDocument& raw) override {
    if (done_) return false;
    done_ = true;
    std::size_t filled = 0;
    raw.bytes.clear();
    while (filled == raw.bytes.size()) {
      raw.bytes.resize(std::min(std::max(2 * filled, buffer_bytes), most_bytes_ + 1));
      filled += stream_->read(std::span(raw.bytes).subspan(filled));
      if (filled > most_bytes_) fail_too_long(file_, "a text", most_bytes_);
    }
    raw.bytes.resize(filled);
    remove_byte_order_mark(raw.bytes);
    raw.file = &file_;
    return true;
  }
  std::int64_t bytes_done() const override { return stream_->consumed(); }

 private:
  const TextFile& file_;
  const std::size_t most_bytes_;
  std::unique_ptr<ByteStream> stream_;
  bool done_ = false;
};

/// JSON lines: those that begin in a range of bytes.
class JsonLines : public TextSource::Reader {
 public:
  JsonLines(const TextPart& part, std::size_t most_bytes)
      : file_(*part.file),
        most_bytes_(most_bytes),
        begin_(part.begin),
        end_(part.end),
        // From the byte before: if it ends a line, one begins where the part does.
        stream_(open_bytes(file_.path, file_.packing, std::max<std::int64_t>(part.begin - 1, 0))),
        place_(std::max<std::int64_t>(part.begin - 1, 0)),
        buffer_(buffer_bytes) {
    std::string ignored;
    if (part.begin > 0) read_line(ignored);
    first_ = place_;
  }

  bool next(RawDocument& raw) override {
    while (place_ < end_ && read_line(raw.bytes)) {
      if (++line_ == 1 && begin_ == 0) remove_byte_order_mark(raw.bytes);
      if (raw.bytes.find_first_not_of(" \t\r") == std::string::npos) continue;
      raw.file = &file_;
      raw.line = line_;
      raw.offset = first_;
      return true;
    }
    return false;
  }
  std::int64_t bytes_done() const override { return stream_->consumed(); }

 private:
  /// Up to the next newline, which is left out; false at the end of the file.
  bool read_line(std::string& line) {
    line.clear();
    bool any = false;
    while (at_ < size_ || refill()) {
      any = true;
      const char* begin = buffer_.data() + at_;
      const auto* newline = static_cast<const char*>(std::memchr(begin, '\n', size_ - at_));
      const std::size_t bytes = newline != nullptr ? static_cast<std::size_t>(newline - begin) : size_ - at_;
      line.append(begin, bytes);
      const std::size_t used = bytes + (newline != nullptr ? 1 : 0);
      at_ += used;
      place_ += static_cast<std::int64_t>(used);
      if (line.size() > most_bytes_) fail_too_long(file_, "a line", most_bytes_);
      if (newline != nullptr) break;
    }
    return any;
  }

  bool refill() {
    at_ = 0;
    size_ = stream_->read(buffer_);
    return size_ > 0;
  }

  const TextFile& file_;
  const std::size_t most_bytes_;
  const std::int64_t begin_;
  const std::int64_t end_;
  std::unique_ptr<ByteStream> stream_;
  std::int64_t place_;  ///< in the unpacked file, of the next line
  std::vector<char> buffer_;
  std::size_t at_ = 0;
  std::size_t size_ = 0;
  std::int64_t first_ = 0;  ///< where the part's first line begins
  std::int64_t line_ = 0;
};

/// Rows of a Parquet file.
class ParquetRows : public TextSource::Reader {
 public:
  ParquetRows(const TextPart& part, const std::string& column, std::size_t most_bytes)
      : part_(part), most_bytes_(most_bytes), texts_(part.file->path, column, part.begin, part.end) {}

  bool next(RawDocument& raw) override {
    if (!texts_.next(raw.bytes)) {
      done_ = true;
      return false;
    }
    if (raw.bytes.size() > most_bytes_) fail_too_long(*part_.file, "a row's text", most_bytes_);
    raw.file = part_.file;
    raw.line = texts_.row();
    return true;
  }
  /// Whole row groups are counted; the last one's end is the file's.
  std::int64_t bytes_done() const override { return done_ ? part_.bytes : 0; }

 private:
  const TextPart part_;
  const std::size_t most_bytes_;
  parquet::Texts texts_;
  bool done_ = false;
};

/// A file that is a pointer to another, or text in another encoding, is named as such, packed or not.
void check_kind(const TextFile& file) {
  std::string head(head_bytes, '\0');
  const auto check = [&](Packing packing) {
    head.resize(head_bytes);
    head.resize(open_bytes(file.path, packing)->read(head));
    const bool packed_as_named = file.packing != Packing::none && packing == Packing::none &&
                                 (head.starts_with(gzip_head) || head.starts_with(zstd_head));
    const bool parquet_as_named = file.kind == TextFile::Kind::parquet && head.starts_with(parquet_head);
    if (!packed_as_named && !parquet_as_named) refuse_foreign(head, file.path);
  };
  check(Packing::none);
  if (file.packing != Packing::none) check(file.packing);
}

std::unique_ptr<TextSource::Reader> open_part(const TextPart& part, const std::string& text_key,
                                              std::size_t most_bytes) {
  check_kind(*part.file);
  switch (part.file->kind) {
    case TextFile::Kind::text:
      return std::make_unique<WholeText>(part, most_bytes);
    case TextFile::Kind::json_lines:
      return std::make_unique<JsonLines>(part, most_bytes);
    case TextFile::Kind::parquet:
      return std::make_unique<ParquetRows>(part, text_key, most_bytes);
  }
  return nullptr;
}

}  // namespace

std::vector<TextPart> whole_files(const std::vector<TextFile>& files) {
  std::vector<TextPart> parts;
  for (const TextFile& file : files) parts.push_back({.file = &file, .bytes = file.bytes});
  return parts;
}

TextSource::TextSource(std::vector<TextPart> parts, std::string text_key, std::size_t most_bytes)
    : parts_(std::move(parts)), text_key_(std::move(text_key)), most_bytes_(most_bytes) {
  for (const TextPart& part : parts_) bytes_total_ += part.bytes;
}

TextSource::~TextSource() = default;

bool TextSource::next(RawDocument& raw) {
  while (true) {
    if (reader_ != nullptr) {
      if (reader_->next(raw)) return true;
      bytes_done_ += parts_[part()].bytes;
      reader_.reset();
    }
    if (next_part_ == parts_.size()) return false;
    reader_ = open_part(parts_[next_part_++], text_key_, most_bytes_);
  }
}

std::int64_t TextSource::bytes_done() const {
  if (reader_ == nullptr) return bytes_done_;
  return bytes_done_ + std::min(reader_->bytes_done(), parts_[part()].bytes);
}

namespace {

/// Lines of a file before byte `offset`: what a line's number in a part lacks.
std::int64_t lines_before(const TextFile& file, std::int64_t offset) {
  std::int64_t lines = 0;
  const auto stream = open_bytes(file.path, file.packing);
  std::vector<char> buffer(buffer_bytes);
  while (offset > 0) {
    const auto most = static_cast<std::size_t>(std::min<std::int64_t>(offset, std::ssize(buffer)));
    const std::size_t got = stream->read(std::span(buffer).first(most));
    if (got == 0) break;
    lines += std::count(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(got), '\n');
    offset -= static_cast<std::int64_t>(got);
  }
  return lines;
}

}  // namespace

std::string to_string(const DocumentPlace& place) {
  const std::string file = place.file->path.string();
  switch (place.file->kind) {
    case TextFile::Kind::json_lines:
      return fmt::format("{}, line {}", file, place.line + lines_before(*place.file, place.offset));
    case TextFile::Kind::parquet:
      return fmt::format("{}, row {}", file, place.line);
    case TextFile::Kind::text:
      break;
  }
  return file;
}

Document parse_document(RawDocument&& raw, const std::string& text_key) {
  const bool bytes_repaired = repair_utf8(raw.bytes) > 0;
  if (raw.file->kind != TextFile::Kind::json_lines) return {std::move(raw.bytes), bytes_repaired};
  JsonText found = json_text(raw.bytes, text_key, [&] { return to_string(raw); });
  // What was repaired may lie beside the text, which then need not concern anybody.
  const bool repaired =
      (bytes_repaired || found.repaired) && found.text.find(replacement) != std::string::npos;
  return {std::move(found.text), repaired};
}

}  // namespace ratplus::data
