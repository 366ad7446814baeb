# shellcheck shell=bash
# What the scripts of this repository share; to be sourced.

# Numbers have a point, whatever the user's language: awk and printf would read and write a comma.
if [[ -n ${LC_ALL:-} ]]; then
  export LANG=$LC_ALL LC_CTYPE=$LC_ALL LC_COLLATE=$LC_ALL LC_MESSAGES=$LC_ALL LC_TIME=$LC_ALL
  unset LC_ALL
fi
export LC_NUMERIC=C

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

# remove_made PATH...: removes what a script has made, for its --fresh; nothing where the command reads a path of `inputs` below.
remove_made() {
  local path input
  for path in "$@"; do
    [[ -e $path ]] || continue
    # shellcheck disable=SC2154 # the script's own
    for input in "${inputs[@]}"; do
      [[ ! -e $input || $(realpath "$input")/ != "$(realpath "$path")"/* ]] ||
        die "--fresh would remove $input, which this command reads; move it elsewhere, or name another --output"
    done
  done
  rm -rf -- "$@"
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

# The sources of a room compiled as one.
# shellcheck disable=SC2034 # of the scripts in tests/
unity_options=(-DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=0)

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

# For the chains of jobs/slurm: arguments before -- are sbatch's (the array `options`), those behind it the script's (`rest`);
# usage() of the script shows its help. `ratplus` is the program, and exported for the jobs.
read_chain() { # HERE ARGUMENT...
  local here=$1 bin
  shift
  options=()
  while (($# > 0)) && [[ $1 != -- ]]; do
    case $1 in
      -h | --help) usage && exit ;;
      *) options+=("$1") ;;
    esac
    shift
  done
  (($# > 1)) || die "give options of sbatch, if any, then -- and the script's arguments; --help says more"
  rest=("${@:2}")
  local argument
  for argument in "${rest[@]}"; do
    case $argument in
      -h | --help | --list | --check | --part | --nth | --plan)
        die "$argument: is for the script by itself, not for a chain of jobs; --help before -- explains the chain"
        ;;
    esac
  done
  command -v sbatch >/dev/null || die "there is no sbatch here: this is for a login node of a Slurm cluster"
  ratplus=$(find_program "$here/..") || exit
  bin=$(dirname "$(realpath "$ratplus")")
  [[ -r jobs/slurm/batch.sh || -r $bin/../share/ratplus/jobs/slurm/batch.sh || -r $bin/slurm/batch.sh ]] ||
    die "start it in the root of the repository: the jobs' paths are relative to it"
  export RATPLUS=$ratplus
}

# submit_parts SCRIPT COUNT PART NAME PART NAME PART NAME: a batch script three times with `options`, each --part waiting for the
# one before; the second is an array of COUNT tasks.
submit_parts() {
  local script=$1 count=$2 wait=()
  submit "$4" "${options[@]}" "$script" --part "$3" "${rest[@]}"
  mapfile -t wait < <(after "$job")
  submit "$6" "${options[@]}" "--array=0-$((count - 1))" "${wait[@]}" "$script" --part "$5" "${rest[@]}"
  mapfile -t wait < <(after "$job")
  submit "$8" "${options[@]}" "${wait[@]}" "$script" --part "$7" "${rest[@]}"
  echo "to watch: squeue --me; to withdraw all: scancel ${submitted[*]}"
}
