// SampleShard: one HDF5 file of samples with labels, for fine-tuning; see data/README.md for the layout.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace ratplus::data {

struct SampleShardInfo {
  std::int64_t samples = 0;
  std::int64_t length = 0;  ///< T, inputs a sample
  std::int64_t vocab_size = 0;
  std::int64_t end_of_text = 0;
  std::string tokenizer;  ///< identity, as in ShardInfo
  /// CRC-32 of the inputs and labels, sample after sample, as 32-bit little-endian numbers; empty in shards of older
  /// versions of this program.
  std::optional<std::uint32_t> crc32 = std::nullopt;
};

/// A label of a position that is left out.
inline constexpr std::int32_t ignored_label = -100;

/// Opening checks format and sizes and throws Error naming the file; so does a read of damaged data.
class SampleShardReader {
 public:
  explicit SampleShardReader(const std::filesystem::path& file);
  ~SampleShardReader();
  SampleShardReader(SampleShardReader&&) noexcept;
  SampleShardReader& operator=(SampleShardReader&&) noexcept;

  const SampleShardInfo& info() const;
  /// Sample i into inputs [T] and labels [T].
  void read(std::int64_t i, std::span<std::int32_t> inputs, std::span<std::int32_t> labels) const;
  /// Reads every sample. Throws Error naming the file where one cannot be read or is not what was written (crc32).
  /// `progress` gets positions read since the last call.
  void verify(const std::function<void(std::int64_t)>& progress) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes beside the final name and renames in finish(); destroyed before that, it leaves nothing.
class SampleShardWriter {
 public:
  /// `shared` gives all but the number of samples.
  SampleShardWriter(const std::filesystem::path& file, const SampleShardInfo& shared);
  ~SampleShardWriter();
  SampleShardWriter(SampleShardWriter&&) noexcept;
  SampleShardWriter& operator=(SampleShardWriter&&) noexcept;

  void add(std::span<const std::int32_t> inputs, std::span<const std::int32_t> labels);
  std::int64_t samples() const;
  SampleShardInfo finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::data
