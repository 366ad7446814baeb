#!/usr/bin/env bash
# Refuses sources that clang-format would change, and what clang-tidy and shellcheck find.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh

usage() {
  cat <<'END'
tests/lint.sh - clang-format, shellcheck and clang-tidy over all sources

Usage: tests/lint.sh [--format | --shell | --tidy | --self-test] [--help]

  --format         only clang-format: files that it would change (clang-format -i FILE changes them)
  --shell          only shellcheck, over all shell scripts
  --tidy           only clang-tidy, over the program without its CUDA part, in build-tidy/; .clang-tidy lists its checks
  --self-test      tests/lint_test.sh: that one line of each kind is refused by name
  --help           this text

Installs the Debian packages that are missing (clang-format, clang-tidy, shellcheck). Its exit status is 0 where nothing
is found.
END
}

failed=0

lint_format() {
  echo "clang-format"
  git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror || failed=1
}

lint_shell() {
  echo "shellcheck"
  {
    git ls-files '*.sh' '*.sbatch'
    git grep -lI '^#!.*\(bash\|/sh\)' -- ':!*.md'
  } | sort -u | xargs shellcheck -x || failed=1
}

# One file a room, which includes the room's sources: a tenth of the time that they take one by one.
lint_tidy() {
  local build=build-tidy files=()
  cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "${unity_options[@]}" \
    -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON -DRATPLUS_TESTS=OFF -DRATPLUS_CUDA=OFF >/dev/null
  cmake --build "$build" --target ratplus_revision >/dev/null
  # Options that clang does not know.
  sed -i 's/ -fno-thread-jumps//; s/ --param=avoid-fma-max-bits=0//' "$build/compile_commands.json"
  mapfile -t files < <(sed -n 's/^ *"file": "\(.*\)",*$/\1/p' "$build/compile_commands.json")
  echo "clang-tidy: ${#files[@]} files"
  # Warnings in the headers of others, which are counted on standard error, are no findings.
  printf '%s\n' "${files[@]}" |
    tac | # apps, the largest, stand last
    xargs -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet 2>"$build/clang-tidy.log" || failed=1
}

jobs/setup.sh --lint
case ${1:-} in
  '') lint_format && lint_shell && lint_tidy ;;
  --format) lint_format ;;
  --shell) lint_shell ;;
  --tidy) lint_tidy ;;
  --self-test) exec bash tests/lint_test.sh ;;
  -h | --help) usage && exit ;;
  *) die "unknown option '$1'; --help lists the known ones" ;;
esac
((failed == 0)) || die "the findings stand above"
echo "nothing found"
