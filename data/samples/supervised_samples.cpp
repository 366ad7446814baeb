#include "data/samples/supervised_samples.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace ratplus::data {
namespace {

constexpr std::size_t max_open_shards = 128;

SampleShardReader open_checked(const SampleSource& source, const ManifestShard& entry) {
  const auto file = source.directory / entry.file;
  SampleShardReader reader(file);
  const SampleShardInfo& info = reader.info();
  const Manifest& manifest = source.manifest;
  if (info.samples != entry.documents || info.length != manifest.sample_length ||
      info.vocab_size != manifest.vocab_size || info.tokenizer != manifest.tokenizer) {
    fail("{}: {} samples of {} by {}, but {} says {} of {} by {}; make the samples again", file.string(),
         info.samples, info.length, info.tokenizer, manifest_name, entry.documents, manifest.sample_length,
         manifest.tokenizer);
  }
  if (info.crc32 && entry.crc32 && *info.crc32 != *entry.crc32) {
    fail(
        "{}: is another file than {} says (of checksum {:08x}, not {:08x}); were shards swapped? Copy it "
        "again, "
        "or make the samples again",
        file.string(), manifest_name, *info.crc32, *entry.crc32);
  }
  return reader;
}

}  // namespace

void SupervisedSamples::check_all(const SampleSource& source) {
  for (const Split split : {Split::train, Split::validation}) {
    for (const ManifestShard& entry : source.manifest.shards(split)) open_checked(source, entry);
  }
}

SupervisedSamples::SupervisedSamples(const std::vector<SampleSource>& sources,
                                     const StreamSamples::Settings& settings)
    : settings_(settings), mixture_(weights_of(sources), settings.seed) {
  combined_manifest(sources);  // of one tokenizer
  for (const SampleSource& source : sources) {
    if (source.manifest.sample_length != settings.sequence_length) {
      fail("{} has samples of {} inputs, not {}; set data.sequence_length = {}", source.directory.string(),
           source.manifest.sample_length, settings.sequence_length, source.manifest.sample_length);
    }
    std::vector<std::int64_t> starts{0};
    for (const ManifestShard& entry : source.manifest.shards(settings.split)) {
      starts.push_back(starts.back() + entry.documents);
    }
    if (starts.back() == 0)
      fail("{}: the {} split has no samples", source.directory.string(), to_string(settings.split));
    const auto number = static_cast<std::uint32_t>(parts_.size());
    std::vector<FileWatch> watches(starts.size() - 1);
    parts_.push_back({source,
                      starts,
                      Permutation(starts.back(), settings.seed, Purpose::shuffling, number),
                      {},
                      std::move(watches)});
  }
}

/// Which of the part's samples its sample `index` is.
std::int64_t SupervisedSamples::number_of(const Part& part, std::int64_t index, std::uint32_t number) const {
  const std::int64_t samples = part.starts.back();
  switch (settings_.sampling) {
    case Sampling::ordered:
      return index % samples;
    case Sampling::shuffled:
      return part.order.at(static_cast<std::uint32_t>(index / samples), index % samples);
    case Sampling::random:
      break;
  }
  return static_cast<std::int64_t>(random_below(static_cast<std::uint64_t>(samples), settings_.seed,
                                                Purpose::sampling, number,
                                                static_cast<std::uint64_t>(index)));
}

SampleShardReader& SupervisedSamples::shard(Part& part, std::size_t index) const {
  if (const auto found = part.open.find(index); found != part.open.end()) return found->second;
  if (part.open.size() >= max_open_shards) part.open.erase(part.open.begin());
  return part.open
      .emplace(index, open_checked(part.source, part.source.manifest.shards(settings_.split)[index]))
      .first->second;
}

std::int64_t SupervisedSamples::read(std::int64_t index, std::span<std::int32_t> inputs,
                                     std::span<std::int32_t> labels) {
  const Mixture::Entry from = mixture_.at(index);
  Part& part = parts_[static_cast<std::size_t>(from.source)];
  const std::int64_t sample = number_of(part, spread_.index(from), static_cast<std::uint32_t>(from.source));
  const auto after = std::upper_bound(part.starts.begin(), part.starts.end(), sample);
  const auto number = static_cast<std::size_t>(after - part.starts.begin()) - 1;
  const auto file = part.source.directory / part.source.manifest.shards(settings_.split)[number].file;
  FileWatch& watch = part.watches[number];
  try {
    if (!part.open.contains(number)) watch.check(file);
    shard(part, number).read(sample - part.starts[number], inputs, labels);
    watch.check(file);
  } catch (const Error&) {
    part.open.erase(number);  // opened anew by the next call
    watch.check(file);        // a change says more than what it led to
    throw;
  }
  return std::count_if(labels.begin(), labels.end(), [](std::int32_t label) { return label >= 0; });
}

Samples::Origin SupervisedSamples::origin(std::int64_t index) {
  const Mixture::Entry from = mixture_.at(index);
  const Part& part = parts_[static_cast<std::size_t>(from.source)];
  return {part.source.directory,
          number_of(part, spread_.index(from), static_cast<std::uint32_t>(from.source))};
}

std::int64_t SupervisedSamples::spread(std::int64_t most) {
  std::vector<std::int64_t> sizes;
  for (const Part& part : parts_) sizes.push_back(part.starts.back());
  spread_ = Spread(mixture_, std::move(sizes), most);
  return spread_.samples();
}

}  // namespace ratplus::data
