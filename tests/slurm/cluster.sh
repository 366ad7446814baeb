# shellcheck shell=bash
# A Slurm cluster of one node, which is this machine, or of several made hosts (tests/cluster/hosts.sh); to be sourced. Its daemons are own ones on own ports, with keys,
# configuration, state and logs in one directory: a Slurm that is installed here for real is not touched.

# What is missing for it; empty if nothing is.
slurm_is_missing() {
  local program
  for program in slurmctld slurmd munged sbatch srun scontrol squeue; do
    command -v "$program" >/dev/null && continue
    echo "$program is not installed; Debian: apt-get install --no-install-recommends slurm-wlm munge" \
      "(or jobs/setup.sh --slurm)"
    return
  done
  if [[ $(id -u) -ne 0 ]]; then echo "slurmd starts jobs as root only; run this as root"; fi
}

# Two TCP ports that nobody listens on, below those that the kernel hands out by itself.
free_ports() {
  local port found=()
  for ((port = 17000 + RANDOM % 10000; ${#found[@]} < 2; ++port)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || found+=("$port")
  done
  echo "${found[@]}"
}

# start_cluster DIRECTORY CPUS [HOST...]: the daemons, and SLURM_CONF for every command that talks to them. Without made
# hosts this machine is the only node; with them, each is a node, and this machine has the controller.
start_cluster() {
  local directory=$1 cpus=$2 memory host ports controller=127.0.0.1 name nodes
  shift 2
  host=$(hostname -s)
  memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
  read -ra ports < <(free_ports)
  export SLURM_CONF=$directory/slurm.conf # first, so that nothing below asks another Slurm
  mkdir -p "$directory"/{munge,state,spool}
  chmod 711 "$directory" # munge's clients reach its socket through it
  chmod 755 "$directory/munge"
  nodes="NodeName=ratplus-node NodeHostname=$host NodeAddr=127.0.0.1"
  if (($# > 0)); then
    controller=$(getent hosts "$host" | cut -d' ' -f1)
    nodes="NodeName=$(IFS=, && echo "$*")"
  fi
  # Jobs have other numbers than those of a cluster beside this one: Open MPI names its shared memory after them.
  # The node's name is not this host's, so that no other configuration is met; task placement, process groups and
  # accounting are the plainest, so that neither control groups nor a database are needed.
  cat >"$directory/slurm.conf" <<END
ClusterName=ratplus-test
SlurmctldHost=$host($controller)
SlurmUser=root
FirstJobId=$(($$ % 30000 * 1000 + 1))
SlurmctldPort=${ports[0]}
AuthType=auth/munge
AuthInfo=socket=$directory/munge/socket
CredType=cred/munge
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool/%n
TmpFS=$directory/tmp-%n
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd-%n.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,batch_sched_delay=0
MpiDefault=none
KillWait=${kill_wait:-10}
ReturnToService=2
SlurmdParameters=config_overrides
${cluster_settings:-}
$nodes Port=${ports[1]} CPUs=$cpus RealMemory=$memory
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP ${partition_settings:-}
${cluster_partitions:-}
END
  (umask 077 && head -c 128 /dev/urandom >"$directory/munge/key")
  munged --force --socket="$directory/munge/socket" --key-file="$directory/munge/key" \
    --pid-file="$directory/munge/pid" --log-file="$directory/munge/log" --seed-file="$directory/munge/seed" \
    2>"$directory/munge/errors" || die "munged did not start: $(tail -n 3 "$directory/munge/errors")"
  slurmctld -c || die "slurmctld did not start: $(tail -n 5 "$directory/slurmctld.log")"
  if (($# == 0)); then
    mkdir -p "$directory/tmp-ratplus-node"
    slurmd -N ratplus-node || die "slurmd did not start: $(tail -n 5 "$directory/slurmd-ratplus-node.log")"
  fi
  for name in "$@"; do start_node "$name"; done
  await_cluster "$directory"
}

start_node() { # HOST
  mkdir -p "$(dirname "$SLURM_CONF")/tmp-$1"
  on_host "$1" slurmd -N "$1" || die "slurmd did not start on $1: see the log beside $SLURM_CONF"
}

await_cluster() {
  local attempt
  for ((attempt = 0; attempt < 150; ++attempt)); do
    if [[ $(sinfo -h -N -o %T 2>/dev/null | sort -u) == idle ]]; then return; fi
    sleep 0.2
  done
  die "a node is not idle after 30 s: $(sinfo -h -o '%T %E' 2>&1); $(tail -n 3 "$1/slurmctld.log")"
}

# Ends all jobs and the daemons of start_cluster: these alone, by its configuration and their process numbers.
stop_cluster() {
  local directory=$1 file process attempt
  if [[ ! -e $directory/slurm.conf || ${SLURM_CONF:-} != "$directory/slurm.conf" ]]; then return; fi
  scancel --user="$(id -un)" 2>/dev/null || true
  for ((attempt = 0; attempt < 50; ++attempt)); do
    [[ -n $(squeue -h 2>/dev/null) ]] || break
    sleep 0.2
  done
  for file in "$directory"/slurmd-*.pid "$directory/slurmctld.pid" "$directory/munge/pid"; do
    process=$(cat "$file" 2>/dev/null) || continue
    kill -TERM "$process" 2>/dev/null || true
    for ((attempt = 0; attempt < 50; ++attempt)); do
      kill -0 "$process" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$process" 2>/dev/null || true
  done
}

# --- What Slurm says of jobs ----------------------------------------------------------------------------------------

# The last lines of a job's log, and out.
fail_with_log() {
  printf '%s\n' "--- $1" >&2
  tail -n 25 "$1" >&2 || true
  die "$2"
}

# field JOB NAME; empty if scontrol does not tell it.
field() { scontrol show job --oneliner "$1" | grep -o " $2=[^ ]*" | head -n 1 | cut -d= -f2 || true; }

# await JOB LOG SECONDS: until the job has come to its end. What was queued again would wait for two minutes; here it is
# let go after some seconds (earlier, slurmd takes its credential for that of the start before), with time enough.
await() {
  local job=$1 log=$2 deadline=$((SECONDS + $3)) state waited=0 untold=0
  while ((SECONDS < deadline)); do
    state=$(field "$job" JobState)
    case $state in
      PENDING)
        if [[ $(field "$job" Reason) == BeginTime ]] && ((++waited > 10)); then
          # Refused where it has started since; it is tried again, and the deadline is what counts.
          scontrol update jobid="$job" TimeLimit=20 StartTime=now || true
        fi
        ;;
      '') ((++untold < 20)) || fail_with_log "$log" "scontrol does not tell the state of job $job (see above)" ;;
      COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | OUT_OF_MEMORY | BOOT_FAIL | DEADLINE) return ;;
      *) waited=0 ;; # running, or for a moment SIGNALING, COMPLETING, CONFIGURING, REQUEUED
    esac
    sleep 0.5
  done
  fail_with_log "$log" "job $job is $state after $3 s"
}

expect_state() { # JOB STATE LOG
  local state
  state=$(field "$1" JobState)
  [[ $state == "$2" ]] || fail_with_log "$3" "job $1 is $state, not $2"
}

expect_in() { grep -q "$2" "$1" || fail_with_log "$1" "its log does not say: $2"; } # LOG REGEX
