# shellcheck shell=bash
# What the scripts of this repository share; to be sourced.

# One message on stderr, and out.
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# find_program JOBS: RATPLUS, or ratplus as the scripts of the directory JOBS find it: built in their repository, or
# installed with them.
find_program() {
  local candidate
  if [[ -n ${RATPLUS:-} ]]; then
    [[ -x $RATPLUS ]] || die "$RATPLUS (RATPLUS) is no program"
    echo "$RATPLUS"
    return
  fi
  for candidate in "$1/../build/ratplus" "$1/../../../bin/ratplus"; do
    if [[ -x $candidate ]]; then realpath "$candidate" && return; fi
  done
  die "$1/../build/ratplus is missing: build it, or set RATPLUS"
}

can_be_root() {
  [[ $(id -u) -eq 0 ]] || command -v sudo >/dev/null
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

update_package_lists() {
  as_root apt-get update -qq
}

# Compilers at once: a core each, and 1.5 GB of memory each.
build_jobs() {
  local cores memory_kb by_memory
  cores=$(nproc)
  memory_kb=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  by_memory=$((${memory_kb:-2000000} / 1500000))
  ((by_memory >= 1)) || by_memory=1
  echo $((cores < by_memory ? cores : by_memory))
}

# configure DIRECTORY [CMake option]...: makes a build directory of the whole tree, tests included, so that the quick
# start and the tests share one. A directory that is configured already is left to CMake, which knows when to look
# again.
configure() {
  local directory=$1 options=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DRATPLUS_TESTS=ON)
  shift
  if [[ -e $directory/build.ninja || -e $directory/Makefile ]]; then return; fi
  if command -v ccache >/dev/null; then options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  cmake -S . -B "$directory" "${options[@]}" "$@"
}

# OpenMPI, as our jobs need it on one machine.
mpi_environment() {
  # In a container root is the only user, and mpirun refuses it unless it is told twice.
  if [[ $(id -u) -eq 0 ]]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  # Ranks of one machine read each other's memory by ptrace's rights, which containers withhold; through a shared
  # buffer they need none.
  export OMPI_MCA_btl_vader_single_copy_mechanism=none
  # Two ranks on a machine of one core (or of two threads of a core) are slow and right.
  export OMPI_MCA_rmaps_base_oversubscribe=1
  # A rank uses several cores: OpenMP places its threads.
  export OMPI_MCA_hwloc_base_binding_policy=none
}

# --- A chain of batch jobs -----------------------------------------------------------------------------------------

submitted=()
# What is queued already is of no use without the rest.
withdraw() {
  if ((${#submitted[@]} > 0)); then scancel "${submitted[@]}"; fi
  die "sbatch has refused a job (see above); nothing is left in the queue"
}
# submit NAME ARGUMENT...: sbatch, and the number of the job in `job`.
submit() {
  local name=$1
  shift
  job=$(sbatch --parsable "$@") || withdraw
  job=${job%%;*} # a federation's cluster is named after it
  submitted+=("$job")
  echo "$name: job $job"
}

after() { printf '%s\n' "--dependency=afterok:$1" --kill-on-invalid-dep=yes; }
