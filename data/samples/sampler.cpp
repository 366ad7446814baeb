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

Sampler::Sampler(Sampling sampling, std::int64_t stream_tokens, std::int64_t window, std::uint64_t seed,
                 std::uint32_t source)
    : sampling_(sampling),
      stream_tokens_(stream_tokens),
      window_(window),
      seed_(seed),
      source_(source),
      windows_(window > 0 ? (stream_tokens - 1) / window : 0) {
  if (window < 1) fail("a window of {} tokens is not possible; it needs at least 1", window);
  if (stream_tokens < window + 1) {
    fail("the data hold {} tokens, but one window of {} inputs needs {}; use a shorter window or more data",
         stream_tokens, window, window + 1);
  }
  if (sampling == Sampling::shuffled) order_.emplace(windows_, seed, Purpose::shuffling, source);
}

std::int64_t Sampler::start(std::int64_t index) const {
  require(index >= 0, "sample index {} is negative", index);
  switch (sampling_) {
    case Sampling::ordered:
      return index % windows_ * window_;
    case Sampling::shuffled:
      return order_->at(static_cast<std::uint32_t>(index / windows_), index % windows_) * window_;
    case Sampling::random:
      break;
  }
  // The last window ends with the stream.
  const auto starts = static_cast<std::uint64_t>(stream_tokens_ - window_);
  return static_cast<std::int64_t>(
      random_below(starts, seed_, Purpose::sampling, source_, static_cast<std::uint64_t>(index)));
}

}  // namespace ratplus::data
