// The tokens of a portion, on disk until they go into shards.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/files/byte_file.h"
#include "data/dataset/manifest.h"
#include "data/prepare/token_pipeline.h"

namespace ratplus::data {

/// The place of a document in a portion: a DocumentPlace with the number of a part instead of its file.
struct PlaceInPortion {
  std::int64_t part = 0;
  std::int64_t line = 0;
  std::int64_t offset = 0;
};

/// Counts and settings of a finished portion.
struct PortionInfo {
  std::string source;                       ///< TextPortion::source
  std::array<std::int64_t, 2> tokens{};     ///< by split; end-of-text tokens included
  std::array<std::int64_t, 2> documents{};  ///< by split
  std::int64_t bytes = 0;                   ///< TextPortion::bytes
  std::int64_t repaired = 0;                ///< documents
  PlaceInPortion first_repaired = {};       ///< where there is one
  std::int64_t left_out_empty = 0;
  double lowest_position = 1;  ///< of its documents
  double highest_position = 0;
};

/// Counts of one document.
struct PortionDocument {
  std::int64_t tokens = 0;
  std::array<std::uint64_t, 2> text_hash{};
};

/// Writes unit `number` into `directory`: tokens and documents of each split as plain arrays, and, last of all,
/// unit-NUMBER.json, without which there is no such unit.
class PortionWriter {
 public:
  PortionWriter(std::filesystem::path directory, std::int64_t number, std::int64_t vocab_size);
  void add(Split split, const TokenizedDocument& document, std::int32_t end_of_text);
  void finish(PortionInfo info);

 private:
  /// Values one after another.
  class PartFile {
   public:
    explicit PartFile(const std::filesystem::path& file);
    template <typename T>
    void append(std::span<const T> values) {
      out_.write({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
    }
    /// All that was appended is on the disk.
    void close();

   private:
    std::filesystem::path file_;
    ByteWriter out_;
  };
  struct Part {
    PartFile tokens;
    PartFile documents;
  };
  std::filesystem::path directory_;
  std::int64_t number_;
  bool narrow_;  ///< 16-bit tokens
  std::vector<Part> parts_;
  std::array<std::int64_t, 2> tokens_{};
  std::array<std::int64_t, 2> documents_{};
};

/// The portion if it is finished and its source is this one.
std::optional<PortionInfo> read_portion_info(const std::filesystem::path& directory, std::int64_t number,
                                             const std::string& source);
std::vector<PortionDocument> read_portion_documents(const std::filesystem::path& directory,
                                                    std::int64_t number, Split split);

/// Reads a split's tokens from `first` on.
class PortionTokens {
 public:
  PortionTokens(const std::filesystem::path& directory, std::int64_t number, Split split,
                std::int64_t vocab_size, std::int64_t first);
  /// The next tokens, as many as `out` has room for.
  void read(std::span<std::int32_t> out);
  void skip(std::int64_t tokens);

 private:
  std::filesystem::path file_;
  bool narrow_;
  std::unique_ptr<ByteStream> stream_;
  std::vector<char> raw_;
};

}  // namespace ratplus::data
