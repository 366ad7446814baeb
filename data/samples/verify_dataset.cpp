#include "data/samples/verify_dataset.h"

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "data/dataset/sample_shard.h"
#include "data/dataset/shard.h"
#include "data/dataset/token_stream.h"
#include "data/samples/supervised_samples.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

/// The manifest with this shard alone, so that what speaks of all shards speaks of it.
Manifest with_one_shard(const Manifest& manifest, Split split, const ManifestShard& shard) {
  Manifest one = manifest;
  one.train.clear();
  one.validation.clear();
  (split == Split::train ? one.train : one.validation).push_back(shard);
  return one;
}

void verify_shard(const fs::path& directory, const Manifest& manifest, Split split,
                  const ManifestShard& shard, const std::function<void(std::int64_t)>& progress) {
  const Manifest one = with_one_shard(manifest, split, shard);
  if (manifest.sample_length > 0) {
    SupervisedSamples::check_all({directory, 1, one});
    SampleShardReader(directory / shard.file).verify(progress);
  } else {
    TokenStream(directory, one, split).check_all();
    ShardReader(directory / shard.file).verify(progress);
  }
}

void verify_tokenizer(const fs::path& directory, const Manifest& manifest) {
  if (manifest.tokenizer_file.empty()) return;
  const fs::path file = directory / manifest.tokenizer_file;
  const std::string digest = sha256_hex(read_whole_file(file));
  if (manifest.tokenizer.ends_with(":" + digest)) return;
  fail("{}: is not the tokenizer that the tokens were made with ({}, and its digest is {}); copy it again",
       file.string(), manifest.tokenizer, digest);
}

}  // namespace

std::vector<std::string> verify_dataset(const fs::path& directory, const Manifest& manifest,
                                        const std::function<void(std::int64_t)>& progress) {
  std::vector<std::string> wrong;
  const auto look = [&](const auto& verify) {
    try {
      verify();
    } catch (const Error& error) {
      wrong.emplace_back(error.what());
    }
  };
  look([&] { verify_tokenizer(directory, manifest); });
  for (const Split split : {Split::train, Split::validation}) {
    for (const ManifestShard& shard : manifest.shards(split)) {
      look([&] { verify_shard(directory, manifest, split, shard, progress); });
    }
  }
  return wrong;
}

}  // namespace ratplus::data
