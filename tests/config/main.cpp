// Tests of lib/config, lib/model/pattern_plan, configs/ and docs/job-files.md.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
