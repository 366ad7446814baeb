// Counter-based random numbers: every number is a function of (seed, purpose, index), so none depends on how
// many ranks or threads there are, or on what was drawn before.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace ratplus {

/// Purpose of a random number; each use has its own value, never a reused one.
enum class Purpose : std::uint32_t {
  initial_weights = 1,
  sampling = 2,
  test = 3,
  shuffling = 4,
  mixing = 5,
  initial_gates = 6,
  generation = 7,
  needles = 8
};

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): a bijection of the
/// counter under a key.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// A function of (seed, purpose, stream, index): an integer uniform in [0, bound), without the bias of a bare remainder.
std::uint64_t random_below(std::uint64_t bound, std::uint64_t seed, Purpose purpose, std::uint32_t stream,
                           std::uint64_t index);
/// out[i] ~ N(0, sigma^2) for element first + i of the stream; any sub-range gives the same elements.
void fill_normal(std::span<float> out, float sigma, std::uint64_t seed, Purpose purpose, std::uint32_t stream,
                 std::uint64_t first);

/// out[i] ~ U(low, high) for element first + i of the stream; any sub-range gives the same elements.
void fill_uniform(std::span<double> out, double low, double high, std::uint64_t seed, Purpose purpose,
                  std::uint32_t stream, std::uint64_t first);

}  // namespace ratplus
