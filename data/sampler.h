// Sampler: where the window of a sample starts, as a function of (seed, global sample index) alone.
#pragma once

#include <cstdint>

namespace ratplus::data {

/// ordered: consecutive windows of T inputs (T + 1 tokens, overlapping in one), around again at the end.
/// random: uniform offsets over the whole stream.
enum class Sampling { ordered, random };
const char* to_string(Sampling sampling);

class Sampler {
 public:
  /// stream_tokens: tokens of the split; window: T. Throws Error when the stream holds no window (T + 1
  /// tokens).
  Sampler(Sampling sampling, std::int64_t stream_tokens, std::int64_t window, std::uint64_t seed);

  /// First token of global sample `index`; the window is the T + 1 tokens from there.
  std::int64_t start(std::int64_t index) const;
  /// Windows in one ordered pass.
  std::int64_t windows() const { return windows_; }

 private:
  Sampling sampling_;
  std::int64_t stream_tokens_;
  std::int64_t window_;
  std::uint64_t seed_;
  std::int64_t windows_;
};

}  // namespace ratplus::data
