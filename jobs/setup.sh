#!/usr/bin/env bash
# Installs the Debian 12 packages that building and running ratplus needs and that are missing.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=jobs/common.sh
source "$repository/jobs/common.sh"

usage() {
  cat <<'END'
jobs/setup.sh - install the Debian 12 packages that ratplus needs and that are missing

Usage: jobs/setup.sh [--tests] [--list] [--help]

  --tests  also what only the tests need
  --list   print the missing packages, install nothing
  --help   this text

Works as root or through sudo. Where nothing is missing it does nothing, and needs no network.
END
}

# What builds and runs the program, and doctest, so that one build directory serves both it and its tests.
packages=(
  g++ cmake ninja-build pkg-config
  libopenmpi-dev openmpi-bin
  libopenblas-openmp-dev libopenblas0-openmp
  libhdf5-dev
  libboost-program-options-dev libtomlplusplus-dev libfmt-dev nlohmann-json3-dev
  libsentencepiece-dev
  doctest-dev
)
# The shards' README is read with h5py; ccache makes the second of two builds (with sanitizers) cheap to repeat.
test_packages=(python3-h5py ccache)

list_only=false
while (($# > 0)); do
  case $1 in
    --tests) packages+=("${test_packages[@]}") ;;
    --list) list_only=true ;;
    -h | --help) usage && exit ;;
    *) die "unknown option '$1'; --help lists the known ones" ;;
  esac
  shift
done

command -v apt-get >/dev/null ||
  die "this is no Debian system (no apt-get here); install the equivalents of: ${packages[*]}"

missing=()
for package in "${packages[@]}"; do
  # "pkg-config" and the like may be provided by a successor: ask for the state of what is there, by name.
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $state == installed* ]] || missing+=("$package")
done

if $list_only; then
  if ((${#missing[@]} > 0)); then printf '%s\n' "${missing[@]}"; fi
  exit
fi
if ((${#missing[@]} == 0)); then
  echo "all ${#packages[@]} packages are there"
  exit
fi

can_be_root ||
  die "${#missing[@]} packages are missing, and there is no sudo here; as root, run: apt-get install ${missing[*]}"
# Of apt's many lines, one every 50 packages.
show_progress() {
  local line all='' unpacked=0 set_up=0
  while IFS= read -r line; do
    case $line in
      *' newly installed, '*) all=${line#*upgraded, } all=${all%% *} && echo "fetching $all packages" ;;
      'Unpacking '*) ((++unpacked % 50)) || echo "unpacked $unpacked of $all" ;;
      'Setting up '*) ((++set_up % 50)) || echo "set up $set_up of $all" ;;
    esac
  done
}

install() {
  as_root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get install -y -q --no-install-recommends "${missing[@]}" \
    </dev/null 2>&1 | tee "$log" | show_progress
}

echo "installing ${#missing[@]} missing packages and what they need: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! update_package_lists >"$log" 2>&1 || ! install; then
  tail -n 20 "$log" >&2
  die "could not install them (its last lines stand above); this system needs Debian 12's packages and a network"
fi
echo "installed"
