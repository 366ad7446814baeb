#!/usr/bin/env bash
# Builds the fuzzers with clang's sanitizers and runs each for some seconds.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh
# shellcheck source=tests/sanitizers.sh
source tests/sanitizers.sh

usage() {
  cat <<'END'
tests/fuzz.sh - feed generated inputs to every reader of foreign files, by libFuzzer

Usage: tests/fuzz.sh [--seconds N] [--build DIRECTORY] [TARGET ...]

  TARGET       unpickler, weights, safetensors, manifest, job, request; all of them if none is given
  --seconds N  for each target (20)
  --build DIR  where to build (build-sanitize, whose objects are those of tests/run.sh --sanitize)

Installs the Debian packages that are missing (clang among them). DIRECTORY/corpus keeps the inputs
found, with which the next run begins; an input that fails is written to DIRECTORY/TARGET-crash-... and
ends the script with an error.
END
}

seconds=20
build="build-sanitize"
targets=()
while (($# > 0)); do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number} && shift ;;
    --build) build=${2:?--build needs a directory} && shift ;;
    -h | --help) usage && exit ;;
    -*) die "unknown option '$1'; --help lists the known ones" ;;
    *) targets+=("$1") ;;
  esac
  shift
done
((${#targets[@]} > 0)) || targets=(unpickler weights safetensors manifest job request)
jobs/setup.sh --tests --fuzz

configure_sanitized "$build"
cmake --build "$build" -j "$(build_jobs)" --target fuzz

export ASAN_OPTIONS=detect_leaks=0 # what OpenMPI and HDF5 keep until the end is not of interest here
for target in "${targets[@]}"; do
  corpus=$build/corpus/$target
  mkdir -p "$corpus"
  RATPLUS_FUZZ_TARGET=$target RATPLUS_FUZZ_SEEDS=$corpus "$build/tests/fuzz/fuzz"
  # An input of at most 64 KiB may take half a GiB, the sanitizer's own memory included, and ten seconds.
  RATPLUS_FUZZ_TARGET=$target "$build/tests/fuzz/fuzz" "$corpus" -max_total_time="$seconds" -max_len=65536 \
    -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=512 -artifact_prefix="$build/$target-" -print_final_stats=1 \
    2>"$build/$target.log" || {
    tail -n 40 "$build/$target.log" >&2
    die "$target: an input that fails is in $build/$target-*"
  }
  awk -v target="$target" '/number_of_executed_units/ { n = $2 } /peak_rss_mb/ { m = $2 }
    END { printf "%-12s %d inputs, none failed (peak memory %d MB)\n", target ":", n, m }' "$build/$target.log"
done
