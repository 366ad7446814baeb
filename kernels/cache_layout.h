// CacheLayout: where the keys and values that a pattern keeps of a sequence lie in its cache (docs/model.md, section 19).
#pragma once

#include <cstdint>

#include "kernels/pattern.h"

#ifdef __CUDACC__
#define RATPLUS_HOST_AND_DEVICE __host__ __device__
#else
#define RATPLUS_HOST_AND_DEVICE
#endif

namespace ratplus {

/// Entries of a cache, numbered from 0, under a pattern (D, W, I): the I sinks; the last W tokens, a ring; and the dilated
/// tokens behind the sinks, in their order. A dilated token is written twice as it arrives, into the ring and to its place
/// among the dilated, so that nothing moves when the ring passes over it. The token of the query itself is in no cache.
struct CacheLayout {
  std::int64_t dilation = 0;  ///< D; 0: none
  std::int64_t window = 0;    ///< W
  std::int64_t sinks = 0;     ///< I

  CacheLayout() = default;
  /// Dense attention keeps every token once.
  explicit CacheLayout(const Pattern& pattern)
      : dilation(pattern.dilation == Pattern::no_dilation ? 0 : pattern.dilation),
        window(pattern.dense() ? 0 : pattern.window),
        sinks(pattern.dense() ? 0 : pattern.sinks) {}

  /// Dilated tokens at positions [I, n).
  RATPLUS_HOST_AND_DEVICE std::int64_t dilated_below(std::int64_t n) const {
    return dilation == 0 || n <= sinks ? 0 : n / dilation - sinks / dilation;
  }
  /// Entries that a sequence of up to `tokens` tokens fills.
  RATPLUS_HOST_AND_DEVICE std::int64_t places(std::int64_t tokens) const {
    const std::int64_t plain = sinks + window;
    return tokens <= plain ? tokens : plain + dilated_below(tokens);
  }
  /// The entry of a token among sinks and ring, as it arrives; -1 where neither has it.
  RATPLUS_HOST_AND_DEVICE std::int64_t recent_entry(std::int64_t s) const {
    if (s < sinks) return s;
    return window == 0 ? -1 : sinks + (s - sinks) % window;
  }
  /// Its entry among the dilated; -1 where it is none of them.
  RATPLUS_HOST_AND_DEVICE std::int64_t dilated_entry(std::int64_t s) const {
    return dilation == 0 || s < sinks || (s + 1) % dilation != 0 ? -1 : sinks + window + dilated_below(s);
  }

  /// What the query at t attends to beside its own token, in three runs: sinks, dilated tokens that the window has passed,
  /// and the window. Together they are in entries [0, keys()): the ring is full before the window passes a token.
  struct Runs {
    std::int64_t sinks;         ///< entries [0, sinks)
    std::int64_t dilated;       ///< entries [I + W, I + W + dilated)
    std::int64_t window_begin;  ///< positions [window_begin, t), each at recent_entry()
    std::int64_t window;        ///< how many
    RATPLUS_HOST_AND_DEVICE std::int64_t keys() const { return sinks + dilated + window; }
  };
  RATPLUS_HOST_AND_DEVICE Runs runs(std::int64_t t) const {
    const std::int64_t first = t - window > sinks ? t - window : sinks;
    const std::int64_t in_window = window == 0 || t <= first ? 0 : t - first;
    return {t < sinks ? t : sinks, dilated_below(t - window), first, in_window};
  }
  /// The entry of key j of runs(t), and its position.
  RATPLUS_HOST_AND_DEVICE std::int64_t entry(const Runs& runs, std::int64_t j) const {
    if (j < runs.sinks) return j;
    j -= runs.sinks;
    if (j < runs.dilated) return sinks + window + j;
    return recent_entry(runs.window_begin + j - runs.dilated);
  }
  RATPLUS_HOST_AND_DEVICE std::int64_t position(const Runs& runs, std::int64_t j) const {
    if (j < runs.sinks) return j;
    j -= runs.sinks;
    if (j < runs.dilated) return (sinks / dilation + j + 1) * dilation - 1;
    return runs.window_begin + j - runs.dilated;
  }

  friend bool operator==(const CacheLayout&, const CacheLayout&) = default;
};

}  // namespace ratplus
