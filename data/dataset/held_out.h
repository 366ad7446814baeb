// Which documents are held out for validation: a function of their text alone.
#pragma once

#include <cstdint>
#include <string_view>

namespace ratplus::data {

/// A document's place in [0, 1), uniform over texts: those below the validation fraction are held out. The
/// choice depends neither on the order of the documents nor on the other ones, equal texts share it, and
/// raising the fraction only adds to the held-out part.
inline double held_out_position(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, 64 bits
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  // FNV mixes its last bytes poorly into the high bits, which are the ones used: MurmurHash3's 64-bit
  // finalizer.
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
  hash ^= hash >> 33;
  return static_cast<double>(hash >> 11) * 0x1p-53;
}

}  // namespace ratplus::data
