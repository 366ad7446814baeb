#!/usr/bin/env bash
# Evaluates a model on LongBench's English tasks as the papers do, and scores the answers by LongBench's own eval.py.
set -euo pipefail

jobs=$(realpath "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/..")
# shellcheck source=jobs/common.sh
source "$jobs/common.sh"

papers_tasks=narrativeqa,qasper,multifieldqa_en,hotpotqa,2wikimqa,musique,gov_report,qmsum,multi_news,lcc,repobench-p

usage() {
  cat <<END
jobs/evaluate/longbench.sh - LongBench: the eleven tasks of the papers, or others

Usage: jobs/evaluate/longbench.sh CHECKPOINT --longbench DIR --data DIR --output DIR [option]... [option of ratplus generate]...

  CHECKPOINT       a checkpoint, a run, a .pth file or safetensors
  --longbench DIR  the folder LongBench/ of github.com/THUDM/LongBench: config/dataset2prompt.json, eval.py, metrics.py
  --data DIR       TASK.jsonl of each task, as in THUDM/LongBench's data.zip
  --output DIR     answers go to DIR/pred/NAME/TASK.jsonl, scores to DIR/pred/NAME/result.json
  --name NAME      default: ratplus
  --tasks A,B      default: $papers_tasks;
                   there are also trec, triviaqa and samsum
  --help           this text

Fills each task's prompt, cuts it in its middle, generates greedily with the task's number of tokens and penalty, and writes the
answers as the reference post-processes them. Answers that are there are kept: after an interruption, the same command
continues. Those of other weights, options, data or prompts are refused. The mean is of those of --tasks that are among the
papers' eleven. Give --pattern D,W,I for another pattern than the one in training.

Environment:
  RATPLUS      the program; default: build/ratplus of this repository, or the installed one
  RANKS        ranks, one a GPU; default: 1, without mpirun
  PYTHON       for eval.py, which needs numpy, jieba, fuzzywuzzy and rouge; default: python3
END
}

# settings_of TASK: the reference's tokens of an answer, then options of ratplus generate, a line each. The reference
# generates one token more than it says.
settings_of() {
  local tokens options=(--trim blank)
  local qa=(--trim lines --stop $'\nQuestion')
  local summary=(--repetition-penalty 1.2 --spare-prompt)
  case $1 in
    narrativeqa | qasper) tokens=128 options=("${qa[@]}") ;;
    multifieldqa_en | trec) tokens=64 options=("${qa[@]}") ;;
    hotpotqa | 2wikimqa | musique | triviaqa) tokens=32 options=("${qa[@]}") ;;
    gov_report | multi_news) tokens=512 options+=("${summary[@]}") ;;
    qmsum) tokens=512 options=("${qa[@]}" --stop $'\nQuery' "${summary[@]}") ;;
    lcc | repobench-p) tokens=64 ;;
    samsum) tokens=128 ;;
    *) die "there is no task $1; --help names them" ;;
  esac
  printf '%s\0' --max-tokens $((tokens + 1)) "${options[@]}"
}

ratplus=$(find_program "$jobs") || exit
python=${PYTHON:-python3}
tasks=$papers_tasks
name=ratplus
checkpoint="" longbench="" data="" output=""
generate=()
while (($# > 0)); do
  case $1 in
    -h | --help) usage && exit ;;
    --longbench | --data | --output | --name | --tasks)
      [[ -n ${2:-} ]] || die "$1 needs a value"
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) if [[ -z $checkpoint ]]; then checkpoint=$1; else generate+=("$1"); fi ;;
  esac
  shift
done
[[ -n $checkpoint && $checkpoint != -* ]] || die "give a checkpoint first; --help explains"
[[ -n $longbench && -n $data && -n $output ]] || die "give --longbench, --data and --output; --help explains"
for file in config/dataset2prompt.json eval.py metrics.py; do
  [[ -f $longbench/$file ]] || die "$longbench/$file is missing; give the folder LongBench/ of its repository"
done
IFS=, read -ra tasks <<<"$tasks"
for task in "${tasks[@]}"; do
  settings_of "$task" >/dev/null
  [[ -f $data/$task.jsonl ]] || die "$data/$task.jsonl is missing"
done
"$python" -c 'import fuzzywuzzy, jieba, numpy, rouge' 2>/dev/null ||
  die "$python lacks what eval.py imports; pip install numpy jieba fuzzywuzzy rouge, or set PYTHON"
mpi_environment

answers=$output/pred/$name
mkdir -p "$answers"
# Answers of another model, of other options, data or prompts are not these: they would be kept. Of a run the newest checkpoint
# counts.
model=$(realpath -m "$checkpoint")
newest=$(find -L "$model/checkpoints" -maxdepth 1 -name 'step-*' ! -name '*.*' 2>/dev/null | sort -V | tail -n 1 || true)
settings="${newest:-$model}"
for ((i = 0; i < ${#generate[@]}; ++i)); do
  case ${generate[i]} in
    --threads | --slots | --prefix-cache) i=$((i + 1)) ;; # no answer depends on them
    *) settings+=" ${generate[i]}" ;;
  esac
done
if [[ -s $answers/.settings ]]; then
  [[ $(<"$answers/.settings") == "$settings" ]] ||
    die "$answers has answers of '$(<"$answers/.settings")', not of '$settings'; give another --name or --output, or remove it"
else
  for task in "${tasks[@]}"; do
    [[ ! -f $answers/$task.jsonl ]] ||
      die "$answers/$task.jsonl is there, of an unknown model; give another --name or --output, or remove it"
  done
  printf '%s\n' "$settings" >"$answers/.settings" || die "$answers/.settings was not written; make room, or give another --output"
fi

digest() { sha256sum | cut -c 1-64; }

# weights_digest: a checkpoint's manifest has checksums of its parts. Of other files, which may be large: names, sizes, times
# and beginnings.
weights_digest() {
  local at=${newest:-$model} file
  [[ -e $at ]] || die "$checkpoint: does not exist"
  if [[ -f $at/manifest.json ]]; then
    digest <"$at/manifest.json"
    return
  fi
  find -L "$at" -type f -print0 | LC_ALL=C sort -z | while IFS= read -r -d '' file; do
    stat -L -c '%n %s %Y' "$file"
    head -c 65536 "$file"
  done | digest
}

# record_of TASK: what its answers depend on, a line each.
record_of() {
  echo "weights $weights"
  echo "data $(digest <"$data/$1.jsonl")"
  echo "prompt $(grep -oE "\"$1\"[[:space:]]*:[[:space:]]*\"([^\"\\\\]|\\\\.)*\"" "$longbench/config/dataset2prompt.json" | digest)"
  echo "options of the task $(settings_of "$1" | digest)"
}

weights=$(weights_digest) || exit
# Answers of versions that kept no record are taken as they are.
for task in "${tasks[@]}"; do
  if [[ -f $answers/$task.jsonl && -s $answers/.$task.record ]]; then
    differs=$(diff "$answers/.$task.record" <(record_of "$task") | sed -n 's/^> \(.*\) [0-9a-f]*$/\1/p' |
      paste -sd, | sed 's/,/, /g') || true
    [[ -z $differs ]] ||
      die "$answers/$task.jsonl has answers of other contents ($differs); give another --name or --output, or remove it"
  fi
done
# shellcheck disable=SC2034 # of phases.sh
ranks=${RANKS:-1} program=$ratplus alone=true
# shellcheck source=jobs/phases.sh
source "$jobs/phases.sh"
stopped() { exit 75; } # as the program itself, which has named the way on

for task in "${tasks[@]}"; do
  if [[ -f $answers/$task.jsonl ]]; then
    echo "$task: kept"
    continue
  fi
  echo "$task"
  mapfile -d '' -t of_task < <(settings_of "$task")
  record_of "$task" >"$answers/.$task.record" || die "$answers/.$task.record was not written; make room, or give another --output"
  run_ranks generate "$checkpoint" --input "$data/$task.jsonl" --output "$answers/$task.jsonl" \
    --prompt-template "$longbench/config/dataset2prompt.json#$task" --text-field pred --keep answers,all_classes,length \
    --cut middle "${of_task[@]}" ${generate[@]+"${generate[@]}"}
done

trap - INT TERM HUP
# eval.py finds pred/NAME in the working directory.
longbench=$(realpath "$longbench")
(cd "$output" && "$python" "$longbench/eval.py" --model "$name") ||
  die "$longbench/eval.py failed (see above); the answers are in $answers, and the same command scores them"
printf '\n%s\n' "$name"
# eval.py scores all that is there. A mean is of what was asked for, and of the papers' tasks alone.
tr -d '{}", ' <"$answers/result.json" | awk -F: -v asked="${tasks[*]}" -v papers="$papers_tasks" '
  NF == 2 { score[$1] = $2 }
  END {
    of_papers = split(papers, names, ",")
    for (i = 1; i <= of_papers; i++) counts[names[i]] = 1
    tasks = split(asked, names, " ")
    for (i = 1; i <= tasks; i++) {
      if (!(names[i] in score)) { missing = missing " " names[i]; continue }
      if (names[i] in printed) continue
      printed[names[i]] = 1
      printf "  %-18s %6.2f\n", names[i], score[names[i]]
      if (names[i] in counts) { sum += score[names[i]]; n++ }
    }
    if (missing != "") { printf "no score of%s\n", missing; exit 1 }
    if (n > 0) printf "  %-18s %6.2f   of the papers'"'"' %d\n", "mean of " n, sum / n, of_papers
  }' || die "$answers/result.json lacks a task's score (see above)"
