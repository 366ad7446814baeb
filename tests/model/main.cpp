#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "tests/parallel/ranks.h"

namespace {
const ratplus::parallel::World* the_world = nullptr;
}

const ratplus::parallel::World& world() { return *the_world; }

int main(int argc, char** argv) {
  const ratplus::parallel::World ranks;  // MPI, of one rank
  the_world = &ranks;
  return doctest::Context(argc, argv).run();
}
