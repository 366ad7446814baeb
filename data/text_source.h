// TextSource: the documents of text files, JSON lines and directories of them, one after another.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace ratplus::data {

/// One input file.
struct TextFile {
  enum class Kind { text, json_lines };
  std::filesystem::path path;
  Kind kind = Kind::text;
  std::int64_t bytes = 0;
};

/// The files behind the inputs, in the order given; a directory stands for its .txt and .jsonl files,
/// recursively, sorted by path. Throws Error naming an input that is missing, of another kind, or a directory
/// without any.
std::vector<TextFile> list_text_files(const std::vector<std::filesystem::path>& inputs);

/// A document as it lies in its file: a whole .txt file, or one JSON line.
struct RawDocument {
  std::string bytes;
  const TextFile* file = nullptr;
  std::int64_t line = 0;  ///< JSON lines: its number, from 1
};

/// A document's text, well-formed UTF-8.
struct Document {
  std::string text;
  std::int64_t repaired = 0;  ///< ill-formed byte sequences, each now U+FFFD
};

/// Reads the raw documents. Parsing is apart from it, since it can be done by many threads.
class TextSource {
 public:
  explicit TextSource(std::vector<TextFile> files);
  TextSource(const TextSource&) = delete;
  TextSource& operator=(const TextSource&) = delete;

  /// The next document; false at the end. `raw.file` points into this object. Throws Error naming the file.
  bool next(RawDocument& raw);

  std::int64_t bytes_total() const { return bytes_total_; }
  std::int64_t bytes_done() const { return bytes_done_; }

 private:
  void open(const TextFile& file);
  bool next_line(RawDocument& raw);

  std::vector<TextFile> files_;
  std::size_t next_file_ = 0;
  std::ifstream lines_;  ///< the JSON lines file being read
  const TextFile* lines_file_ = nullptr;
  std::int64_t line_ = 0;
  std::int64_t bytes_total_ = 0;
  std::int64_t bytes_done_ = 0;
};

/// The text of a raw document: the file's text, or the string under `text_key` of the JSON object. Throws
/// Error naming file and line. Thread-safe.
Document parse_document(RawDocument&& raw, const std::string& text_key);

}  // namespace ratplus::data
