#!/usr/bin/env bash
# Builds everything and runs all tests.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh
# shellcheck source=tests/sanitizers.sh
source tests/sanitizers.sh

usage() {
  cat <<'END'
tests/run.sh - build everything and run all tests

Usage: tests/run.sh [--sanitize | --unity] [-R REGEX] [--help]
       tests/run.sh --compute-sanitizer

  --sanitize           with clang's AddressSanitizer and UndefinedBehaviorSanitizer, in build-sanitize/ instead of build/;
                       without the tests of the program that tests/cli/CMakeLists.txt calls UNSANITIZED: their code runs in
                       others, too
  --unity              a new build/ compiles the sources of a room as one: from nothing it is there sooner, and after a change later
  -R REGEX             only the tests whose names match
  --compute-sanitizer  instead of the tests, those of the CUDA backend's operations under NVIDIA's compute-sanitizer:
                       memcheck, then racecheck, of which only what is in ratplus' own kernels counts: it reports
                       hazards inside cuDNN's and cuBLAS's, too. Some minutes. Skipped where there is no GPU or no compute-sanitizer
  --help               this text

Environment, for the tests of operations (build/tests/kernels/test_kernels):
  RATPLUS_TEST_BACKENDS  only the backends whose names contain this: cpu, cuda, "cuda bfloat16", ...
  RATPLUS_TEST_SEED      an unsigned number, in place of the seed of their random inputs; a failing run shows its own

Installs the Debian packages that are missing. Where there is nvcc, fetches the headers that the CUDA backend needs, and
Apache Arrow for Parquet files; without a network goes on without them. Its exit status is that of ctest or compute-sanitizer.
END
}

build=build
sanitize=false
compute_sanitizer=false
unity=false
regex=
configure_options=()
# Three tests at a time, or more where there are four cores for each: some start six ranks, and many wait (with three, two cores
# are busy for 70 % of the time).
ctest_jobs=$(($(nproc) / 4))
((ctest_jobs >= 3)) || ctest_jobs=3
ctest_options=(--output-on-failure -j "$ctest_jobs")
while (($# > 0)); do
  case $1 in
    --sanitize)
      sanitize=true
      build="build-sanitize"
      ;;
    --unity) unity=true ;;
    --compute-sanitizer) compute_sanitizer=true ;;
    -R)
      [[ -n ${2:-} ]] || die "-R needs a regular expression"
      regex=$2
      ctest_options+=(-R "$2")
      shift
      ;;
    -h | --help) usage && exit ;;
    *) die "unknown option '$1'; --help lists the known ones" ;;
  esac
  shift
done

if $compute_sanitizer && { $sanitize || $unity || [[ -n $regex ]]; }; then
  die "--compute-sanitizer goes without other options"
fi
if $unity; then
  if $sanitize; then die "--sanitize compiles a room as one source already; --unity goes without it"; fi
  if [[ -e $build/build.ninja ]]; then echo "$build/ is there, and stays as it was configured; --unity is of a new one"; fi
  configure_options+=("${unity_options[@]}")
fi

# What is found in our code fails the test; what OpenMPI keeps until the process ends does not.
run_tests() {
  if $sanitize; then
    cc -shared -fPIC -o "$build/keep_plugins.so" tests/keep_plugins.c
    local -x LD_PRELOAD=$PWD/$build/keep_plugins.so
    local -x ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
    local -x LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
    local -x UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  fi
  ctest --test-dir "$build" --no-tests=error "${ctest_options[@]}"
}

# Failing calls of CUDA's own functions are not reported: the tests of errors make some fail on purpose.
run_compute_sanitizer() {
  local program=$build/tests/kernels/test_kernels tool status=0
  local options=(--error-exitcode 9 --print-limit 20 --report-api-errors no)
  local -x RATPLUS_TEST_BACKENDS=cuda
  if ! "$program" --list-test-cases >/dev/null; then # it says what there is
    echo "skipped: no GPU, or a build without the CUDA backend"
    return
  fi
  if ! tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null); then
    echo "skipped: no compute-sanitizer; it comes with NVIDIA's CUDA Toolkit"
    return
  fi
  echo "memcheck"
  "$tool" --tool memcheck "${options[@]}" "$program" || status=$?
  # What it reports of cuDNN's and cuBLAS's kernels does not count. (Told to look at ours alone, compute-sanitizer 2025.3
  # breaks inside theirs.)
  echo "racecheck"
  local log=$build/racecheck.log
  "$tool" --tool racecheck --print-limit 100000 --report-api-errors no "$program" >"$log" || status=$?
  grep 'SUMMARY\|\[doctest\]' "$log" || true
  if grep -A 40 'Race reported' "$log" | grep 'ratplus::'; then
    echo "hazards in our own kernels stand above; all of them are in $log"
    return 9
  fi
  echo "no hazard in a kernel of ratplus"
  return "$status"
}

mpi_environment

if $sanitize; then jobs/setup.sh --tests --fuzz; else jobs/setup.sh --tests; fi
# Where CUDA is, its backend is built, and tested where there is a GPU.
if ! $sanitize && command -v nvcc >/dev/null; then
  if jobs/setup.sh --cuda; then
    configure_options+=(-DRATPLUS_CUDA=ON)
  else
    echo "warning: what the CUDA backend needs could not be fetched (see above); if it is not there, that backend is" \
      "neither built nor tested" >&2
  fi
fi
# And Parquet files are read where Apache Arrow can be had.
if ! $sanitize; then
  jobs/setup.sh --parquet || echo "warning: without Apache Arrow, Parquet files are neither read nor tested" >&2
fi
if $sanitize; then configure_sanitized "$build"; else configure "$build" "${configure_options[@]}"; fi
cmake --build "$build" -j "$(build_jobs)"
echo "tests in $build/"
if $compute_sanitizer; then run_compute_sanitizer; else run_tests; fi
