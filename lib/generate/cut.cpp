#include "lib/generate/cut.h"

#include <array>

#include "base/error.h"

namespace ratplus::generate {
namespace {

constexpr std::array all_cuts = {Cut::none, Cut::left, Cut::middle};

}  // namespace

const char* to_string(Cut cut) {
  switch (cut) {
    case Cut::left:
      return "left";
    case Cut::middle:
      return "middle";
    case Cut::none:
      break;
  }
  return "none";
}

Cut parse_cut(std::string_view name, std::string_view where) {
  for (const Cut cut : all_cuts) {
    if (name == to_string(cut)) return cut;
  }
  fail("{}: \"{}\" is none of none, left, middle", where, name);
}

std::vector<std::int32_t> cut_tokens(std::vector<std::int32_t> tokens, std::int64_t most, Cut cut) {
  const auto excess = std::ssize(tokens) - most;
  if (excess <= 0 || cut == Cut::none) return tokens;
  const auto begin = tokens.begin() + (cut == Cut::middle ? most / 2 : 0);
  tokens.erase(begin, begin + excess);
  return tokens;
}

}  // namespace ratplus::generate
