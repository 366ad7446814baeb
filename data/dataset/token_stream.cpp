#include "data/dataset/token_stream.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace ratplus::data {
namespace {

/// Shards kept open at once: far below the usual limit of 1024 files a process.
constexpr std::size_t max_open_shards = 128;

ShardReader open_checked(const std::filesystem::path& file, const Manifest& manifest,
                         const ManifestShard& entry) {
  ShardReader reader(file);
  const ShardInfo& info = reader.info();
  if (info.tokens != entry.tokens || info.documents != entry.documents) {
    fail("{}: {} tokens in {} documents, but {} says {} in {}; prepare the dataset again", file.string(),
         info.tokens, info.documents, manifest_name, entry.tokens, entry.documents);
  }
  if (info.vocab_size != manifest.vocab_size || info.end_of_text != manifest.end_of_text ||
      info.tokenizer != manifest.tokenizer) {
    fail(
        "{}: made with another tokenizer (vocabulary {}, end of text {}, {}) than {} says ({}, {}, {}); "
        "prepare the dataset again",
        file.string(), info.vocab_size, info.end_of_text, info.tokenizer, manifest_name, manifest.vocab_size,
        manifest.end_of_text, manifest.tokenizer);
  }
  if (info.crc32 && entry.crc32 && *info.crc32 != *entry.crc32) {
    fail(
        "{}: is another file than {} says (of checksum {:08x}, not {:08x}); were shards swapped? Copy it "
        "again, "
        "or prepare the dataset again",
        file.string(), manifest_name, *info.crc32, *entry.crc32);
  }
  return reader;
}

}  // namespace

TokenStream::TokenStream(std::filesystem::path dataset_directory, const Manifest& manifest, Split split)
    : directory_(std::move(dataset_directory)), manifest_(manifest), split_(split), starts_{0} {
  for (const ManifestShard& entry : manifest_.shards(split_))
    starts_.push_back(starts_.back() + entry.tokens);
  watches_.resize(manifest_.shards(split_).size());
  const auto parts = std::max<std::int64_t>(std::ssize(starts_) - 1, 1);
  part_tokens_ = tokens() / parts + 1;
  std::size_t shard = 0;
  for (std::int64_t part = 0; part <= parts; ++part) {
    while (shard + 2 < starts_.size() && starts_[shard + 1] <= part * part_tokens_) ++shard;
    first_in_part_.push_back(shard);
  }
}

/// The last shard that starts at or before the token; shards without tokens are passed over.
std::size_t TokenStream::shard_of(std::int64_t token) const {
  const auto part = static_cast<std::size_t>(token / part_tokens_);
  const auto first = starts_.begin() + static_cast<std::ptrdiff_t>(first_in_part_[part]);
  const auto last = starts_.begin() + static_cast<std::ptrdiff_t>(first_in_part_[part + 1] + 1);
  return static_cast<std::size_t>(std::upper_bound(first, last, token) - starts_.begin()) - 1;
}

ShardReader& TokenStream::shard(std::size_t index) {
  if (const auto found = open_.find(index); found != open_.end()) {
    found->second.used = ++uses_;
    return found->second.reader;
  }
  if (open_.size() >= max_open_shards) {
    const auto older = [](const auto& a, const auto& b) { return a.second.used < b.second.used; };
    open_.erase(std::min_element(open_.begin(), open_.end(), older));
  }
  const ManifestShard& entry = manifest_.shards(split_)[index];
  OpenShard opened{open_checked(directory_ / entry.file, manifest_, entry), ++uses_};
  return open_.emplace(index, std::move(opened)).first->second.reader;
}

void TokenStream::read_shard(std::size_t index, std::int64_t begin, std::span<std::int32_t> out) {
  const std::filesystem::path file = directory_ / manifest_.shards(split_)[index].file;
  FileWatch& watch = watches_[index];
  try {
    if (!open_.contains(index)) watch.check(file);
    shard(index).read(begin, out);
    watch.check(file);
  } catch (const Error&) {
    open_.erase(index);
    watch.check(file);  // a change says more than what it led to
    throw;
  }
}

void TokenStream::read(std::int64_t begin, std::span<std::int32_t> out) {
  require(begin >= 0 && begin <= tokens() - std::ssize(out),
          "tokens [{}, {}) are outside the {} split of {} tokens", begin, begin + std::ssize(out),
          to_string(split_), tokens());
  if (out.empty()) return;
  std::size_t index = shard_of(begin);
  while (!out.empty()) {
    const std::int64_t left = starts_[index + 1] - begin;
    const auto part = static_cast<std::size_t>(std::min<std::int64_t>(left, std::ssize(out)));
    if (part > 0) read_shard(index, begin - starts_[index], out.first(part));
    out = out.subspan(part);
    begin += static_cast<std::int64_t>(part);
    ++index;
  }
}

void TokenStream::check_all() const {
  for (const ManifestShard& entry : manifest_.shards(split_)) {
    open_checked(directory_ / entry.file, manifest_, entry);
  }
}

}  // namespace ratplus::data
