#include "data/text/parquet.h"

#include <arrow/util/config.h>
#include <parquet/column_reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/schema.h>

#include <array>

#include "base/error.h"

namespace ratplus::data::parquet {
namespace {

namespace pq = ::parquet;

/// Runs f; what Arrow throws becomes an Error that names the file.
template <typename F>
auto named(const std::filesystem::path& file, const F& f) {
  try {
    return f();
  } catch (const pq::ParquetException& error) {
    fail("{}: not a sound Parquet file ({}); download or copy it again", file.string(), error.what());
  }
}

std::unique_ptr<pq::ParquetFileReader> open(const std::filesystem::path& file) {
  pq::ReaderProperties properties;
  properties.enable_buffered_stream();  // else a whole column chunk, of any size, is read at once
  return named(file, [&] { return pq::ParquetFileReader::OpenFile(file.string(), false, properties); });
}

/// The index of the column, which must hold a text in every row.
int find_column(const pq::FileMetaData& metadata, const std::string& name,
                const std::filesystem::path& file) {
  const pq::SchemaDescriptor& schema = *metadata.schema();
  std::string names;
  for (int i = 0; i < schema.num_columns(); ++i) {
    const pq::ColumnDescriptor& column = *schema.Column(i);
    const std::string path = column.path()->ToDotString();
    const bool is_text = column.physical_type() == pq::Type::BYTE_ARRAY && column.max_repetition_level() == 0;
    if (path == name && is_text) return i;
    if (path == name) {
      fail("{}: column \"{}\" does not hold one text a row; name another with --text-key", file.string(),
           name);
    }
    names += (names.empty() ? "" : ", ") + path;
  }
  fail("{}: there is no column \"{}\"; name one of these with --text-key: {}", file.string(), name, names);
}

}  // namespace

std::vector<std::int64_t> row_group_bytes(const std::filesystem::path& file) {
  const auto reader = open(file);
  const auto metadata = reader->metadata();
  std::vector<std::int64_t> bytes;
  for (int i = 0; i < metadata->num_row_groups(); ++i)
    bytes.push_back(metadata->RowGroup(i)->total_byte_size());
  return bytes;
}

struct Texts::Impl {
  /// Rows that are decoded at once: long texts make a page of few rows.
  static constexpr std::int64_t rows_at_once = 64;

  bool next_rows();

  std::filesystem::path file;
  std::unique_ptr<pq::ParquetFileReader> reader;
  int column = 0;
  std::int16_t text_level = 0;  ///< definition level of a text; a null's is lower
  std::int64_t group = 0;       ///< the next row group
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::shared_ptr<pq::RowGroupReader> group_reader;
  std::shared_ptr<pq::ColumnReader> texts;
  std::array<std::int16_t, rows_at_once> levels{};
  std::array<pq::ByteArray, rows_at_once> values{};
  std::int64_t rows = 0;  ///< decoded
  std::int64_t at = 0;    ///< of them handed out
  std::int64_t value = 0;
  std::int64_t row = -1;  ///< within the file
};

/// Decodes some rows; false at the end.
bool Texts::Impl::next_rows() {
  at = value = 0;
  while (true) {
    while (texts == nullptr || !texts->HasNext()) {
      if (group == end) {
        texts.reset();
        return false;
      }
      group_reader = reader->RowGroup(static_cast<int>(group++));
      texts = group_reader->Column(column);
    }
    auto& byte_arrays = static_cast<pq::ByteArrayReader&>(*texts);
    std::int64_t present = 0;
    rows = byte_arrays.ReadBatch(rows_at_once, levels.data(), nullptr, values.data(), &present);
    if (text_level == 0) rows = present;
    if (rows > 0) return true;
  }
}

Texts::Texts(const std::filesystem::path& file, const std::string& column, std::int64_t begin,
             std::int64_t end)
    : impl_(std::make_unique<Impl>()) {
  impl_->file = file;
  impl_->reader = open(file);
  const auto metadata = impl_->reader->metadata();
  impl_->column = find_column(*metadata, column, file);
  impl_->text_level = metadata->schema()->Column(impl_->column)->max_definition_level();
  impl_->group = impl_->begin = begin;
  impl_->end = std::min<std::int64_t>(end, metadata->num_row_groups());
  for (int i = 0; i < begin && i < metadata->num_row_groups(); ++i)
    impl_->row += metadata->RowGroup(i)->num_rows();
}

Texts::~Texts() = default;

bool Texts::next(std::string& text) {
  Impl& impl = *impl_;
  return named(impl.file, [&] {
    if (impl.at == impl.rows && !impl.next_rows()) {
      impl.rows = 0;
      return false;
    }
    ++impl.row;
    const auto at = static_cast<std::size_t>(impl.at++);
    if (impl.text_level > 0 && impl.levels[at] < impl.text_level) {
      text.clear();
      return true;
    }
    const pq::ByteArray& bytes = impl.values[static_cast<std::size_t>(impl.value++)];
    text.assign(reinterpret_cast<const char*>(bytes.ptr), bytes.len);
    return true;
  });
}

std::int64_t Texts::row() const {
  return impl_->row;
}

std::int64_t Texts::row_groups_done() const {
  return impl_->group - impl_->begin - (impl_->texts != nullptr ? 1 : 0);
}

}  // namespace ratplus::data::parquet
