#!/usr/bin/env bash
# mpirun over several hosts that ends when one of them is lost.
set -uo pipefail

usage() {
  cat <<'END_OF_USAGE'
jobs/mpirun.sh - start ratplus on several hosts by mpirun, and end with it when a host is lost

Usage: jobs/mpirun.sh [option of mpirun]... -- ARGUMENT of ratplus...

  jobs/mpirun.sh --host node1:8,node2:8 -- train configs/pretrain/1b.toml

When a host is cut off, hangs or loses its power, the ranks of the others end after parallel.timeout with a message. Open
MPI's mpirun then waits for that host's daemon, for ever. This script kills mpirun when its ranks on this host have ended
60 s before (launcher_grace=SECONDS in the environment sets another time). Batch jobs do the same (jobs/slurm/batch.sh).

Start it on a host that has ranks. RATPLUS is the program (build/ratplus of the repository, or the installed one), by the
same path on all hosts. SIGUSR1 and SIGTERM to this script let the ranks finish their step and save; the status is
mpirun's: 75 after such a stop.
END_OF_USAGE
}

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=jobs/common.sh
source "$here/common.sh"

launcher_options=()
while (($# > 0)) && [[ $1 != -- ]]; do
  if [[ $1 == --help || $1 == -h ]]; then usage && exit; fi
  launcher_options+=("$1")
  shift
done
(($# > 1)) || die "give options of mpirun, then --, then a command of ratplus; --help shows an example"
shift
command -v mpirun >/dev/null || die "there is no mpirun here; jobs/setup.sh installs it"

# batch.sh uses them.
# shellcheck disable=SC2034
launcher=mpirun
ratplus=$(find_program "$here") || exit
ratplus=$(realpath "$ratplus")
# shellcheck source=jobs/slurm/batch.sh
source "$here/slurm/batch.sh"
trap 'signalled=true' INT # of a terminal: mpirun has it too
run_ranks "$@"
