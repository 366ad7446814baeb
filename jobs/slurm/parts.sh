# shellcheck shell=bash disable=SC2034,SC2154
# A part of a script that trains (jobs/reproduce.sh, jobs/evaluate/ruler.sh) as a batch job, which saves and is queued again
# when it is preempted or its time is up. Sourced by the batch scripts beside it, which set `ratplus` and `jobs`.

export RATPLUS=$ratplus # for the script
# batch.sh's: for its check of the launcher, which the script starts itself.
launcher=mpirun
launcher_options=()
# shellcheck source=jobs/slurm/batch.sh
source "$jobs/slurm/batch.sh"

# shellcheck disable=SC2317 # of batch.sh's handler
tell_ranks() { # the script passes it on to the ranks
  if $ranks_told || [[ -z $ranks_process ]]; then return; fi
  ranks_told=true
  kill -TERM "$ranks_process" 2>/dev/null || true
}

# made_by_task OUTPUT BEGUN SCRIPT ARGUMENT...: whether a directory of the task's own model in OUTPUT has a file of BEGUN or
# later. Tasks of an array share OUTPUT; SCRIPT lists the task's model, and `run_suffixes` are the ends of its directories' names.
run_suffixes=("")
made_by_task() {
  local output=$1 begun=$2 model suffix own=()
  model=$(bash "${@:3}" --list 2>/dev/null) || return
  for suffix in "${run_suffixes[@]}"; do
    # shellcheck disable=SC2206 # the suffix is a pattern
    own+=("$output/$model"$suffix "$output"/*/"$model"$suffix)
  done
  [[ -n $(find "${own[@]}" -newermt "@$begun" -type f -print -quit 2>/dev/null) ]]
}

# run_part OUTPUT SCRIPT ARGUMENT...: SCRIPT, which writes into the directory OUTPUT unless an argument --output names another.
run_part() {
  local output=$1 script=$2 arguments=() argument i begun status=0 got_on=false
  for argument in "${@:3}"; do
    # The start before this one has begun over already.
    if [[ $argument == --fresh ]] && ((${SLURM_RESTART_COUNT:-0} > 0)); then continue; fi
    arguments+=("$argument")
  done
  for ((i = 0; i + 1 < ${#arguments[@]}; ++i)); do
    if [[ ${arguments[i]} == --output ]]; then output=${arguments[i + 1]}; fi
  done
  begun=$(date +%s)
  bash "$script" "${arguments[@]}" </dev/null &
  ranks_process=$!
  await_ranks || status=$?
  if ((status == 130)); then # stopped in order
    if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
      if made_by_task "$output" "$begun" "$script" "${arguments[@]}"; then got_on=true; fi
    elif [[ -n $(find "$output" -newermt "@$begun" -type f ! -name '.starts-in-vain' -print -quit 2>/dev/null) ]]; then
      got_on=true
    fi
    # Tasks of an array count their starts in vain each by itself.
    queue_again "$output${SLURM_ARRAY_TASK_ID:+/.task-$SLURM_ARRAY_TASK_ID}" "$got_on"
  fi
  if ((status != 0)); then say "failed with status $status; the reason stands above"; fi
  exit "$status"
}
