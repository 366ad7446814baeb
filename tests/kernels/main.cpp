#include <doctest/doctest.h>
#include <fmt/core.h>

#include <cstdio>
#include <exception>

#include "tests/kernels/support.h"

#ifdef __SANITIZE_ADDRESS__
// One test asks for more memory than there can be: the allocator shall refuse, as it does without the
// sanitizer.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}
#endif

int main(int argc, char** argv) {
  try {
    ratplus::test::backends();  // a wrong environment ends everything at once, not test by test
    ratplus::test::seed();
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  const int failed = doctest::Context(argc, argv).run();
  if (failed != 0) fmt::print(stderr, "failed with RATPLUS_TEST_SEED={}\n", ratplus::test::seed());
  return failed;
}
