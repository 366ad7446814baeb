#!/usr/bin/env bash
# From nothing to an adapted RAT+ model, by one command.
set -euo pipefail

cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/.."
# shellcheck source=jobs/common.sh
source jobs/common.sh

usage() {
  cat <<'END'
jobs/quickstart.sh - from nothing to an adapted RAT+ model, by one command

Usage: jobs/quickstart.sh [--ranks N] [--short] [--fresh] [--help]

On a Debian 12 machine: installs the packages that are missing, builds ratplus, makes a dataset of English prose,
pretrains a small RAT+ jointly on N MPI ranks, adapts it to D = 16 and to D = 64, and evaluates the three models.
It ends with a table of perplexities before and after adaptation, a picture of the loss curves, and some sentences of the
model adapted to D = 16.

  --ranks N  MPI ranks, 1 or 2 (default 2)
  --short    a few steps on an eighth of the text, as a check; in runs/quickstart-short
  --fresh    start over: removes the run directory first
  --help     this text

At most 15 minutes on 2 cores. Everything goes to build/ and runs/quickstart/. Stop it at any time by Ctrl-C: the same
command resumes, and repeats no finished phase.
END
}

ranks=2
short=false
fresh=false
command_line=(jobs/quickstart.sh "$@")
while (($# > 0)); do
  case $1 in
    --ranks)
      [[ ${2:-} == [12] ]] || die "--ranks is 1 or 2, not '${2:-}': the batch of 8 is cut into micro-batches of 4"
      ranks=$2
      shift
      ;;
    --short) short=true ;;
    --fresh) fresh=true ;;
    -h | --help) usage && exit ;;
    *) die "unknown option '$1'; --help lists the known ones" ;;
  esac
  shift
done

run=runs/quickstart
keep_one_in=1 # of the documents
pretrain_overrides=()
adapt_overrides=()
if $short; then
  run=runs/quickstart-short
  keep_one_in=8
  common=(log.every=1 log.validation_sequences=16 "data.directory=$run/data")
  pretrain_overrides=("${common[@]}" schedule.steps=10 checkpoint.every=5 log.validate_every=5)
  adapt_overrides=("${common[@]}" schedule.steps=4 checkpoint.every=2 log.validate_every=2
    "job.from=$run/pretrain")
fi

# --- Phases ------------------------------------------------------------------------------------------------------

program=build/ratplus
phases=8
# shellcheck source=jobs/phases.sh
source jobs/phases.sh

train() {
  local job=$1 settings=() setting
  shift
  for setting in "$@"; do settings+=(--set "$setting"); done
  run_ranks train "configs/quickstart/$job.toml" --resume --set "job.directory=$run/$job" "${settings[@]}" ||
    die "training stopped (see above). If its settings were changed since it began, start over with --fresh;" \
      "else the same command continues from the last checkpoint"
}

# All held-out text under all three patterns; once for each finished run.
evaluate() {
  if evaluated "$run/$1"; then
    echo "$run/$1: evaluated already"
  else
    run_ranks eval "$run/$1" --data "$run/data" --pattern dense 16,0,4 64,0,4 --json "$run/$1/evaluation.json"
  fi
}

# --- Steps ------------------------------------------------------------------------------------------------------

mpi_environment
progress_environment
if $fresh; then rm -rf "$run"; fi
mkdir -p "$run"

phase "set-up" "Debian packages that are missing"
jobs/setup.sh

phase "build" "ratplus, in build/"
configure build
cmake --build build --target ratplus -j "$(build_jobs)"

phase "prose" "English text from a Debian package"
text=$run/text/prose.jsonl
if [[ -e $text ]]; then echo "$text is there"; else jobs/prose.sh "$text" "$keep_one_in"; fi

phase "prepare" "a tokenizer, and the text as shards of tokens"
build/ratplus prepare "$run/text" --output "$run/data" --train-tokenizer --vocab-size 2048 --validation-fraction 0.05

phase "pretrain" "jointly, dense and D = 64, on $ranks ranks"
train pretrain "${pretrain_overrides[@]}"

phase "adapt" "to D = 16"
train adapt-d16 "${adapt_overrides[@]}"

phase "adapt" "to D = 64"
train adapt-d64 "${adapt_overrides[@]}"

phase "evaluate" "the three models on all held-out text"
for model in pretrain adapt-d16 adapt-d64; do evaluate "$model"; done

printf '\n'
build/ratplus report --adaptation "$run"/{pretrain,adapt-d16,adapt-d64} --output "$run"

printf '\nThe model adapted to D = 16 continues "The idea of":\n\n'
build/ratplus generate "$run/adapt-d16" --prompt "The idea of" --echo --max-tokens 96 --temperature 0.7 --top-p 0.9
mpirun="mpirun -n $ranks"
if [[ $(id -u) -eq 0 ]]; then mpirun+=" --allow-run-as-root"; fi
cat <<END

Done in $(clock "$SECONDS"). Next:
  more text:       build/ratplus generate $run/adapt-d16
  other patterns:  build/ratplus eval $run/pretrain --pattern 4,0,4 16,64,4
  another model:   $mpirun build/ratplus train configs/quickstart/pretrain.toml --set model.layers=6 job.directory=runs/mine
END
