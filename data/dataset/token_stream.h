// TokenStream: the shards of one split as one stream of tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <vector>

#include "base/files/file_watch.h"
#include "data/dataset/manifest.h"
#include "data/dataset/shard.h"

namespace ratplus::data {

/// Random access to a split: a range may cross shards. Shards are opened when first read, and checked then
/// against the manifest; the least recently used ones are closed when many are open. One reader thread.
class TokenStream {
 public:
  TokenStream(std::filesystem::path dataset_directory, const Manifest& manifest, Split split);

  std::int64_t tokens() const { return starts_.back(); }
  /// Tokens [begin, begin + out.size()). Throws Error naming the shard that is missing, short, damaged, or was changed
  /// since it was first read; that one is opened anew by the next call.
  void read(std::int64_t begin, std::span<std::int32_t> out);
  /// Opens every shard's header, so that a missing or short file is found before the first step.
  void check_all() const;

 private:
  struct OpenShard {
    ShardReader reader;
    std::uint64_t used;  ///< value of uses_ when last read
  };

  ShardReader& shard(std::size_t index);
  void read_shard(std::size_t index, std::int64_t begin, std::span<std::int32_t> out);
  std::size_t shard_of(std::int64_t token) const;

  std::filesystem::path directory_;
  Manifest manifest_;
  Split split_;
  std::vector<std::int64_t> starts_;  ///< first token of each shard, and the total
  /// The shards that each of as many equal parts of the stream begins in: shards are of about one size, so few of them
  /// begin in one part, and a token's shard is found in constant time.
  std::vector<std::size_t> first_in_part_;
  std::int64_t part_tokens_ = 1;
  std::map<std::size_t, OpenShard> open_;
  std::vector<FileWatch> watches_;  ///< of all shards, closed ones too
  std::uint64_t uses_ = 0;
};

}  // namespace ratplus::data
