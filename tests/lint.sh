#!/usr/bin/env bash
# Refuses sources that clang-format would change, and what clang-tidy and shellcheck find.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh

usage() {
  cat <<'END'
tests/lint.sh - clang-format, shellcheck and clang-tidy over all sources

Usage: tests/lint.sh [--format | --shell | --tidy [FILE...]] [--help]

  --format         only clang-format: files that it would change (clang-format -i FILE changes them)
  --shell          only shellcheck, over all shell scripts
  --tidy FILE...   only clang-tidy, over these .cpp files or all of the program's; its checks are listed in .clang-tidy.
                   Looks up how files are compiled in build/ and configures it where it is missing
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

lint_tidy() {
  local files=("$@")
  if ((${#files[@]} == 0)); then
    mapfile -t files < <(git ls-files 'base/*.cpp' 'kernels/*.cpp' 'parallel/*.cpp' 'data/*.cpp' 'lib/*.cpp' 'apps/*.cpp')
  fi
  [[ -f build/compile_commands.json ]] || configure build
  # Files that this build leaves out (CUDA, Parquet) are not known to it.
  local known=()
  local file
  for file in "${files[@]}"; do
    if grep -qF "/$file\"" build/compile_commands.json; then known+=("$file"); fi
  done
  echo "clang-tidy: ${#known[@]} of ${#files[@]} files"
  # A warning of another compiler's option or of its headers is no finding.
  if ! printf '%s\n' "${known[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy -p build --quiet 2>/dev/null; then failed=1; fi
}

jobs/setup.sh --lint
case ${1:-} in
  '') lint_format && lint_shell && lint_tidy ;;
  --format) lint_format ;;
  --shell) lint_shell ;;
  --tidy) lint_tidy "${@:2}" ;;
  -h | --help) usage && exit ;;
  *) die "unknown option '$1'; --help lists the known ones" ;;
esac
((failed == 0)) || die "the findings stand above"
echo "nothing found"
