#include "data/samples/samples.h"

#include <utility>

#include "base/error.h"
#include "data/samples/cut_sequence.h"

namespace ratplus::data {
StreamSamples::StreamSamples(const std::vector<SampleSource>& sources, const Settings& settings)
    : settings_(settings),
      end_of_text_(static_cast<std::int32_t>(combined_manifest(sources).end_of_text)),
      mixture_(weights_of(sources), settings.seed),
      tokens_(static_cast<std::size_t>(settings.sequence_length + 1)) {
  for (const SampleSource& source : sources) {
    const auto number = static_cast<std::uint32_t>(streams_.size());
    directories_.push_back(source.directory);
    streams_.emplace_back(source.directory, source.manifest, settings.split);
    try {
      samplers_.emplace_back(settings.sampling, streams_.back().tokens(), settings.sequence_length,
                             settings.seed, number);
    } catch (const Error& error) {
      fail("{}, {} split: {}", source.directory.string(), to_string(settings.split), error.what());
    }
  }
}

std::int64_t StreamSamples::read(std::int64_t index, std::span<std::int32_t> inputs,
                                 std::span<std::int32_t> labels) {
  const Mixture::Entry place = mixture_.at(index);
  const auto source = static_cast<std::size_t>(place.source);
  streams_[source].read(samplers_[source].start(spread_.index(place)), tokens_);
  return cut_sequence(tokens_, end_of_text_, inputs, labels);
}

Samples::Origin StreamSamples::origin(std::int64_t index) {
  const Mixture::Entry from = mixture_.at(index);
  const auto source = static_cast<std::size_t>(from.source);
  return {directories_[source], samplers_[source].start(spread_.index(from))};
}

std::int64_t StreamSamples::spread(std::int64_t most) {
  std::vector<std::int64_t> sizes;
  for (const Sampler& sampler : samplers_) sizes.push_back(sampler.sequences());
  spread_ = Spread(mixture_, std::move(sizes), most);
  return spread_.samples();
}

}  // namespace ratplus::data
