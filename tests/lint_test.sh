#!/usr/bin/env bash
# Shows that tests/lint.sh refuses one line of each kind, by name.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh

usage() {
  cat <<'END'
tests/lint_test.sh - show that tests/lint.sh refuses one line of each kind, by name

Usage: tests/lint_test.sh [--help]

Copies tests/lint.sh, its settings, cmake/Room.cmake and two small sources into a repository of their own, which passes.
Then puts one line at a time into it, which has to be refused with the name of its file: one that clang-format would
change, one that clang-tidy warns of, one that shellcheck warns of, and an include of a room above. Takes some seconds.
Installs what tests/lint.sh installs.
END
}

case ${1:-} in
  '') ;;
  -h | --help) usage && exit ;;
  *) die "unknown argument '$1'; it takes none but --help" ;;
esac

jobs/setup.sh --lint
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# Two rooms, of which the lower one is a copy of a small source, and tests/lint.sh with all that it reads.
make_tree() {
  mkdir -p "$tree"/{jobs,tests,cmake,parallel,lib}
  cp .clang-format .clang-tidy "$tree"
  cp jobs/common.sh jobs/setup.sh "$tree/jobs"
  cp tests/lint.sh "$tree/tests"
  cp cmake/Room.cmake "$tree/cmake"
  cp parallel/unit.h parallel/unit.cpp "$tree/parallel"
  cat >"$tree/lib/upper.h" <<'END'
// Of the upper room.
#pragma once

#include "parallel/unit.h"
END
  printf '#include "lib/upper.h"\n' >"$tree/lib/upper.cpp"
  cat >"$tree/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(scratch LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
include(cmake/Room.cmake)
add_library(ratplus_options INTERFACE)
add_custom_target(ratplus_revision)
ratplus_room(parallel)
ratplus_room(lib SEES parallel)
END
  git -C "$tree" init -q
  git -C "$tree" add .
}

# refused HOW FILE WORDS: tests/lint.sh HOW fails in the tree, and names FILE and these WORDS.
refused() {
  local how=$1 file=$2 words=$3 output status=0
  output=$(bash "$tree/tests/lint.sh" "$how" 2>&1) || status=$?
  if ((status == 0)) || ! grep -qF -- "$file" <<<"$output" || ! grep -qF -- "$words" <<<"$output"; then
    printf '%s\n' "$output" >&2
    die "tests/lint.sh $how ended with status $status, and not because of \"$words\" in $file"
  fi
  echo "refused: $file: $words"
}

# plant FILE LINE: puts the line at the end of a file of the tree, in the place of the last one that was put there.
planted=
plant() {
  if [[ -n $planted ]]; then git -C "$tree" checkout -q -- "$planted"; fi
  planted=$1
  printf '%s\n' "$2" >>"$tree/$planted"
}

make_tree
bash "$tree/tests/lint.sh" >"$tree/lint.log" 2>&1 || {
  cat "$tree/lint.log" >&2
  die "tests/lint.sh refuses the tree without any of these lines"
}
echo "passes: the tree without any of these lines"
plant parallel/unit.cpp 'int  two_blanks = 0;'
refused --format parallel/unit.cpp clang-format-violations
plant parallel/unit.cpp 'double half(int n) { return n / 2; }'
refused --tidy parallel/unit.cpp bugprone-integer-division
# shellcheck disable=SC2016 # the planted line is not expanded here
plant jobs/common.sh 'unquoted() { rm -- $1; }'
refused --shell jobs/common.sh SC2086
plant parallel/unit.cpp '#include "lib/upper.h"'
refused --tidy parallel/unit.cpp "'lib/upper.h' file not found"
