// TextSource: the documents of text files, JSON lines and Parquet files, one after another.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/files/byte_stream.h"

namespace ratplus::data {

/// One input file.
struct TextFile {
  enum class Kind { text, json_lines, parquet };
  std::filesystem::path path;
  Kind kind = Kind::text;
  Packing packing = Packing::none;
  std::int64_t bytes = 0;
};

/// The files behind the inputs, in the order given. A directory means its .txt, .jsonl (both also with .gz or .zst)
/// and .parquet files, recursively, linked directories too, hidden files and directories not; a pattern with *, ? or [] for the files and directories that match it; either
/// sorted by path. A file that is named or reached again, by a link too, counts once. `notes` gets a line on what was
/// hidden and one on what came again. Throws Error naming an input that is missing, of another kind, or without any such
/// file, a link to nothing, and a pattern with **.
std::vector<TextFile> list_text_files(const std::vector<std::filesystem::path>& inputs,
                                      std::vector<std::string>* notes = nullptr);

/// A part of a file that can be read without the rest: bytes of unpacked JSON lines (the lines that begin in them), row
/// groups of a Parquet file, or any other file as a whole.
struct TextPart {
  static constexpr std::int64_t to_the_end = INT64_MAX;
  const TextFile* file = nullptr;
  std::int64_t begin = 0;
  std::int64_t end = to_the_end;
  std::int64_t bytes = 0;  ///< on disk
};

/// The place of a document in its input.
struct DocumentPlace {
  const TextFile* file = nullptr;
  std::int64_t line = 0;    ///< JSON lines: its number, from 1, after byte `offset`; Parquet: the row, from 0
  std::int64_t offset = 0;  ///< JSON lines: where counting begins
};

/// A document as stored in its file: a whole .txt file, one JSON line, or one row of a Parquet file.
struct RawDocument : DocumentPlace {
  std::string bytes;
};

/// A document's text, well-formed UTF-8.
struct Document {
  std::string text;
  /// In the text U+FFFD stands for each ill-formed byte sequence, and for each escape that is half of a surrogate pair.
  bool repaired = false;
};

/// Reads the raw documents. Parsing is apart from it, since it can be done by many threads. No more than a document and
/// some buffers are in memory; a document of more than `most_bytes` is an Error.
class TextSource {
 public:
  /// Longer ones are no documents, but files without line breaks or of another kind.
  static constexpr std::size_t max_document_bytes = std::size_t{1} << 30;

  /// text_key: the column of Parquet files.
  TextSource(std::vector<TextPart> parts, std::string text_key, std::size_t most_bytes = max_document_bytes);
  ~TextSource();
  TextSource(const TextSource&) = delete;
  TextSource& operator=(const TextSource&) = delete;

  /// The next document; false at the end. Throws Error naming the file.
  bool next(RawDocument& raw);
  /// The part that the last document came from.
  std::size_t part() const { return next_part_ - 1; }

  std::int64_t bytes_total() const { return bytes_total_; }
  std::int64_t bytes_done() const;

  /// Reads one part's documents.
  class Reader {
   public:
    virtual ~Reader() = default;
    virtual bool next(RawDocument& raw) = 0;
    virtual std::int64_t bytes_done() const = 0;
  };

 private:
  std::vector<TextPart> parts_;
  std::string text_key_;
  std::size_t most_bytes_;
  std::size_t next_part_ = 0;
  std::unique_ptr<Reader> reader_;
  std::int64_t bytes_total_ = 0;
  std::int64_t bytes_done_ = 0;  ///< of the parts before
};

/// Each file as one part.
std::vector<TextPart> whole_files(const std::vector<TextFile>& files);

/// "web.jsonl, line 12": for messages. Reads a part of a file again to count its lines.
std::string to_string(const DocumentPlace& place);

/// The text of a raw document: the file's text, the row's, or the string under `text_key` of the JSON object. Throws
/// Error naming file and line. Thread-safe.
Document parse_document(RawDocument&& raw, const std::string& text_key);

}  // namespace ratplus::data
