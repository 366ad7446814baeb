#include "data/dataset/sample_source.h"

#include "base/error.h"

namespace ratplus::data {
namespace {

void check_same_tokenizer(const SampleSource& first, const SampleSource& other) {
  const Manifest& a = first.manifest;
  const Manifest& b = other.manifest;
  if (a.tokenizer == b.tokenizer && a.vocab_size == b.vocab_size && a.end_of_text == b.end_of_text) return;
  fail(
      "{} and {} cannot be mixed: their tokenizers differ ({}, vocabulary {}, end of text {}; {}, vocabulary "
      "{}, end "
      "of text {}); prepare both with the same --tokenizer",
      first.directory.string(), other.directory.string(), a.tokenizer, a.vocab_size, a.end_of_text,
      b.tokenizer, b.vocab_size, b.end_of_text);
}

}  // namespace

Manifest combined_manifest(const std::vector<SampleSource>& sources) {
  require(!sources.empty(), "no source");
  if (sources.size() == 1) return sources.front().manifest;
  Manifest all = sources.front().manifest;
  all.train.clear();
  all.validation.clear();
  for (const SampleSource& source : sources) {
    check_same_tokenizer(sources.front(), source);
    for (const auto list : {&Manifest::train, &Manifest::validation}) {
      for (ManifestShard shard : source.manifest.*list) {
        shard.file = (source.directory / shard.file).string();
        (all.*list).push_back(std::move(shard));
      }
    }
  }
  return all;
}

std::vector<double> weights_of(const std::vector<SampleSource>& sources) {
  std::vector<double> weights;
  for (const SampleSource& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace ratplus::data
