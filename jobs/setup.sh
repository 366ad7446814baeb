#!/usr/bin/env bash
# Installs the Debian 12 packages that building and running ratplus needs and that are missing.
set -euo pipefail

repository=$(realpath "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/..")
# shellcheck source=jobs/common.sh
source "$repository/jobs/common.sh"

usage() {
  cat <<'END'
jobs/setup.sh - install the Debian 12 packages that ratplus needs and that are missing

Usage: jobs/setup.sh [--tests] [--fuzz] [--lint] [--slurm] [--cluster] [--cuda] [--parquet] [--list] [--help]

  --tests  also the packages that only the tests need
  --fuzz   also clang, for tests/fuzz.sh and tests/run.sh --sanitize
  --lint   also clang-format, clang-tidy and shellcheck, for tests/lint.sh
  --slurm  also Slurm and munge, for tests/slurm.sh alone: do not replace a cluster's own Slurm by them
  --cluster
           also Slurm, munge, iproute2 and faketime, for tests/cluster.sh and tests/slurm.sh; on no cluster of your own
  --cuda   also the headers of cuDNN's C++ front end, into .deps/include (from PyPI's nvidia-cudnn-frontend); the CUDA
           Toolkit 12.8 or newer, cuDNN 9 and NCCL are the machine's own, and are looked for
  --parquet
           also Apache Arrow, into .deps/pyarrow (from PyPI's pyarrow): Parquet files as input of `ratplus prepare`
  --list   print the missing packages, install nothing
  --help   this text

Works as root or through sudo. Does nothing, without a network, if no package is missing.
END
}

# Packages that build and run the program, and doctest, so that one build directory serves both it and its tests.
packages=(
  g++ cmake ninja-build pkg-config
  libopenmpi-dev openmpi-bin
  libopenblas-openmp-dev libopenblas0-openmp
  libhdf5-dev libdeflate-dev
  libboost-program-options-dev libtomlplusplus-dev libfmt-dev nlohmann-json3-dev
  libsentencepiece-dev
  zlib1g-dev libzstd-dev libpcre2-dev libicu-dev libsimdjson-dev
  doctest-dev
)
# The shards' README is read with h5py; ccache makes the second of two builds (with sanitizers) cheap to repeat.
test_packages=(python3-h5py ccache)
slurm_packages=(slurm-wlm munge)
cluster_packages=("${slurm_packages[@]}" iproute2 util-linux procps faketime)

# For tests/lint.sh.
lint_packages=(clang-format clang-tidy shellcheck)
# libFuzzer and the sanitizers of tests/run.sh are clang's.
fuzz_packages=(clang libclang-rt-14-dev libomp-dev)

# For the front end's headers: the newest version that this repository was built with.
cuda_packages=(python3 python3-pip)
frontend=nvidia-cudnn-frontend==1.32.0
cuda=false
# Apache Arrow is not in Debian 12; this package carries its headers and libraries.
arrow=pyarrow==26.0.1
parquet=false

list_only=false
while (($# > 0)); do
  case $1 in
    --tests) packages+=("${test_packages[@]}") ;;
    --lint) packages+=("${lint_packages[@]}") ;;
    --fuzz) packages+=("${fuzz_packages[@]}") ;;
    --slurm) packages+=("${slurm_packages[@]}") ;;
    --cluster) packages+=("${cluster_packages[@]}") ;;
    --cuda) cuda=true && packages+=("${cuda_packages[@]}") ;;
    --parquet) parquet=true && packages+=(python3 python3-pip) ;;
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
# The front end is headers alone: a wheel is an archive, and what is not a header stays in it.
fetch_frontend() {
  local wheel
  if [[ -e $repository/.deps/include/cudnn_frontend.h ]]; then
    echo "cuDNN's front end is there"
    return
  fi
  wheel=$(mktemp -d)
  if ! python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$wheel" "$frontend"; then
    rm -rf "$wheel"
    die "could not fetch $frontend from PyPI; where there is no network, put its folder include/ into .deps/include"
  fi
  python3 -m zipfile -e "$wheel"/*.whl "$wheel/unpacked"
  mkdir -p "$repository/.deps/include"
  mv "$wheel/unpacked/include/cudnn_frontend.h" "$wheel"
  cp -r "$wheel/unpacked/include/." "$repository/.deps/include/"
  mv "$wheel/cudnn_frontend.h" "$repository/.deps/include/" # last: what is looked for says that all is there
  rm -rf "$wheel"
  echo "cuDNN's front end: .deps/include"
}

fetch_arrow() {
  if [[ -e $repository/.deps/pyarrow/pyarrow/include/parquet/file_reader.h ]]; then
    echo "Apache Arrow is there"
    return
  fi
  rm -rf "$repository/.deps/pyarrow.partial"
  if ! python3 -m pip install -q --disable-pip-version-check --no-deps --only-binary=:all: \
    --target "$repository/.deps/pyarrow.partial" "$arrow"; then
    rm -rf "$repository/.deps/pyarrow.partial"
    die "could not fetch $arrow from PyPI; where there is no network, unpack its wheel into .deps/pyarrow"
  fi
  rm -rf "$repository/.deps/pyarrow"
  mv "$repository/.deps/pyarrow.partial" "$repository/.deps/pyarrow"
  echo "Apache Arrow: .deps/pyarrow"
}

check_cuda() {
  local nvcc
  nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null) ||
    die "nvcc is missing: install NVIDIA's CUDA Toolkit (https://developer.nvidia.com/cuda-downloads), cuDNN 9 and NCCL"
  echo "CUDA Toolkit: $nvcc"
}

if ((${#missing[@]} == 0)); then
  echo "all ${#packages[@]} packages are there"
  if $cuda; then check_cuda && fetch_frontend; fi
  if $parquet; then fetch_arrow; fi
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
if $cuda; then check_cuda && fetch_frontend; fi
if $parquet; then fetch_arrow; fi
