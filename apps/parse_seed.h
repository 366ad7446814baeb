// parse_seed: the text of an option --seed.
#pragma once

#include <fmt/core.h>

#include <boost/program_options.hpp>
#include <charconv>
#include <cstdint>
#include <string>
#include <system_error>

namespace ratplus::apps {

/// A whole number from 0 to 2^64 - 1: the library's own reading takes -1 for the largest. Throws po::error for another text.
inline std::uint64_t parse_seed(const std::string& text) {
  std::uint64_t seed = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, seed);
  if (read.ec == std::errc{} && read.ptr == end) return seed;
  throw boost::program_options::error(
      fmt::format("--seed {} is not a whole number from 0 to 2^64 - 1", text));
}

}  // namespace ratplus::apps
