#!/usr/bin/env bash
# Builds everything and runs all tests.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh

usage() {
  cat <<'END'
tests/run.sh - build everything and run all tests

Usage: tests/run.sh [--sanitize] [-R REGEX] [--help]

  --sanitize  with AddressSanitizer and UndefinedBehaviorSanitizer, in build-sanitize/ instead of build/
  -R REGEX    only the tests whose names match
  --help      this text

Installs the Debian packages that are missing. Its exit status is that of ctest.
END
}

build=build
sanitize=false
configure_options=()
ctest_options=(--output-on-failure)
while (($# > 0)); do
  case $1 in
    --sanitize)
      sanitize=true
      build="build-sanitize"
      configure_options=("-DRATPLUS_SANITIZE=address,undefined" -DRATPLUS_CUDA=OFF)
      ;;
    -R)
      [[ -n ${2:-} ]] || die "-R needs a regular expression"
      ctest_options+=(-R "$2")
      shift
      ;;
    -h | --help) usage && exit ;;
    *) die "unknown option '$1'; --help lists the known ones" ;;
  esac
  shift
done

# What is found in our code fails the test; what OpenMPI keeps until the process ends does not.
run_tests() {
  if $sanitize; then
    cc -shared -fPIC -o "$build/keep_plugins.so" tests/keep_plugins.c
    local -x LD_PRELOAD=$PWD/$build/keep_plugins.so # before the sanitizer's library, which would complain
    local -x ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:verify_asan_link_order=0
    local -x LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
    local -x UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  fi
  ctest --test-dir "$build" --no-tests=error "${ctest_options[@]}"
}

mpi_environment

setup_options=(--tests)
# Where CUDA is, its backend is built, and tested where there is a GPU.
if ! $sanitize && command -v nvcc >/dev/null; then setup_options+=(--cuda); fi
jobs/setup.sh "${setup_options[@]}"
configure "$build" "${configure_options[@]}"
cmake --build "$build" -j "$(build_jobs)"
echo "tests in $build/"
run_tests
