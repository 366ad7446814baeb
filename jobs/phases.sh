# shellcheck shell=bash
# Phases of a script that trains: their numbers and times, ranks that stop in order on Ctrl-C, and the command that resumes.
# To be sourced after common.sh. The script sets:
#   command_line  array: the script's own path and arguments
#   phases        number of phases
#   program       path of ratplus
#   ranks         MPI ranks; a single one is started without mpirun where the script also sets alone=true

phase_number=0
phase_name=

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

phase() {
  phase_number=$((phase_number + 1))
  phase_name=$1
  # shellcheck disable=SC2154 # the script's own
  printf '\n[%d/%d] %s: %s  (%s since the start)\n' "$phase_number" "$phases" "$1" "$2" "$(clock "$SECONDS")"
}

ranks_job=        # the launcher's process, while one runs
starting=false    # it, whose process is not known yet
interrupted=false # Ctrl-C has been asked for

stopped() {
  trap '' INT TERM HUP # a handler within a handler may break bash's reading of the script
  # --fresh would throw away what is there by now.
  local again='' word quoted
  # shellcheck disable=SC2154 # the script's own
  for word in "${command_line[@]}"; do
    printf -v quoted %q "$word"
    [[ $word == --fresh ]] || again+=" $quoted"
  done
  printf '\nstopped in phase %d/%d (%s); continue with:%s\n' "$phase_number" "$phases" "$phase_name" "$again" >&2 || true
  exit 130
}

# Messages come last, and may fail: the terminal may be the one that has ended.
on_interrupt() {
  if $starting; then # run_ranks passes it on
    interrupted=true
    return
  fi
  if [[ -z $ranks_job ]]; then stopped; fi
  if $interrupted; then
    # mpirun kills its ranks; a rank by itself takes further signals for the first one.
    if without_mpirun; then kill -KILL "$ranks_job" 2>/dev/null || true; fi
    kill -TERM "$ranks_job" 2>/dev/null || true
  else
    interrupted=true
    rank_processes | xargs -r kill -TERM 2>/dev/null || true
    printf '\nstopping: this step is finished and saved first; Ctrl-C once more stops at once\n' >&2 || true
  fi
}
trap on_interrupt INT TERM HUP

# shellcheck disable=SC2154 # the script's own
without_mpirun() { ${alone:-false} && ((ranks == 1)); }

rank_processes() {
  if without_mpirun; then
    echo "$ranks_job"
  else
    grep -ls "^PPid:[[:space:]]*$ranks_job\$" /proc/[0-9]*/status | cut -d/ -f3
  fi
}

# ratplus on all ranks. mpirun kills its ranks a second after Ctrl-C, which is too soon for a checkpoint; so it runs in
# a process group of its own, which a terminal's Ctrl-C does not reach, and on_interrupt signals the ranks.
run_ranks() {
  local status=0 launcher=()
  # shellcheck disable=SC2154 # the script's own
  without_mpirun || launcher=(mpirun -q -n "$ranks")
  starting=true
  set -m
  # shellcheck disable=SC2154 # the script's own
  "${launcher[@]}" "$program" "$@" </dev/null &
  ranks_job=$!
  set +m
  starting=false
  if $interrupted; then kill -TERM "$ranks_job" 2>/dev/null || true; fi
  wait "$ranks_job" || status=$?
  while kill -0 "$ranks_job" 2>/dev/null; do # a signal has ended the wait, not the job
    status=0
    wait "$ranks_job" || status=$?
  done
  ranks_job=
  if $interrupted || ((status == 75)); then stopped; fi # 75: stopped by a signal, saved
  return "$status"
}

# How ranks show their progress: a rank's output goes through mpirun, which hides the terminal from it.
progress_environment() {
  if [[ -t 2 ]]; then
    COLUMNS=$(stty size 2>/dev/null </dev/tty | cut -d' ' -f2 || true)
    export RATPLUS_PROGRESS=terminal COLUMNS=${COLUMNS:-80}
  else
    export RATPLUS_PROGRESS=plain
  fi
}

# evaluated RUN: whether its evaluation is newer than its training.
evaluated() { [[ $1/evaluation.json -nt $1/metrics.jsonl ]]; }
