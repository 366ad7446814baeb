# shellcheck shell=bash disable=SC2154
# Common to the batch jobs of ratplus: starts the ranks, stops them in order on a signal, and queues the job again until
# they are done. Sourced by the scripts beside it, which set `ratplus`, `launcher` and
# `launcher_options`; `ratplus submit` puts it into the scripts that it writes.
#
# Signals to the batch script (`--signal=B:USR1@300` sends one by itself 300 s before the time is up):
#   USR1, TERM  stop and save, and queue this job again
#   INT         stop and save, and end
# Exit statuses: 0 done; 75 stopped and saved, not queued again; all others failed, with the reason in the log. A job
# that is queued again resumes from its newest checkpoint; one that failed is not queued again, unless a node of it no
# longer answers.

stopped_and_saved=75 # of ratplus train
not_finite=3         # likewise: a loss or a norm is not finite
stands_out=5         # of ratplus check
# Seconds that mpirun may outlive the ranks of its own host.
launcher_grace=${launcher_grace:-60}
ranks_process=       # srun or mpirun, while one runs
asked_to_stop=       # the signal that came first
ranks_told=false     # of it
signalled=false      # a signal has come since the last look

# Slurm counts ranks by the nodes that a job asks for. A job that takes any of several numbers of nodes sets
# `ranks_per_node`, and its ranks are those of the nodes that it got: srun and mpirun read these variables.
if [[ -n ${ranks_per_node:-} ]]; then
  export SLURM_NTASKS=$((ranks_per_node * SLURM_JOB_NUM_NODES)) SLURM_NTASKS_PER_NODE=$ranks_per_node
  export SLURM_NPROCS=$SLURM_NTASKS SLURM_TASKS_PER_NODE="$ranks_per_node(x$SLURM_JOB_NUM_NODES)"
fi

say() { printf '%(%F %T)T  batch: %s\n' -1 "$*"; }

fail() {
  say "$*" >&2
  exit 1
}

on_signal() {
  signalled=true
  if [[ -n $asked_to_stop ]]; then return; fi
  asked_to_stop=$1
  say "SIG$1: the ranks finish their step and save"
  tell_ranks
}

# A second signal ends ranks at once, so they get one.
tell_ranks() {
  if $ranks_told || [[ -z $ranks_process ]]; then return; fi
  ranks_told=true
  kill -USR1 "$ranks_process" 2>/dev/null || true
}

trap 'on_signal USR1' USR1
trap 'on_signal TERM' TERM
trap 'on_signal INT' INT

# Whether a process has started ranks of Open MPI that are still there.
has_ranks() {
  local child children=()
  read -ra children < <(cat "/proc/$1/task"/*/children 2>/dev/null)
  for child in "${children[@]}"; do
    if grep -qz '^OMPI_COMM_WORLD_RANK=' "/proc/$child/environ" 2>/dev/null; then return; fi
  done
  return 1
}

# end_launcher MPIRUN: when a host is lost or hangs, the ranks end after parallel.timeout, but mpirun waits for that
# host's daemon for ever, and the job would hold its nodes until its time limit. So mpirun is killed when its ranks on
# this host have ended `launcher_grace` seconds before.
end_launcher() {
  local launcher=$1 had_ranks=false since=
  while kill -0 "$launcher" 2>/dev/null; do
    if has_ranks "$launcher"; then
      had_ranks=true since=
    elif $had_ranks; then
      since=${since:-$SECONDS}
      if ((SECONDS - since >= launcher_grace)); then
        say "the ranks of $(hostname) ended $launcher_grace s ago, and mpirun still waits for another host, which is" \
          "lost or hangs: mpirun is killed"
        kill -KILL "$launcher" 2>/dev/null
        return
      fi
    fi
    sleep 1
  done
}

# The status of ranks_process. A signal ends the wait, not what is waited for.
await_ranks() {
  local status=127 waited
  while signalled=false && waited=0; do
    wait "$ranks_process" || waited=$?
    if ((waited != 127)); then status=$waited; fi # 127: the wait before had it already
    if ! $signalled; then break; fi
  done
  ranks_process=
  return "$status"
}

# run_ranks ARGUMENT...: ratplus on all ranks; its status.
run_ranks() {
  local status=0 watcher=
  if [[ -n $asked_to_stop ]]; then return "$stopped_and_saved"; fi
  case $launcher in
    # Slurm's default for the cores of a task is 1, whatever the job has asked for. A rank that ends with an error
    # leaves the others a minute to say why; those that see it themselves end at once.
    srun)
      srun --mpi=pmix --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=60 \
        "${launcher_options[@]}" "$ratplus" "$@" </dev/null &
      ;;
    mpirun) mpirun "${launcher_options[@]}" "$ratplus" "$@" </dev/null & ;;
    *) fail "launcher is srun or mpirun, not '$launcher'" ;;
  esac
  ranks_process=$!
  if [[ $launcher == mpirun ]]; then
    end_launcher "$ranks_process" &
    watcher=$!
    disown "$watcher" # its end is no news
  fi
  if [[ -n $asked_to_stop ]]; then tell_ranks; fi # it came while they were started
  await_ranks || status=$?
  if [[ -n $watcher ]]; then kill "$watcher" 2>/dev/null; fi
  # A launcher that was still starting ranks dies of it.
  if [[ -n $asked_to_stop ]] && ((status == 128 + $(kill -l USR1))); then status=$stopped_and_saved; fi
  return "$status"
}

# training_words JOB.toml [option of ratplus train]...: into `words`, what ranks of this job are started with: --resume once,
# also where it is given, in full or by its beginning.
training_words() {
  local word
  words=("$1" --resume)
  for word in "${@:2}"; do
    case $word in
      --r | --re | --res | --resu | --resum | --resume) ;;
      --p | --pr | --pri | --prin | --print*)
        fail "$word: prints the job and trains nothing; give it to ratplus train without a batch job"
        ;;
      *) words+=("$word") ;;
    esac
  done
}

# The run directory of a job file with options of `ratplus train`; checks both, as they will run, without ranks.
run_directory() {
  local job directory words
  training_words "$@"
  job=$("$ratplus" train "${words[@]}" --print-config) || return
  directory=$(sed -n 's/^directory = "\(.*\)"$/\1/p' <<<"$job" | head -n 1)
  [[ -n $directory ]] || fail "$ratplus does not print the run directory of $1"
  [[ $directory != *\\* ]] || fail "$directory: batch jobs take no quotes, backslashes or line ends in job.directory; rename it"
  echo "$directory"
}

newest_checkpoint() {
  find -L "$1/checkpoints" -maxdepth 1 -name 'step-*' ! -name '*.*' 2>/dev/null | sort -V | tail -n 1
}

# count_start DIRECTORY GOT_ON: a job that is always stopped before its first step would be queued for ever;
# DIRECTORY keeps the count.
count_start() {
  local in_vain=$1/.starts-in-vain got_on=$2 count=0
  if ! $got_on; then count=$(($(cat "$in_vain" 2>/dev/null) + 1)); fi
  if ((count == 0 || count >= 3)); then rm -f "$in_vain"; else mkdir -p "$1" && echo "$count" >"$in_vain"; fi
  if ((count >= 3)); then
    fail "stopped $count times in a row before anything was done, and not queued again: submit it with a longer" \
      "--time, or with fewer seconds in --signal"
  fi
}

# queue_again DIRECTORY GOT_ON: after a stop in order, or the loss of a node. GOT_ON: whether this start made a step. Slurm
# is asked for about a minute: its controller may just be restarting.
queue_again() {
  local counted=false attempt state job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  job=${job:-$SLURM_JOB_ID} # the last task of an array has the array's number as its own, which means all tasks
  if [[ $asked_to_stop == INT ]]; then
    say "stopped; submit it again to continue"
    exit "$stopped_and_saved"
  fi
  for ((attempt = 0; attempt <= 12; ++attempt)); do
    if ((attempt > 0)); then sleep 5; fi
    state=$(squeue --noheader --jobs="$job" --format=%T) || continue
    if [[ -z $state ]]; then continue; fi
    # SIGNALING: running, while Slurm delivers a signal. Others (cancelled, timed out, preempted): Slurm has decided.
    if [[ $state != RUNNING && $state != SIGNALING ]]; then
      say "stopped, and Slurm is ending this job itself ($state)"
      exit "$stopped_and_saved"
    fi
    if ! $counted; then count_start "$1" "$2"; fi
    counted=true
    if scontrol requeue "$job"; then
      say "queued again"
      exit "$stopped_and_saved"
    fi
  done
  say "Slurm has not queued this job again within a minute (see above); submit it again to continue"
  exit "$stopped_and_saved"
}

# Nodes of this job that do not answer Slurm: a command on each says its name.
lost_nodes() {
  local answered
  answered=$(timeout -k 5 45 srun --overlap --mpi=none --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
    --ntasks-per-node=1 --cpus-per-task=1 --gres=none printenv SLURMD_NODENAME </dev/null 2>/dev/null)
  # Without any answer, something else is wrong: an older Slurm may not know an option.
  if [[ -z $answered ]]; then return; fi
  scontrol show hostnames "$SLURM_JOB_NODELIST" | grep -vxF "$answered"
}

# train JOB.toml [option]...: `ratplus train` with --resume, until the job is done. Where the job sets check_first=true,
# `ratplus check` is the first step of each start, and a job in which something stands out ends with its status.
train() {
  local status=0 directory before got_on=false lost what=training words
  directory=$(run_directory "$@") || exit
  training_words "$@"
  before=$(newest_checkpoint "$directory")
  local ranks="$SLURM_NTASKS ranks"
  if ((SLURM_NTASKS == 1)); then ranks="1 rank"; fi
  say "job $SLURM_JOB_ID on $SLURM_JOB_NODELIST: $ranks, start $((${SLURM_RESTART_COUNT:-0} + 1))," \
    "run directory $directory"
  if [[ ${check_first:-false} == true ]]; then
    what="ratplus check"
    run_ranks check "$1" --json "$directory/check.json" || status=$?
    if ((status == stands_out)); then
      say "something stands out in ratplus check (above), and nothing was trained: mend it, leave the node out" \
        "(--sbatch=--exclude=NODE), or submit without --check"
      exit "$status"
    fi
  fi
  if ((status == 0)); then
    what=training
    run_ranks train "${words[@]}" || status=$?
  fi
  if [[ $(newest_checkpoint "$directory") != "$before" ]]; then got_on=true; fi
  if ((status == stopped_and_saved)); then queue_again "$directory" "$got_on"; fi
  if [[ $asked_to_stop != INT ]] && ((status != 0 && status != not_finite && ${SLURM_JOB_NUM_NODES:-1} > 1)); then
    lost=$(lost_nodes)
    if [[ -n $lost ]]; then
      say "$what failed with status $status, and these nodes do not answer: ${lost//$'\n'/ }"
      queue_again "$directory" "$got_on"
    fi
  fi
  if ((status != 0)); then say "$what failed with status $status; the reason stands above"; fi
  exit "$status"
}

# --- sweeps ----------------------------------------------------------------------------------------------------------

# d16-w256-i4 for 16,256,4: the run directory of a pattern in that of its sweep.
pattern_name() {
  local dilation window sinks
  IFS=, read -r dilation window sinks <<<"$1"
  echo "d$dilation-w$window-i$sinks"
}

# The runs in the directory of a sweep, in the order of their numbers.
runs_of_sweep() { find -L "$1" -mindepth 2 -maxdepth 2 -name metrics.jsonl -printf '%h\n' | sort -V; }

patterns_of() { sed -n 's/^ *"pattern": "\(.*\)",$/\1/p' "$1"; } # of an evaluation

# evaluate RUN PATTERN...: writes RUN/evaluation.json; without patterns, under the one that it was trained with.
# `eval_options` are those of ratplus eval.
evaluate() {
  local run=$1 patterns=("${@:2}") status=0
  if ((${#patterns[@]} > 0)); then patterns=(--pattern "${patterns[@]}"); fi
  run_ranks eval "$run" --json "$run/evaluation.json" "${eval_options[@]}" "${patterns[@]}" || status=$?
  if ((status != 0)) && [[ -n $asked_to_stop ]]; then queue_again "$run" "$evaluated_one"; fi
  if ((status != 0)); then fail "the evaluation of $run failed with status $status; the reason stands above"; fi
  evaluated_one=true
}
evaluated_one=false # by this start

# collect_table SWEEP PRETRAINED: SWEEP/table.txt. The runs of the sweep are evaluated under the pattern that each was
# trained with, and the run that they were adapted from under all of these. Queued again, the job continues after the
# last run evaluated.
collect_table() {
  local sweep=$1 pretrained=$2 begun=$1/.table-$SLURM_JOB_ID runs patterns run
  mapfile -t runs < <(runs_of_sweep "$sweep")
  if ((${#runs[@]} == 0)); then fail "$sweep: there is no run in its directories"; fi
  if [[ ! -e $begun ]]; then touch "$begun" || exit; fi
  for run in "${runs[@]}"; do
    [[ $run/evaluation.json -nt $begun ]] || evaluate "$run"
  done
  mapfile -t patterns < <({
    echo dense
    for run in "${runs[@]}"; do patterns_of "$run/evaluation.json"; done
  } | awk '!seen[$0]++')
  evaluate "$pretrained" "${patterns[@]}"
  "$ratplus" report --adaptation "$pretrained" "${runs[@]}" --output "$sweep/loss.svg" >"$sweep/table.txt.partial" ||
    fail "no table: see above"
  mv "$sweep/table.txt.partial" "$sweep/table.txt"
  rm -f "$begun"
  cat "$sweep/table.txt"
  say "table: $sweep/table.txt"
}
