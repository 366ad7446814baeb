#!/usr/bin/env bash
# Draws docs/timeline-*.svg: a training step on the GPUs of this host, over time.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh

usage() {
  cat <<'END'
docs/timeline.sh - draw a training step of 1b and of 7b over time: computing, waiting, communicating

Usage: docs/timeline.sh [--ranks N] [--program FILE] [--output DIRECTORY] [--set SECTION.KEY=VALUE ...]

  --ranks N       GPUs, of one host (2)
  --program FILE  ratplus (build/ratplus)
  --output DIR    where the pictures go (docs)
  --set ...       changes of the jobs, as for ratplus; all that follows belongs to it

No dataset is needed. The pictures in docs/ are of two H200; 7b takes 120 GiB on each of them.
END
}

ranks=2
program=build/ratplus
output=docs
settings=()
while (($# > 0)); do
  case $1 in
    --ranks) ranks=${2:?--ranks needs a number} && shift ;;
    --program) program=${2:?--program needs a file} && shift ;;
    --output) output=${2:?--output needs a directory} && shift ;;
    --set) shift && settings=("$@") && break ;;
    -h | --help) usage && exit ;;
    *) die "unknown option '$1'; --help lists the known ones" ;;
  esac
  shift
done
[[ -x $program ]] || die "$program is missing; build it, or give --program"
mpi_environment

draw() { # MODEL MICRO_BATCHES setting...
  mpirun -n "$ranks" "$program" bench step "configs/pretrain/$1.toml" --micro-batches "$2" --steps 3 --warmup 1 \
    --timeline "$output/timeline-$1-full.svg" --set parallel.shard=full "${@:3}" "${settings[@]}"
}
draw 1b 4 data.micro_batch=4
draw 7b 2 data.micro_batch=2
