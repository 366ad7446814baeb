#include "data/token_stream.h"

#include <algorithm>
#include <utility>

#include "kernels/error.h"

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
  return reader;
}

}  // namespace

TokenStream::TokenStream(std::filesystem::path dataset_directory, const Manifest& manifest, Split split)
    : directory_(std::move(dataset_directory)), manifest_(manifest), split_(split), starts_{0} {
  for (const ManifestShard& entry : manifest_.shards(split_))
    starts_.push_back(starts_.back() + entry.tokens);
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

void TokenStream::read(std::int64_t begin, std::span<std::int32_t> out) {
  require(begin >= 0 && begin <= tokens() - std::ssize(out),
          "tokens [{}, {}) are outside the {} split of {} tokens", begin, begin + std::ssize(out),
          to_string(split_), tokens());
  // The last shard that starts at or before `begin`; shards without tokens are passed over.
  std::size_t index =
      static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), begin) - starts_.begin()) - 1;
  while (!out.empty()) {
    const std::int64_t left = starts_[index + 1] - begin;
    const auto part = static_cast<std::size_t>(std::min<std::int64_t>(left, std::ssize(out)));
    if (part > 0) shard(index).read(begin - starts_[index], out.first(part));
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
