#include "data/samples/sampler.h"

#include "base/error.h"
#include "base/random.h"

namespace ratplus::data {

const char* to_string(Sampling sampling) {
  switch (sampling) {
    case Sampling::ordered:
      return "ordered";
    case Sampling::random:
      return "random";
    case Sampling::shuffled:
      return "shuffled";
  }
  return "";
}

Sampler::Sampler(Sampling sampling, std::int64_t stream_tokens, std::int64_t sequence_length,
                 std::uint64_t seed, std::uint32_t source)
    : sampling_(sampling),
      stream_tokens_(stream_tokens),
      sequence_length_(sequence_length),
      seed_(seed),
      source_(source),
      sequences_(sequence_length > 0 ? (stream_tokens - 1) / sequence_length : 0) {
  if (sequence_length < 1)
    fail("a sequence of {} tokens is not possible; it needs at least 1", sequence_length);
  if (stream_tokens < sequence_length + 1) {
    fail(
        "the data hold {} tokens, but one sequence of {} inputs needs {}; use a shorter sequence or more "
        "data",
        stream_tokens, sequence_length, sequence_length + 1);
  }
  if (sampling == Sampling::shuffled) order_.emplace(sequences_, seed, Purpose::shuffling, source);
}

std::int64_t Sampler::start(std::int64_t index) const {
  require(index >= 0, "sample index {} is negative", index);
  switch (sampling_) {
    case Sampling::ordered:
      return index % sequences_ * sequence_length_;
    case Sampling::shuffled:
      return order_->at(static_cast<std::uint32_t>(index / sequences_), index % sequences_) *
             sequence_length_;
    case Sampling::random:
      break;
  }
  // The last sequence ends with the stream.
  const auto starts = static_cast<std::uint64_t>(stream_tokens_ - sequence_length_);
  return static_cast<std::int64_t>(
      random_below(starts, seed_, Purpose::sampling, source_, static_cast<std::uint64_t>(index)));
}

}  // namespace ratplus::data
