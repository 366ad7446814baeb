#!/usr/bin/env bash
# Runs jobs over several made hosts, by mpirun and by a real Slurm, and disturbs them.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh
# shellcheck source=tests/options.sh
source tests/options.sh
# shellcheck source=tests/cluster/hosts.sh
source tests/cluster/hosts.sh
# shellcheck source=tests/cluster/jobs.sh
source tests/cluster/jobs.sh
# shellcheck source=tests/cluster/mpirun.sh
source tests/cluster/mpirun.sh
# shellcheck source=tests/cluster/slurm.sh
source tests/cluster/slurm.sh
# shellcheck source=tests/slurm/cluster.sh
source tests/slurm/cluster.sh

usage() {
  cat <<'END'
tests/cluster.sh - run jobs over four made hosts, by mpirun and by a real Slurm, and disturb them

Usage: tests/cluster.sh [--program FILE] [--only REGEX] [--keep] [--help]

A made host is a network namespace of this machine with a hostname, an address and a link of its own; the hosts share
this machine's files. Needs root, the right to make namespaces, iproute2, Open MPI, and Debian's slurm-wlm and munge
(jobs/setup.sh --cluster installs them, and faketime). What is shown, in at most 8 minutes on 2 cores:
  - the losses of 1 rank on 2, 3 and 4 hosts with 1, 2 and unequal ranks; a mesh that follows the hosts; bytes on the
    links under hybrid sharding, and the half of them with gradients in bfloat16 between hosts; a step over slow links
  - hosts that are not alike (program, job file, run directory, number of ranks), refused with a reason
  - a link that is cut in a step and in a save, a host that freezes, loses its power or is slow, a full disk, clocks that
    differ by minutes: the time until the job, mpirun included, has ended, and the steps lost
  - Slurm with three nodes: a pretraining that is preempted, loses a node, and ends on the two others, its adaptation and
    evaluation; a drained node and a time limit; hosts that are cut off or freeze under srun and mpirun
Ends with a table of the faults. ctest runs layouts, traffic and alike alone (cluster_jobs): the moments of the faults want a
machine without other load.

  --program FILE  ratplus (build/ratplus)
  --only REGEX    only the tests whose names match: layouts, traffic, alike, speed, faults, milder, slurm_chain, slurm_limits,
                  slurm_faults
  --keep          leave the directory, with all logs
Status 77: skipped, since something is missing.
END
}

program=build/ratplus
only=
keep=false
read_options "program only" "$@"
PATH=$PATH:/usr/sbin:/sbin # where Debian's daemons are
missing=$(hosts_are_missing)
missing=${missing:-$(slurm_is_missing)}
if [[ -n $missing ]]; then
  echo "skipped: $missing"
  exit 77
fi

finish() {
  end_namespaces
  if $keep; then echo "kept: $RATPLUS_TEST_WORK"; else rm -rf "$RATPLUS_TEST_WORK"; fi
}
if [[ -z ${RATPLUS_TEST_WORK:-} ]]; then
  RATPLUS_TEST_WORK=$(mktemp -d -t ratplus-cluster.XXXXXX)
  export RATPLUS_TEST_WORK
  trap finish EXIT
  status=0
  in_own_namespaces tests/cluster.sh "$@" || status=$?
  exit "$status"
fi
work=$RATPLUS_TEST_WORK

heading() { printf '\n=== %s (%d s since the start)\n' "$*" "$SECONDS"; }

table=()
add_row() { # NAME SECONDS RESULT
  table+=("$(printf '%-52s %6s   %s' "$1" "$2" "$3")")
  echo "-> ${table[-1]}"
}

mpi_environment
export OMP_NUM_THREADS=1
make_hosts "$work/hosts" n1 n2 n3 n4
make_data
write_job
heading "the undisturbed run, on one rank"
run reference n1:1 checkpoint.every=0 --stop-after 120
for name in layouts traffic alike speed faults milder slurm_chain slurm_limits slurm_faults; do
  if [[ $name =~ $only ]]; then "test_$name"; fi
done
stop_cluster "$work/slurm"
heading "faults"
printf '%-52s %6s   %s\n' "fault" "s" "result"
if ((${#table[@]} > 0)); then printf '%s\n' "${table[@]}"; fi
heading "passed"
