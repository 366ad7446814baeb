#!/usr/bin/env bash
# RULER's needle tasks from data to a table of scores: makes the data, fine-tunes, generates and scores.
set -euo pipefail

jobs=$(realpath "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/..")
# shellcheck source=jobs/common.sh
source "$jobs/common.sh"

usage() {
  cat <<'END'
jobs/evaluate/ruler.sh - fine-tune runs on RULER's eight NIAH tasks, and score them

Usage: jobs/evaluate/ruler.sh RUN... --prose PATH [option...]

Makes training and validation samples of the tasks (`ratplus needles`), fine-tunes each RUN (a run, a checkpoint, weights),
generates the answers, and ends with a table by task and model. Stop it at any time by Ctrl-C: the same command resumes, and
repeats nothing that is done. docs/ruler.md explains tasks and scores.

  --prose PATH      text for the haystacks: .txt, .jsonl or .parquet files, or a directory of them; may be given again
  --pattern D,W,I   fine-tune and evaluate each RUN under this pattern; may be given again; default: the RUN's own
  --output DIR      where all goes (default runs/ruler)
  --length T        tokens of a prompt and its answer at most (default 4096)
  --train N         training samples of a task (default 2250)
  --samples N       validation samples of a task (default 500)
  --task TASK       a task, as of `ratplus needles`; may be given again; default: RULER's eight
  --answer-tokens N tokens kept free for the answer (default 128); N + 1 are generated, as in the papers
  --needles OPTION  an option of `ratplus needles` in one word, such as --wording=brief; may be given again
  --tokenizer FILE  default: the first RUN's
  --job FILE        job file of fine-tuning; default: the papers' recipe (docs/ruler.md)
  --set KEY=VALUE   a setting of the fine-tuning, such as data.micro_batch=4; may be given again
  --by FIELD        a further table, as of `ratplus score --by`, such as distance:256,1024; may be given again
  --ranks N         MPI ranks, a GPU each (default 1, without mpirun)
  --part PART       only data, tune or scores: for batch jobs (jobs/slurm/ruler_chain.sh)
  --only N          with --part tune: only the Nth model, from 0
  --list            prints the models, a line each, and ends
  --fresh           start over: first removes data, these models and scores from --output, where no other models are
  --help            this text

RATPLUS=/path/to/ratplus names the program (default: build/ratplus of the repository, or the installed one).
END
}

# --- Options -----------------------------------------------------------------------------------------------------

# shellcheck disable=SC2034 # of phases.sh
command_line=(${RATPLUS:+"RATPLUS=$RATPLUS"} "$0" "$@")
output='' length=4096 train=2250 samples=500 answer_tokens=128 tokenizer='' job='' ranks=1 part='' only='' fresh=false list=false
runs=() prose=() patterns=() tasks=() needles=() given=() by=()

absolute() { if [[ $1 == /* ]]; then echo "$1"; else echo "$PWD/$1"; fi; }

while (($# > 0)); do
  case $1 in
    --fresh) fresh=true ;;
    --list) list=true ;;
    -h | --help) usage && exit ;;
    --prose | --pattern | --output | --length | --train | --samples | --task | --answer-tokens | --needles | --tokenizer | \
      --job | --set | --by | --ranks | --part | --only)
      [[ -n ${2:-} ]] || die "$1 needs a value"
      case $1 in
        --prose) prose+=("$(absolute "$2")") ;;
        --pattern) patterns+=("$2") ;;
        --output) output=$(absolute "$2") ;;
        --length) length=$2 ;;
        --train) train=$2 ;;
        --samples) samples=$2 ;;
        --task) tasks+=(--task "$2") ;;
        --answer-tokens) answer_tokens=$2 ;;
        --needles)
          case $2 in
            --adjectives=* | --nouns=*) needles+=("${2%%=*}=$(absolute "${2#*=}")") ;;
            *) needles+=("$2") ;;
          esac
          ;;
        --tokenizer) tokenizer=$(absolute "$2") ;;
        --job) job=$(absolute "$2") ;;
        --set) given+=("$2") ;;
        --by) by+=(--by "$2") ;;
        --ranks) ranks=$2 ;;
        --part) part=$2 ;;
        --only) only=$2 ;;
      esac
      shift
      ;;
    -*) die "unknown option '$1'; --help lists the known ones" ;;
    *) runs+=("$(absolute "$1")") ;;
  esac
  shift
done

((${#runs[@]} > 0)) || die "give a run to fine-tune; --help explains"
((${#prose[@]} > 0)) || die "give text for the haystacks with --prose PATH"
for number in "$length" "$train" "$samples" "$answer_tokens" "$ranks"; do
  [[ $number =~ ^[1-9][0-9]{0,6}$ ]] || die "'$number' is no number from 1 on (--length, --train, --samples, --answer-tokens, --ranks)"
done
[[ -z $part || $part =~ ^(data|tune|scores)$ ]] || die "--part is data, tune or scores, not '$part'"
[[ -z $job || -f $job ]] || die "--job $job: is no file"
for path in "${runs[@]}" "${prose[@]}" ${tokenizer:+"$tokenizer"}; do
  [[ -e $path ]] || die "$path: does not exist"
done
if [[ -n ${RATPLUS:-} ]]; then RATPLUS=$(absolute "$RATPLUS"); fi
program=$(find_program "$jobs") || exit
: "${output:=runs/ruler}"
: "${tokenizer:=${runs[0]}}"

# join_by BETWEEN WORD...: the words as one.
join_by() {
  local between=$1 all=$2 word
  for word in "${@:3}"; do all+=$between$word; done
  printf '%s' "$all"
}

# --- Models ------------------------------------------------------------------------------------------------------

# d16-w256-i4 for 16,256,4.
pattern_name() {
  local name=${1//[^A-Za-z0-9,]/}
  if [[ $name =~ ^([^,]*),([^,]*),([^,]*)$ ]]; then name=d${BASH_REMATCH[1]}-w${BASH_REMATCH[2]}-i${BASH_REMATCH[3]}; fi
  echo "$name"
}

names=() from=() pattern_of=()
for run in "${runs[@]}"; do
  base=$(basename "${run%/}")
  if ((${#patterns[@]} == 0)); then
    names+=("$base") from+=("$run") pattern_of+=('')
  fi
  for pattern in "${patterns[@]}"; do
    names+=("$base-$(pattern_name "$pattern")") from+=("$run") pattern_of+=("$pattern")
  done
done
[[ -z $(printf '%s\n' "${names[@]}" | sort | uniq -d) ]] || die "two models have one name: give runs of different names"
chosen=("${!names[@]}")
if [[ -n $only ]]; then
  [[ $only =~ ^[0-9]{1,6}$ && $only -lt ${#names[@]} ]] || die "--only takes 0 to $((${#names[@]} - 1)), not '$only'"
  chosen=("$only")
fi
if $list; then
  for i in "${chosen[@]}"; do printf '%s\n' "${names[i]}"; done
  exit
fi

# --- Phases ------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2034 # of phases.sh
alone=true
# shellcheck disable=SC2034 # of phases.sh
case $part in
  '') phases=$((2 + ${#chosen[@]})) ;;
  tune) phases=${#chosen[@]} ;;
  *) phases=1 ;;
esac
# shellcheck source=jobs/phases.sh
source "$jobs/phases.sh"

mpi_environment
progress_environment
start_over() {
  local inputs=("${runs[@]}" "${prose[@]}" "$tokenizer" "$job" "$program")
  [[ ! -e $output/data || -e $output/data/settings || -z $(ls -A "$output/data") ]] ||
    die "--fresh: $output/data is not of this script; remove it yourself, or name another --output"
  local own=() name others=()
  for name in "${names[@]}"; do own+=("$output/$name"); done
  for name in "$output"/*/job.toml; do
    grep -qs 'data/samples"' "$name" || continue
    name=$(basename "$(dirname "$name")")
    [[ " ${names[*]} " == *" $name "* ]] || others+=("$name")
  done
  ((${#others[@]} == 0)) || die "--fresh would make other samples and questions than those of $(join_by ', ' "${others[@]}")" \
    "in $output; name these too, remove them yourself, or name another --output"
  remove_made "$output/data" "$output/finetune.toml" "$output"/scores.* "${own[@]}"
}
if $fresh && [[ -z $part || $part == data ]]; then start_over; fi
mkdir -p "$output/data"

# What the data depend on: another command would go on with the samples of this one.
settings="length=$length train=$train samples=$samples answer=$answer_tokens tokenizer=$tokenizer ${prose[*]} ${tasks[*]} ${needles[*]}"
if [[ -f $output/data/settings ]]; then
  [[ $(<"$output/data/settings") == "$settings" ]] ||
    die "$output has data made with other options ($(<"$output/data/settings")); give another --output, or --fresh to start over"
fi

# texts_digest: digests names and contents of the data's sources; of a directory, those of the files that `ratplus needles` reads.
texts_digest() {
  local paths=("${prose[@]}") option path
  for option in "${needles[@]}"; do
    case $option in --adjectives=* | --nouns=*) paths+=("${option#*=}") ;; esac
  done
  if [[ -f $tokenizer ]]; then paths+=("$tokenizer"); fi
  for path in "${paths[@]}"; do
    if [[ -d $path ]]; then
      find -L "$path" -mindepth 1 -name '.*' -prune -o -type f -regextype posix-extended \
        -regex '.*\.((txt|jsonl)(\.gz|\.zst)?|parquet)' -print0
    else
      printf '%s\0' "$path"
    fi
  done | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-64
}

# digest FILE: of its contents.
digest() { sha256sum <"$1" | cut -c 1-64; }

# made_of RECORD FILE: whether the model of RECORD was made with FILE as it is, by the digest that it keeps. Of versions that kept
# none, and where the data were removed since, it is taken as it is: times of files that were copied tell nothing.
made_of() {
  [[ ! -e $2 || ! -s $1 ]] || [[ $(<"$1") == "$(digest "$2")" ]]
}
tuned_on_these() { made_of "$1/samples.sha256" "$output/data/samples/dataset.json"; }
asked_these() { made_of "$1/questions.sha256" "$output/data/validation.jsonl"; }

# write_whole FILE: its standard input, whole or not at all; tasks of an array may write it at once.
write_whole() {
  if cat >"$1.$$.partial" && mv "$1.$$.partial" "$1"; then return; fi
  rm -f "$1.$$.partial"
  die "$1 was not written (see above); the same command writes it again"
}

# once FILE COMMAND...: the command unless its file is there.
once() {
  if [[ -e $1 ]]; then echo "$1: made before"; else "${@:2}"; fi
}

make_data() {
  local options=("${prose[@]}" --tokenizer "$tokenizer" --sequence-length "$length" --answer-tokens "$answer_tokens" "${tasks[@]}"
    "${needles[@]}")
  # Files at the same path may have changed.
  local texts
  texts=$(texts_digest)
  if [[ -s $output/data/texts.sha256 && $(<"$output/data/texts.sha256") != "$texts" ]]; then
    die "the text, words or tokenizer that the data of $output were made from have changed since; give another --output, or --fresh to" \
      "start over"
  fi
  write_whole "$output/data/settings" <<<"$settings"
  write_whole "$output/data/texts.sha256" <<<"$texts"
  # --questions is for training alone.
  local asked=() option
  for option in "${options[@]}"; do [[ $option == --questions=* ]] || asked+=("$option"); done
  once "$output/data/validation.jsonl" "$program" needles "${asked[@]}" --samples "$samples" --seed 42 \
    --output "$output/data/validation.jsonl"
  once "$output/data/train.jsonl" "$program" needles "${options[@]}" --format samples --subset train --samples "$train" \
    --seed 1042 --output "$output/data/train.jsonl"
  local encode=apart
  if [[ " ${needles[*]} " == *" --wording=brief "* ]]; then encode=together; fi
  # Some lines for the validation loss: 1 %, more of few.
  local fraction
  fraction=$(awk -v lines="$((train * (${#tasks[@]} > 0 ? ${#tasks[@]} / 2 : 8)))" \
    'BEGIN { f = 50 / lines; print (f < 0.01 ? 0.01 : (f > 0.2 ? 0.2 : f)) }')
  once "$output/data/samples/dataset.json" "$program" samples "$output/data/train.jsonl" --output "$output/data/samples" \
    --tokenizer "$tokenizer" --sequence-length "$length" --encode "$encode" --pad --validation-fraction "$fraction"
}

# The papers' recipe (configs/finetune/1b.toml), for any model.
write_job() {
  write_whole "$output/finetune.toml" <<TOML
[job]
kind = "finetune"
recipe = "plain"

[data]
batch = 32
sampling = "shuffled"

[optimizer]
beta1 = 0.9
beta2 = 0.95
weight_decay = 0.01
clip = 1.0

[schedule]
epochs = 4
peak_lr = 1e-5
floor_lr = 1e-6
warmup = 0.05

[checkpoint]
every = 200
keep = 1
TOML
}

tune() {
  local name=${names[$1]} pattern=${pattern_of[$1]}
  local file=${job:-$output/finetune.toml} run=$output/$name with=() samples_digest
  if [[ -n $pattern ]]; then with=("job.pattern=$pattern"); fi
  [[ -f $file ]] || write_job
  if [[ -e $run/metrics.jsonl ]]; then
    tuned_on_these "$run" || die "$run was fine-tuned on other samples than those of $output/data, and the table would hold both;" \
      "remove it, or name another --output"
  fi
  mkdir -p "$run"
  samples_digest=$(digest "$output/data/samples/dataset.json")
  [[ -s $run/samples.sha256 && $(<"$run/samples.sha256") == "$samples_digest" ]] ||
    write_whole "$run/samples.sha256" <<<"$samples_digest"
  run_ranks train "$file" --resume --set "job.directory=$run" "job.from=${from[$1]}" "${with[@]}" \
    "data.directory=$output/data/samples" "data.sequence_length=$length" "${given[@]}" ||
    die "$name: fine-tuning stopped (see above). If its settings were changed since it began, start over with --fresh;" \
      "else the same command continues from the last checkpoint"
  if [[ $run/answers.jsonl -nt $run/metrics.jsonl ]] && asked_these "$run"; then
    echo "$run/answers.jsonl: generated before"
  else
    rm -f "$run/answers.jsonl"
    write_whole "$run/questions.sha256" <<<"$(digest "$output/data/validation.jsonl")"
    run_ranks generate "$run" --input "$output/data/validation.jsonl" --output "$run/answers.jsonl" --force \
      --max-tokens $((answer_tokens + 1)) --cut middle
  fi
}

scores() {
  local files=() others=() name
  for name in "${names[@]}"; do
    [[ -f $output/$name/answers.jsonl ]] || continue
    files+=("$name=$output/$name/answers.jsonl")
    if ! tuned_on_these "$output/$name" || ! asked_these "$output/$name"; then others+=("$name"); fi
  done
  ((${#others[@]} == 0)) || die "$(join_by ', ' "${others[@]}"): fine-tuned on, or asked, other samples than those of $output/data;" \
    "run them without --part scores, or remove them from $output"
  ((${#files[@]} > 0)) || die "$output: no model has answers yet; fine-tune one first"
  "$program" score "${files[@]}" --by task "${by[@]}" --json "$output/scores.json" >"$output/scores.md.partial"
  mv "$output/scores.md.partial" "$output/scores.md"
  cat "$output/scores.md"
  echo "scores: $output/scores.md, $output/scores.json"
}

if [[ -z $part || $part == data ]]; then
  phase "data" "samples of the tasks for training and validation"
  make_data
fi
if [[ -z $part || $part == tune ]]; then
  [[ -f $output/data/samples/dataset.json ]] || die "$output/data: holds no samples; make them first (--part data)"
  for number in "${chosen[@]}"; do
    phase "${names[number]}" "fine-tune, generate"
    tune "$number"
  done
fi
if [[ -z $part || $part == scores ]]; then
  phase "scores" "all models that are done"
  scores
fi
