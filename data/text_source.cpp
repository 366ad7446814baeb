#include "data/text_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "data/pending_file.h"
#include "data/utf8.h"
#include "kernels/error.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

std::optional<TextFile::Kind> kind_of(const fs::path& file) {
  if (file.extension() == ".txt") return TextFile::Kind::text;
  if (file.extension() == ".jsonl") return TextFile::Kind::json_lines;
  return std::nullopt;
}

void append_directory(const fs::path& directory, std::vector<TextFile>& files) {
  std::vector<TextFile> found;
  std::error_code error;
  for (fs::recursive_directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    const auto kind = kind_of(at->path());
    if (kind && at->is_regular_file()) {
      found.push_back({at->path(), *kind, static_cast<std::int64_t>(at->file_size())});
    }
  }
  if (error) fail("cannot list {}: {}", directory.string(), error.message());
  if (found.empty()) fail("{} holds no .txt or .jsonl file", directory.string());
  std::sort(found.begin(), found.end(), [](const TextFile& a, const TextFile& b) { return a.path < b.path; });
  files.insert(files.end(), found.begin(), found.end());
}

void remove_byte_order_mark(std::string& bytes) {
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.erase(0, 3);
}

}  // namespace

std::vector<TextFile> list_text_files(const std::vector<fs::path>& inputs) {
  std::vector<TextFile> files;
  for (const fs::path& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (!fs::exists(status)) fail("input {} does not exist", input.string());
    if (fs::is_directory(status)) {
      append_directory(input, files);
      continue;
    }
    const auto kind = kind_of(input);
    if (!kind || !fs::is_regular_file(status)) {
      fail("input {} is neither a directory nor a .txt or .jsonl file; decompress or rename it",
           input.string());
    }
    files.push_back({input, *kind, static_cast<std::int64_t>(fs::file_size(input))});
  }
  if (files.empty()) fail("no input; name .txt or .jsonl files, or directories of them");
  return files;
}

TextSource::TextSource(std::vector<TextFile> files) : files_(std::move(files)) {
  for (const TextFile& file : files_) bytes_total_ += file.bytes;
}

bool TextSource::next(RawDocument& raw) {
  while (true) {
    if (lines_file_ != nullptr && next_line(raw)) return true;
    if (next_file_ == files_.size()) return false;
    const TextFile& file = files_[next_file_++];
    if (file.kind == TextFile::Kind::json_lines) {
      open(file);
      continue;
    }
    raw = {.bytes = read_whole_file(file.path), .file = &file, .line = 0};
    bytes_done_ += std::ssize(raw.bytes);
    remove_byte_order_mark(raw.bytes);
    return true;
  }
}

void TextSource::open(const TextFile& file) {
  lines_.open(file.path, std::ios::binary);
  if (!lines_) fail("cannot read {}: {}", file.path.string(), std::strerror(errno));
  lines_file_ = &file;
  line_ = 0;
}

/// The next line that is not blank; at the file's end, closes it and returns false.
bool TextSource::next_line(RawDocument& raw) {
  while (std::getline(lines_, raw.bytes)) {
    ++line_;
    bytes_done_ += std::ssize(raw.bytes) + (lines_.eof() ? 0 : 1);
    if (line_ == 1) remove_byte_order_mark(raw.bytes);
    if (raw.bytes.find_first_not_of(" \t\r") == std::string::npos) continue;
    raw.file = lines_file_;
    raw.line = line_;
    return true;
  }
  if (lines_.bad())
    fail("cannot read {} after line {}: {}", lines_file_->path.string(), line_, std::strerror(errno));
  lines_.close();
  lines_.clear();
  lines_file_ = nullptr;
  return false;
}

namespace {

std::string text_of_json(const RawDocument& raw, const std::string& text_key) {
  const auto where = [&] { return fmt::format("{}, line {}", raw.file->path.string(), raw.line); };
  using nlohmann::json;
  json object;
  try {
    object = json::parse(raw.bytes);
  } catch (const json::exception& e) {
    fail("{}: not JSON ({}); correct or remove the line", where(), e.what());
  }
  if (!object.is_object())
    fail("{}: a JSON {}, not an object; correct or remove the line", where(), object.type_name());
  const auto text = object.find(text_key);
  if (text == object.end()) {
    fail("{}: the object has no key \"{}\"; name the text's key with --text-key", where(), text_key);
  }
  if (!text->is_string()) fail("{}: \"{}\" is a JSON {}, not a string", where(), text_key, text->type_name());
  return std::move(text->get_ref<std::string&>());
}

}  // namespace

Document parse_document(RawDocument&& raw, const std::string& text_key) {
  const std::int64_t repaired = repair_utf8(raw.bytes);
  if (raw.file->kind == TextFile::Kind::text) return {std::move(raw.bytes), repaired};
  return {text_of_json(raw, text_key), repaired};
}

}  // namespace ratplus::data
