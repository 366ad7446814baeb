// TokenShard: one HDF5 file of tokens; see data/README.md for the layout.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace ratplus::data {

/// Attributes of a shard, and those that all shards of a dataset share.
struct ShardInfo {
  std::int64_t tokens = 0;
  std::int64_t documents = 0;
  std::int64_t vocab_size = 0;
  std::int64_t end_of_text = 0;  ///< id of the token after each document
  std::string tokenizer;         ///< identity: "sentencepiece:sha256:..." of the model file
  /// CRC-32 of the tokens as 32-bit little-endian numbers; empty in shards of older versions of this program.
  std::optional<std::uint32_t> crc32 = std::nullopt;
};

inline constexpr int shard_format_version = 1;

/// Reads a shard. Opening checks format, version and sizes and throws Error naming the file; so does a read
/// of damaged data (HDF5's Fletcher-32 checksums). Not thread-safe: one reader a thread.
class ShardReader {
 public:
  explicit ShardReader(const std::filesystem::path& file);
  ~ShardReader();
  ShardReader(ShardReader&&) noexcept;
  ShardReader& operator=(ShardReader&&) noexcept;

  const ShardInfo& info() const;
  /// Tokens [begin, begin + out.size()).
  void read(std::int64_t begin, std::span<std::int32_t> out) const;
  /// documents + 1 offsets: document i is tokens [offsets[i], offsets[i + 1]), its end-of-text token
  /// included.
  std::vector<std::int64_t> document_offsets() const;
  /// Reads every token and offset. Throws Error naming the file where they cannot be read, are not those that were
  /// written (crc32), or a document does not end with an end-of-text token. `progress` gets tokens read since the last
  /// call.
  void verify(const std::function<void(std::int64_t)>& progress) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes a shard beside its final name and renames it in finish(); destroyed before that, it leaves nothing.
class ShardWriter {
 public:
  struct Options {
    int compression = 0;                ///< gzip level, 0 = none
    std::int64_t chunk_tokens = 16384;  ///< read as wholes; a sequence spans one or two
  };
  /// `shared` gives vocab_size, end_of_text and tokenizer; its counts are ignored.
  ShardWriter(const std::filesystem::path& file, const ShardInfo& shared, Options options);
  ~ShardWriter();
  ShardWriter(ShardWriter&&) noexcept;
  ShardWriter& operator=(ShardWriter&&) noexcept;

  /// Appends one document; the end-of-text token is added after it.
  void add_document(std::span<const std::int32_t> tokens);
  std::int64_t tokens() const;
  /// Completes the file on disk and returns its counts.
  ShardInfo finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::data
