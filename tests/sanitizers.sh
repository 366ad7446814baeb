# shellcheck shell=bash
# The build that tests/run.sh --sanitize and tests/fuzz.sh share; to be sourced after jobs/common.sh.

# configure_sanitized DIRECTORY. clang takes less than half of g++'s time to compile for sanitizers, and a room takes less as one
# source than as many.
configure_sanitized() {
  if [[ -e $1/CMakeCache.txt ]] && ! grep -q '^CMAKE_CXX_COMPILER:.*clang' "$1/CMakeCache.txt"; then
    die "$1/ was made with another compiler than clang; remove it"
  fi
  # shellcheck disable=SC2154 # unity_options is of jobs/common.sh
  configure "$1" -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ "-DRATPLUS_SANITIZE=address,undefined" \
    -DRATPLUS_CUDA=OFF "${unity_options[@]}"
}
