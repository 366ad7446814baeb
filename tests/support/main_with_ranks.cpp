// main of test programs that need ranks: runs the tests on every rank; the program fails if any rank's tests do.
#include <doctest/doctest.h>

#include "tests/support/ranks.h"

namespace {
const ratplus::parallel::World* the_world = nullptr;
}

const ratplus::parallel::World& world() {
  return *the_world;
}

int main(int argc, char** argv) {
  const ratplus::parallel::World ranks;
  the_world = &ranks;
  doctest::Context context(argc, argv);
  context.setOption("no-path-filenames", true);
  if (!ranks.root()) context.setOption("minimal", true);
  const int failed = context.run();
  return static_cast<int>(ranks.max(std::int64_t{failed}));
}
