#include "kernels/cpu/key_list.h"

#include <doctest/doctest.h>

#include <vector>

using namespace ratplus;
using cpu::KeyList;
using cpu::Keys;

TEST_CASE("the two key lists together hold exactly what each query attends to") {
  constexpr std::int64_t tokens = 150, none = Pattern::no_dilation;
  for (const Pattern& pattern :
       {Pattern{}, Pattern{64, 0, 0}, Pattern{16, 32, 4}, Pattern{2, 0, 5}, Pattern{none, 20, 0},
        Pattern{none, 0, 7}, Pattern{3, 500, 0}, Pattern{none, 0, 500}, Pattern{7, 10, 21},
        Pattern{500, 3, 1}, Pattern{1, 2, 3}}) {
    CAPTURE(to_string(pattern));
    const KeyList kept(pattern, Keys::kept), windowed(pattern, Keys::windowed);
    CHECK(kept.count_below(tokens) + windowed.count_below(tokens) == tokens);
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::vector<int> seen(tokens), expected(tokens);
      for (const KeyList& list : {kept, windowed}) {
        const KeyList::Range range = list.attended(t);
        for (std::int64_t j = range.begin; j < range.end; ++j)
          ++seen.at(static_cast<std::size_t>(list.position(j)));
      }
      for (std::int64_t s = 0; s < tokens; ++s) expected[static_cast<std::size_t>(s)] = pattern.attends(t, s);
      CHECK(seen == expected);
    }
  }
}
