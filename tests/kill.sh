#!/usr/bin/env bash
# Kills ranks of a small run again and again, at random moments, and resumes it until it is done: its last checkpoint
# must be, byte for byte, that of a run that nobody disturbed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh
# shellcheck source=tests/options.sh
source tests/options.sh

usage() {
  cat <<'END'
tests/kill.sh - SIGKILL a random rank of a run at random moments, resume, and compare the end

Usage: tests/kill.sh [--kills N] [--ranks N] [--shard NAME] [--program FILE] [--seed N] [--keep]

  --kills N       at least so many (200); the run is made long enough by itself, about a second for each
  --ranks N       ranks of the run (2)
  --shard NAME    none, optimizer or full (optimizer)
  --program FILE  ratplus (build/ratplus)
  --seed N        of the moments and ranks (1)
  --keep          leave the directory with the runs

A checkpoint is begun every few steps, so that many kills come while one is written or published. Ends with the number
of kills and 0, or with what differs and 1.
END
}

kills=200
ranks=2
shard=optimizer
program=build/ratplus
keep=false
seed=1
read_options "kills ranks shard program seed" "$@"
RANDOM=$seed
mpi_environment
export OMP_NUM_THREADS=1

work=$(mktemp -d)
finish() { if $keep; then echo "kept: $work"; else rm -rf "$work"; fi; }
trap finish EXIT

for ((line = 0; line < 3000; ++line)); do
  echo "{\"text\": \"line $line of words: $((line * line)) $((line * 7919 % 1000)) and the rest of it\"}"
done >"$work/text.jsonl"
"$program" prepare "$work/text.jsonl" --output "$work/data" --train-tokenizer --vocab-size 300 \
  --validation-fraction 0.05 >"$work/prepare.log" 2>&1 || die "prepare failed: $(tail -n 3 "$work/prepare.log")"

write_job() { # STEPS
  cat >"$work/job.toml" <<END
[job]
directory = "set below"
recipe = "joint"
joint_pattern = "8,0,0"
device = "cpu"
[model]
layers = 2
width = 64
head_dim = 32
vocab_size = 300
[data]
directory = "$work/data"
sequence_length = 32
batch = 4
[schedule]
steps = $1
peak_lr = 1e-3
[parallel]
shard = "$shard"
[checkpoint]
every = 7
keep_every = 7000
[log]
every = 100
validation_sequences = 4
END
}

train() { # RUN [option]...
  mpirun -n "$ranks" "$program" train "$work/job.toml" --set job.directory="$work/$1" "${@:2}"
}

# Kills one rank of the run within two seconds of its start: before the first step, in one, while a checkpoint is
# written. The ranks are this run's alone, by the names of its files.
kill_one() { # LAUNCHER
  local processes=()
  while ((${#processes[@]} < ranks)); do
    kill -0 "$1" 2>/dev/null || return 1
    sleep 0.05
    mapfile -t processes < <(pgrep -f "^$program train $work/job.toml .*$work/run" || true)
  done
  sleep "$(printf '%d.%03d' $((RANDOM % 2)) $((RANDOM % 1000)))"
  kill -KILL "${processes[RANDOM % ${#processes[@]}]}" 2>/dev/null
}

# A kill comes a second after the ranks' start on average: so many steps as this machine makes in that time, and more.
trial=1000
write_job "$trial"
began=$(date +%s%N)
train trial >"$work/trial.log" 2>&1 || die "a trial failed: $(tail -n 3 "$work/trial.log")"
a_second=$((trial * 1000000000 / ($(date +%s%N) - began)))
steps=$((kills * (a_second > 40 ? a_second : 40)))
write_job "$steps"
echo "the undisturbed run: $steps steps, $a_second a second"
train undisturbed >"$work/undisturbed.log" 2>&1 || die "it failed: $(tail -n 3 "$work/undisturbed.log")"
last=$(printf 'checkpoints/step-%08d' "$steps")

killed=0
passed_over=0
started=$SECONDS
while [[ ! -e $work/run/$last/manifest.json ]]; do
  train run --resume >"$work/run.log" 2>&1 &
  launcher=$!
  if ((killed < kills)) && kill_one "$launcher"; then ((killed += 1)); fi
  wait "$launcher" 2>/dev/null || true
  if grep -q "is not whole" "$work/run.log"; then ((passed_over += 1)); fi
  # "rank 1 on host died in ...; all ranks end" is what the other ranks say of the kill.
  # "stopped by a signal while no step was under way" is said where mpirun ends a rank before its first step.
  if grep "^ratplus: " "$work/run.log" | grep -vE "; all ranks end$|stopped by a signal while no step"; then die "after $killed kills it could not go on"; fi
  if ((killed % 20 == 0)); then
    echo "$killed kills, $((SECONDS - started)) s: $(grep -o 'resumed at step [0-9]*' "$work/run.log" || echo started)"
  fi
done

different=0
for file in "$work/undisturbed/$last"/part-*.h5; do
  cmp "$file" "$work/run/$last/$(basename "$file")" || different=1
done
((different == 0)) || die "after $killed kills the last checkpoint is not the undisturbed run's"
((killed >= kills)) || die "the run was over after $killed kills, before the $kills that were asked for"
echo "$killed kills in $((SECONDS - started)) s ($passed_over damaged checkpoints passed over); the last checkpoint is the undisturbed run's, byte for byte"
