#!/usr/bin/env bash
# ratplus in an Apptainer image, as a program: for srun, mpirun and the RATPLUS of other scripts.
set -euo pipefail

usage() {
  cat <<'END'
jobs/container.sh - ratplus in an Apptainer image

Usage: jobs/container.sh ARGUMENT of ratplus...

  srun --mpi=pmix jobs/container.sh train configs/pretrain/1b.toml
  RATPLUS=$PWD/jobs/container.sh sbatch jobs/slurm/pretrain.sbatch configs/pretrain/1b.toml

Environment:
  RATPLUS_IMAGE  the image (default: ratplus.sif); ratplus.def makes it
  RATPLUS_BIND   directories that the image shall see beside the home, the working and the temporary directory, such as
                 /scratch,/data

GPUs are passed on where there are some. `ratplus COMMAND --help` is `jobs/container.sh COMMAND --help`.
END
}

die() {
  printf 'jobs/container.sh: %s\n' "$*" >&2
  exit 1
}

case ${1:-} in '' | -h | --help) usage && exit ;; esac
image=${RATPLUS_IMAGE:-ratplus.sif}
[[ -r $image ]] || die "$image is missing: make it (apptainer build $image share/ratplus/ratplus.def), or set RATPLUS_IMAGE"
apptainer=$(command -v apptainer || command -v singularity) || die "there is no apptainer here; load its module"
options=()
if [[ -e /dev/nvidiactl ]]; then options+=(--nv); fi
if [[ -n ${RATPLUS_BIND:-} ]]; then options+=(--bind "$RATPLUS_BIND"); fi
# Where Slurm's PMIx server has its files.
if [[ -d ${PMIX_SERVER_TMPDIR:-} ]]; then options+=(--bind "$PMIX_SERVER_TMPDIR"); fi
exec "$apptainer" exec "${options[@]}" "$image" ratplus "$@"
