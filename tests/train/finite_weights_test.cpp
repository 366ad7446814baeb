#include "lib/train/finite_weights.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/support/ranks.h"

using namespace ratplus;

TEST_CASE("weights are finite unless one of them is not, wherever it is") {
  session::Session session({.model = {.layers = 2, .width = 32, .head_dim = 16, .vocab_size = 50},
                            .shapes = {1, 16},
                            .optimizer = {},
                            .threads = 1},
                           world());
  session.set_initial_weights(3);
  CHECK(train::weights_are_finite(session));
  auto& store = session.store();
  for (std::size_t unit = 0; unit < store.units().size(); ++unit) {
    const auto last = store.owned(unit).size() - 1;
    const auto element = store.master(unit).slice(0, last, last + 1);
    float before = 0;
    session.ops().download(&before, element);
    for (const float bad : {std::nanf(""), -std::numeric_limits<float>::infinity()}) {
      session.ops().upload(element, &bad);
      CHECK_FALSE(train::weights_are_finite(session));
    }
    session.ops().upload(element, &before);
    CHECK(train::weights_are_finite(session));
  }
}
