#!/usr/bin/env bash
# Runs the batch jobs of jobs/slurm on a real Slurm, of which this machine is the only node.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh
# shellcheck source=tests/options.sh
source tests/options.sh
# shellcheck source=tests/slurm/cluster.sh
source tests/slurm/cluster.sh

usage() {
  cat <<'END'
tests/slurm.sh - run batch jobs on a real Slurm of one node, which is this machine

Usage: tests/slurm.sh [--program FILE] [--data DIRECTORY] [--keep] [--help]

Needs Debian's slurm-wlm and munge (jobs/setup.sh --slurm) and root. Own daemons run on own ports, with all their files
in a temporary directory; they are ended with the test. What is shown, in about 4 minutes on 2 cores:
  - the quick start's pretraining, of a smaller model, as a job of 2 tasks, a sweep over three patterns as a job array that
    waits for it, and the table of the sweep, by one command
  - the same pretraining, submitted by `ratplus submit`, stopped before its time limit, queued again, finished: its last
    checkpoint is that of the undisturbed run, byte for byte
  - an adaptation, an evaluation and a conversion, each as a job of its own
  - RULER's chain: the data, an array of two fine-tunings, of which one is preempted, and their table
  - the chain of the reproduction: the data, an array of two models, and their report
  - a job that checks its nodes first is trained, or ends untrained with status 5 where something stands out
  - a job of which a rank is killed ends as FAILED, with the reason in its log, and is not queued again

  --program FILE    ratplus (build/ratplus)
  --data DIRECTORY  a dataset of the quick start's tokenizer; default: that of runs/quickstart or runs/quickstart-short,
                    or else a new one of the same text
  --keep            leave the directory, with all logs
Status 77: skipped, since something is not installed.
END
}

program=build/ratplus
data=
keep=false
read_options "program data" "$@"
PATH=$PATH:/usr/sbin:/sbin # where Debian's daemons are
missing=$(slurm_is_missing)
if [[ -n $missing ]]; then
  echo "skipped: $missing"
  exit 77
fi

work=$(mktemp -d -t ratplus-slurm.XXXXXX)
finish() {
  stop_cluster "$work/cluster"
  if $keep; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

heading() { printf '\n=== %s (%d s since the start)\n' "$*" "$SECONDS"; }

find_data() {
  local candidate
  for candidate in "$data" runs/quickstart/data runs/quickstart-short/data; do
    if [[ -n $candidate && -e $candidate/dataset.json ]]; then
      realpath "$candidate"
      return
    fi
  done
  [[ -z $data ]] || die "$data: holds no dataset"
  mkdir "$work/text"
  { jobs/prose.sh "$work/text/prose.jsonl" 8 &&
    "$program" prepare "$work/text" --output "$work/data" --train-tokenizer --vocab-size 2048 \
      --validation-fraction 0.05; } >"$work/prepare.log" 2>&1 || fail_with_log "$work/prepare.log" "no data"
  echo "$work/data"
}

# --- The jobs -------------------------------------------------------------------------------------------------------

mpi_environment
export OMP_NUM_THREADS=1 RATPLUS=$program RATPLUS_SEQUENCES=16
node=(--nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --gpus-per-node=0)
steps=48
last=$(printf 'checkpoints/step-%08d' "$steps")
slow() { echo "0:slow:$1:1"; } # RATPLUS_TEST_FAULT: each update takes so many seconds longer, so that there is time to stop it

write_jobs() {
  local common=("data.directory=$data" log.every=1 log.validation_sequences=8 model.layers=2 model.width=64 model.head_dim=32)
  "$program" train configs/quickstart/pretrain.toml --print-config --set "${common[@]}" \
    "schedule.steps=$steps" log.validate_every=0 checkpoint.every=20 "job.directory=$work/pretrain" \
    >"$work/pretrain.toml"
  "$program" train configs/quickstart/adapt-d16.toml --print-config --set "${common[@]}" \
    schedule.steps=4 log.validate_every=0 checkpoint.every=0 "job.directory=$work/adapt" >"$work/adapt.toml"
}

test_chain() {
  heading "pretraining, a sweep of three patterns, and its table, by one command"
  jobs/slurm/chain.sh "$work/pretrain.toml" "$work/adapt.toml" "${node[@]}" --time 20 --array 0,4,6 \
    --output="$work/chain-%x-%j.log" | tee "$work/chain.txt"
  local numbers pretraining table log
  mapfile -t numbers < <(sed -n 's/.*: job \([0-9]*\)$/\1/p' "$work/chain.txt")
  pretraining=${numbers[0]} table=${numbers[2]} log=$work/chain-ratplus-eval-${numbers[2]}.log
  await "$pretraining" "$work/chain-ratplus-pretrain-$pretraining.log" 400
  expect_state "$pretraining" COMPLETED "$work/chain-ratplus-pretrain-$pretraining.log"
  await "$table" "$log" 400
  expect_state "$table" COMPLETED "$log"
  cat "$work/sweep/table.txt"
  # A row of names, and two of four perplexities each: dense, and the three patterns.
  awk '/^ *(before|after) adaptation / { for (i = NF - 3; i <= NF; ++i) if ($i + 0 <= 1) exit 1; rows++ }
       END { exit rows != 2 }' "$work/sweep/table.txt" || die "this is no table of dense and three patterns"
  grep -q 'dense .*D = 1, I = 4 .*D = 16, I = 4 .*D = 64, I = 4' "$work/sweep/table.txt" || die "its columns are others"
}

# The losses of the last step, and of the validation after it.
last_losses() { grep "\"step\": *$steps," "$1/metrics.jsonl" | grep -o '"loss":[^,}]*\|"gradient_norm":[^,}]*'; }

test_preemption() {
  heading "the same pretraining, stopped before its time limit of a minute, queued again, finished"
  local run=$work/preempted job log file
  # Slurm looks every 30 s, and sends the signal 10 to 40 s before the minute is up: 20 s or later after the start, when
  # steps have been made, and before the last of them, each of two updates.
  RATPLUS_TEST_FAULT=$(slow 0.6) "$program" submit "$work/pretrain.toml" --nodes 1 --ranks-per-node 2 --cpus-per-rank 1 \
    --time 1 --stop-before 10 --set "job.directory=$run"
  job=$(cat "$run/submitted.job") log=$run/slurm-$job.log
  await "$job" "$log" 400
  expect_state "$job" COMPLETED "$log"
  grep 'batch: ' "$log"
  (($(field "$job" Restarts) >= 1)) || fail_with_log "$log" "it was not queued again: it ended too soon"
  expect_in "$log" 'stopped by SIG'
  expect_in "$log" 'queued again'
  expect_in "$log" "step $steps/$steps"
  [[ -n $(last_losses "$run") && $(last_losses "$run") == "$(last_losses "$work/pretrain")" ]] ||
    die "the losses of its last step are not those of the undisturbed run"
  for file in "$work/pretrain/$last"/part-*.h5; do
    cmp "$file" "$run/$last/$(basename "$file")" || die "its last checkpoint is not that of the undisturbed run"
  done
  echo "the same losses and the same checkpoint as the undisturbed run"
}

# Each waits for the one before, and is checked when the last has come to its end.
test_single_jobs() {
  heading "one adaptation, its evaluation and its weights for others, a job each"
  local run=$work/adapted out=$work/adapted.safetensors jobs=() logs=() job i
  submit_single() { # SCRIPT ARGUMENT...
    local script=$1 wait=()
    shift
    if ((${#jobs[@]} > 0)); then wait=("--dependency=afterok:${jobs[-1]}" --kill-on-invalid-dep=yes); fi
    job=$(sbatch --parsable "${resources[@]}" "${wait[@]}" --time=20 --output="$work/single-$script.log" \
      "jobs/slurm/$script.sbatch" "$@")
    jobs+=("$job") logs+=("$work/single-$script.log")
  }
  local resources=("${node[@]}")
  submit_single adapt "$work/adapt.toml" --set "job.directory=$run" "job.from=$work/pretrain" job.pattern=64,0,4
  submit_single eval "$run" --pattern dense 64,0,4
  resources=(--cpus-per-task=1)
  submit_single convert "$run" "$out" --dtype bfloat16
  await "${jobs[2]}" "${logs[2]}" 200
  for i in 0 1 2; do expect_state "${jobs[i]}" COMPLETED "${logs[i]}"; done
  expect_in "${logs[0]}" 'step 4/4'
  [[ $(grep -o '"pattern": *"[^"]*"' "$run/evaluation.json" | wc -l) == 2 ]] ||
    fail_with_log "${logs[1]}" "$run/evaluation.json does not hold two patterns"
  "$program" inspect "$out" | grep '^verified' || fail_with_log "${logs[2]}" "$out is not whole"
}

test_ruler() {
  heading "RULER's chain: data, two fine-tunings as an array of which one is preempted, and their table"
  local numbers tuning scores log=$work/ruler-%j.log
  cat docs/*.md >"$work/prose.txt"
  RATPLUS_TEST_FAULT=$(slow 0.1) jobs/slurm/ruler_chain.sh "${node[@]}" --time 20 --output="$log" -- "$work/pretrain" --pattern dense --pattern 16,0,4 \
    --prose "$work/prose.txt" --output "$work/ruler" --length 256 --train 100 --samples 4 --answer-tokens 24 --task niah_single_1 \
    --task needles=needle,words,numbers,1,1,1 --needles --digits=2 --set schedule.steps=80 --set data.batch=4 \
    --set data.micro_batch=2 --set log.every=1 --ranks 2 | tee "$work/ruler.txt"
  mapfile -t numbers < <(sed -n 's/.*: job \([0-9]*\)$/\1/p' "$work/ruler.txt")
  tuning=${numbers[1]} scores=${numbers[2]}
  until [[ -s $work/ruler/pretrain-dense/metrics.jsonl ]] && grep -q '"step": *10,' "$work/ruler/pretrain-dense/metrics.jsonl"; do
    [[ $(field "${numbers[0]}" JobState) != FAILED ]] || fail_with_log "$work/ruler-${numbers[0]}.log" "no data"
    sleep 0.5
  done
  scancel --batch --signal=USR1 "${tuning}_0"
  await "${tuning}_0" "$work/ruler-$tuning.log" 200
  await "$scores" "$work/ruler-$scores.log" 400
  expect_state "$scores" COMPLETED "$work/ruler-$scores.log"
  grep -l 'batch: queued again' "$work"/ruler-*.log || die "the preempted fine-tuning was not queued again"
  grep '^| reference' -A 3 "$work/ruler/scores.md"
  grep -q '^| pretrain-d16-w0-i4 | ' "$work/ruler/scores.md" || die "the table has no row of D = 16"
}

test_reproduce() {
  heading "the reproduction's chain: data, two models as an array, and their report"
  local numbers report log=$work/reproduce-%j.log
  jobs/slurm/reproduce_chain.sh --cpus-per-task=1 --gpus-per-node=0 --time 20 --output="$log" -- --scale tiny --prepared "$data" \
    --output "$work/reproduce" --steps 2 --only rnn --only attention-joint | tee "$work/reproduce.txt"
  mapfile -t numbers < <(sed -n 's/.*: job \([0-9]*\)$/\1/p' "$work/reproduce.txt")
  report=${numbers[2]}
  await "$report" "$work/reproduce-$report.log" 400
  expect_state "$report" COMPLETED "$work/reproduce-$report.log"
  grep '^| adapted, D = 64' "$work/reproduce/tradeoff.md"
  grep -q '^| pattern | attention-joint | rnn |' "$work/reproduce/tradeoff.md" || die "the table has not both models"
}

test_killed_rank() {
  heading "a job of which a rank is killed"
  local job log
  job=$(RATPLUS_TEST_FAILURE="1:kill:forward of blocks.1:2" RATPLUS_LAUNCHER=mpirun sbatch --parsable "${node[@]}" \
    --time=20 --output="$work/killed.log" jobs/slurm/pretrain.sbatch "$work/pretrain.toml" \
    --set "job.directory=$work/killed") log=$work/killed.log
  await "$job" "$log" 120
  expect_state "$job" FAILED "$log"
  expect_in "$log" 'ratplus: rank 1 on .* died in forward of blocks.1'
  [[ $(field "$job" Restarts) == 0 ]] || fail_with_log "$log" "it was queued again"
  grep 'died in\|batch: ' "$log"
  echo "FAILED, and not queued again"
}

# Whether this machine's ranks are alike is its own affair: both ends are right, each with its training.
test_check() {
  heading "a job that checks its nodes first"
  local run=$work/checked job log
  "$program" submit "$work/adapt.toml" --nodes 1 --ranks-per-node 2 --cpus-per-rank 1 --time 20 --check \
    --set "job.directory=$run" "job.from=$work/pretrain"
  job=$(cat "$run/submitted.job") log=$run/slurm-$job.log
  await "$job" "$log" 300
  expect_in "$log" 'checkpoint directory, write'
  [[ -s $run/check.json ]] || fail_with_log "$log" "$run/check.json is missing"
  if grep -q '^nothing stands out$' "$log"; then
    expect_state "$job" COMPLETED "$log"
    expect_in "$log" 'step 4/4'
  else
    expect_state "$job" FAILED "$log"
    expect_in "$log" 'batch: something stands out in ratplus check'
    [[ $(field "$job" ExitCode) == 5:0 ]] || fail_with_log "$log" "its status is not 5"
    [[ ! -e $run/metrics.jsonl ]] || fail_with_log "$log" "it was trained"
  fi
  grep 'stands out' "$log"
}

heading "a cluster of one node"
start_cluster "$work/cluster" 2
data=$(find_data)
write_jobs
test_chain
test_preemption
test_single_jobs
test_ruler
test_reproduce
test_check
test_killed_rank
heading "passed"
