#include <doctest/doctest.h>

#include <algorithm>

#include "tests/infer/runner.h"

using namespace ratplus;

TEST_CASE("a cache's entries are distinct, and as many as the pattern promises") {
  constexpr auto none = Pattern::no_dilation;
  for (const Pattern pattern : {Pattern{1, 5, 3}, Pattern{16, 0, 4}, Pattern{16, 24, 4}, Pattern{none, 32, 2}, Pattern{none, 0, 0},
                                Pattern{4, 3, 2}, Pattern{7, 130, 9}, Pattern{3, 2, 7}}) {
    CAPTURE(to_string(pattern));
    const CacheLayout layout(pattern);
    std::vector<std::int64_t> entry_of_position;  // where each token lies that something can still attend to
    for (std::int64_t t = 0; t < 300; ++t) {
      const auto runs = layout.runs(t);
      std::vector<std::int64_t> entries, positions;
      for (std::int64_t j = 0; j < runs.keys(); ++j) {
        entries.push_back(layout.entry(runs, j));
        positions.push_back(layout.position(runs, j));
        // The entry is one that the token was written to.
        const auto s = positions.back();
        CHECK((entries.back() == layout.recent_entry(s) || entries.back() == layout.dilated_entry(s)));
        CHECK(entries.back() < layout.places(t));
      }
      std::vector<std::int64_t> wanted;
      for (std::int64_t s = 0; s < t; ++s) {
        if (pattern.attends(t, s)) wanted.push_back(s);
      }
      std::ranges::sort(positions);
      CHECK(positions == wanted);
      std::ranges::sort(entries);
      CHECK(std::ranges::adjacent_find(entries) == entries.end());
    }
    const auto dilated = pattern.dilation == none ? 0 : 4096 / pattern.dilation;
    CHECK(layout.places(4096) <= pattern.sinks + pattern.window + dilated + 1);
  }
}
