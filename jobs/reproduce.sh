#!/usr/bin/env bash
# The claims of the RAT+ papers in miniature, on real text, by one command.
set -euo pipefail

called_from=$PWD
jobs=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
script=$jobs/reproduce.sh
# shellcheck source=jobs/common.sh
source "$jobs/common.sh"
# Runs go to the repository, or where an installed script was called.
if [[ -e $jobs/../CMakeLists.txt ]]; then cd "$jobs/.."; fi

usage() {
  cat <<'END'
jobs/reproduce.sh - the claims of the RAT+ papers in miniature, on real text, by one command

Usage: jobs/reproduce.sh --scale tiny|small|medium --data DIR [--tokenizer FILE] [option...]
       jobs/reproduce.sh --scale tiny|small|medium --prepared DATASET [option...]
       jobs/reproduce.sh --scale small --plan h100

Prepares text, pretrains models, adapts each to D = 16 and to D = 64, evaluates all of them under many patterns, and ends
with a table, a picture (loss against the size of the cache) and a page. Stop it at any time by Ctrl-C: the same command
resumes, and repeats no finished run.

  --scale NAME      tiny: minutes on a CPU, a check; small: 3 models, minutes on one H100; medium: 12 models, hours on one
  --data DIR        text: .jsonl, .jsonl.gz or .jsonl.zst with a key "text"; files named valid* are held out, or without
                    any 3 % of the documents
  --tokenizer FILE  a tokenizer.json or SentencePiece model; default: one trained on the text
  --prepared DIR    a dataset made by `ratplus prepare` or `ratplus import`, in the place of --data
  --adaptation SHARE[@RATE]  also adapt for SHARE per cent of the pretraining's tokens, from this peak rate (default: the
                    job file's); may be given again: a table of loss by length of adaptation
  --retrieval       also fine-tune all models on needles, by pattern, and score them by number of keys and by distance
  --retrieval-length T  tokens of a sample of needles (default 1024, tiny: 256)
  --retrieval-steps N   dense steps on needles (default: the job file's); an eighth of them by each pattern
  --prose PATH      text around the needles (default: --data)
  --only MODEL      only this model, any of those below; may be given again. The report shows all that are done
  --seed N          seed of the first models (default 1); those named -seed2 have N + 1
  --ranks N         MPI ranks (default 1, without mpirun)
  --gpus N          models side by side, one on each of N GPUs, with --ranks 1; their output goes to OUTPUT/MODEL.log
  --output DIR      directory of all runs (default runs/reproduce-SCALE, in the repository; of an installed script here)
  --tokens N        tokens of pretraining in place of the job file's (300e6); adaptation takes the same share of them
  --steps N         N steps of pretraining and a tenth of adaptation, as a check; in runs/reproduce-SCALE-short
  --set KEY=VALUE   a setting of all jobs, such as model.width=256; may be given again
  --pretraining KEY=VALUE  a setting of the pretraining alone, such as schedule.peak_lr=5e-4; may be given again. job.joint_pattern
                    is of models that take the recipe's own
  --plan GPU        only prints the time that `ratplus plan` expects on one node of --ranks GPUs of this kind
  --part PART       only data, models or report: for batch jobs (jobs/slurm/reproduce_chain.sh)
  --nth N           with --part models: only the Nth of the models, from 0
  --list            print the models, and do nothing
  --check           check all settings and print the models, and do nothing else
  --fresh           start over: removes the runs first
  --help            this text

RATPLUS=/path/to/ratplus names the program (default: build/ratplus of the repository, or the installed one).
Nothing is built or fetched.

Models (docs/reproduction.md):
  ratplus-joint ratplus-dense attention-joint attention-window attention-dense grouped-query rat rnn local interleaved
  ratplus-joint-seed2 attention-joint-seed2 ratplus-joint-f32 ratplus-joint-split
END
}

all_models=(ratplus-joint attention-joint attention-dense ratplus-dense attention-window grouped-query rat rnn local
  interleaved ratplus-joint-seed2 attention-joint-seed2 ratplus-joint-f32 ratplus-joint-split)

# --- Options -----------------------------------------------------------------------------------------------------

command_line=(${RATPLUS:+"RATPLUS=$RATPLUS"} "$0" "$@")
# This command for a model beside others: without --only, --gpus, --fresh and a part.
same=()
arguments=("$@")
for ((i = 0; i < ${#arguments[@]}; ++i)); do
  case ${arguments[i]} in
    --fresh) ;;
    --only | --gpus | --part | --nth) i=$((i + 1)) ;;
    *) same+=("${arguments[i]}") ;;
  esac
done
scale='' text='' tokenizer='' prepared='' run='' plan='' steps='' tokens='' seed=1 ranks=1 gpus=1 fresh=false
retrieval=false retrieval_length='' retrieval_steps='' prose='' part='' nth='' list=false check=false
only=() given=() pretraining=() adaptations=()

absolute() { if [[ $1 == /* ]]; then echo "$1"; else echo "$called_from/$1"; fi; }

while (($# > 0)); do
  case $1 in
    --fresh) fresh=true ;;
    --retrieval) retrieval=true ;;
    --list) list=true ;;
    --check) check=true ;;
    -h | --help) usage && exit ;;
    --scale | --data | --tokens | --tokenizer | --prepared | --only | --seed | --ranks | --gpus | --output | --steps | --set | --plan | \
      --pretraining | --adaptation | --part | --nth | --retrieval-length | --retrieval-steps | --prose)
      [[ -n ${2:-} ]] || die "$1 needs a value"
      case $1 in
        --scale) scale=$2 ;;
        --data) text=$(absolute "$2") ;;
        --tokens) tokens=$2 ;;
        --tokenizer) tokenizer=$(absolute "$2") ;;
        --prepared) prepared=$(absolute "$2") ;;
        --only) if [[ " ${only[*]} " != *" $2 "* ]]; then only+=("$2"); fi ;;
        --seed) seed=$2 ;;
        --ranks) ranks=$2 ;;
        --gpus) gpus=$2 ;;
        --adaptation) adaptations+=("$2") ;;
        --retrieval-length) retrieval_length=$2 ;;
        --retrieval-steps) retrieval_steps=$2 ;;
        --prose) prose=$(absolute "$2") ;;
        --part) part=$2 ;;
        --nth) nth=$2 ;;
        --output) run=$(absolute "$2") ;;
        --steps) steps=$2 ;;
        --set) given+=("$2") ;;
        --pretraining) pretraining+=("$2") ;;
        --plan) plan=$2 ;;
      esac
      shift
      ;;
    *) die "unknown option '$1'; --help lists the known ones" ;;
  esac
  shift
done

case $scale in
  tiny) models=("${all_models[@]:0:3}") ;;
  small) models=("${all_models[@]:0:3}") ;;
  medium) models=("${all_models[@]:0:12}") ;;
  *) die "--scale is tiny, small or medium, not '$scale'" ;;
esac
for number in "$seed" "$ranks" "$gpus" ${steps:+"$steps"} ${retrieval_length:+"$retrieval_length"} \
  ${retrieval_steps:+"$retrieval_steps"}; do
  [[ $number =~ ^[1-9][0-9]{0,6}$ ]] ||
    die "'$number' is no number from 1 on (--seed, --ranks, --gpus, --steps, --retrieval-length, --retrieval-steps)"
done
[[ -z $tokens || $tokens =~ ^[1-9][0-9]*(\.[0-9]+)?(e[0-9]+)?$ ]] || die "--tokens $tokens: give a number of tokens, as 300e6"
[[ -z $tokens || -z $steps ]] || die "--tokens and --steps exclude each other"
sets_length() { [[ $1 =~ ^schedule\.(steps|tokens|epochs)= ]]; }
key_and_value='^[a-z_0-9]+(\.[a-z_0-9]+)+=[^[:blank:]]'
for setting in "${given[@]}"; do
  [[ $setting =~ $key_and_value ]] || die "--set $setting: give SECTION.KEY=VALUE, as model.width=256"
  ! sets_length "$setting" ||
    die "--set $setting: would be of pretraining and adaptation alike; --tokens N sets the length of the pretraining"
  case $setting in
    schedule.*)
      die "--set $setting: would be of pretraining and adaptation alike; --pretraining $setting is of the first, and --adaptation SHARE@RATE sets a rate of the second"
      ;;
    job.seed=*) die "--set $setting: --seed N sets the seeds of all models" ;;
    job.directory=*) die "--set $setting: --output DIR sets the directory of all runs" ;;
    data.directory=* | data.sources*) die "--set $setting: --data or --prepared names the data" ;;
    job.joint_pattern=*) die "--set $setting: --pretraining $setting sets it, for the models that take the recipe's own" ;;
    job.kind=* | job.from=* | job.recipe=* | job.pattern=* | model.mixer* | model.vocab_size=*)
      die "--set $setting: ${setting%%=*} is each model's own; --only MODEL chooses models"
      ;;
    model.layers=* | model.width=* | model.head_dim=* | data.sequence_length=* | data.batch=* | data.micro_batch=*)
      [[ ${setting#*=} =~ ^[1-9][0-9]{0,8}$ ]] || die "--set $setting: give a number from 1 on"
      ;;
  esac
done
for setting in "${pretraining[@]}"; do
  [[ $setting =~ $key_and_value ]] || die "--pretraining $setting: give KEY=VALUE, as schedule.peak_lr=5e-4"
  ! sets_length "$setting" || die "--pretraining $setting: --tokens N sets the length, and the adaptation takes its share"
  case $setting in
    job.joint_pattern=* | schedule.*=* | optimizer.*=* | log.*=* | checkpoint.*=* | data.sampling=*) ;;
    *) die "--pretraining $setting: takes job.joint_pattern, data.sampling and keys of schedule, optimizer, log and checkpoint; --set $setting is of all jobs" ;;
  esac
done
for adaptation in "${adaptations[@]}"; do
  if [[ ! $adaptation =~ ^(0\.[0-9]*[1-9]|[1-9][0-9]*(\.[0-9]*[1-9])?)(@([0-9]+|[0-9]*\.[0-9]+)(e-?[0-9]+)?)?$ || $adaptation == *@0 ||
    $(awk -v a="${adaptation%@*}" 'BEGIN { print (a <= 100) }') == 0 ]]; then
    die "--adaptation $adaptation: give per cent of the pretraining's tokens, at most 100, as 10, or with a peak rate, as 10@3e-4"
  fi
done
((ranks == 1 || gpus == 1)) || die "--ranks $ranks and --gpus $gpus exclude each other: a model takes ranks, or models go side by side"
if ((${#only[@]} > 0)); then
  for model in "${only[@]}"; do
    [[ " ${all_models[*]} " == *" $model "* ]] || die "--only $model: there is no such model; choose of ${all_models[*]}"
  done
  models=("${only[@]}")
fi
[[ -z $part || $part =~ ^(data|models|report)$ ]] || die "--part is data, models or report, not '$part'"
if [[ -n $nth ]]; then
  if [[ $part != models || ! $nth =~ ^(0|[1-9][0-9]{0,3})$ ]] || ((nth >= ${#models[@]})); then
    die "--nth $nth: give a number from 0 to $((${#models[@]} - 1)), with --part models"
  fi
  models=("${models[nth]}")
fi
of_command=("${models[@]}")
if [[ -z $plan ]]; then
  $list || [[ -n $text || -n $prepared ]] || die "give text with --data DIR, or a dataset with --prepared DIR"
  [[ -z $text || -z $prepared ]] || die "--data and --prepared exclude each other"
  [[ -z $text || -d $text ]] || die "--data $text: is no directory"
  [[ -z $tokenizer || -f $tokenizer ]] || die "--tokenizer $tokenizer: is no file"
  [[ -z $prepared || -f $prepared/dataset.json ]] || die "--prepared $prepared: holds no dataset.json"
  if $retrieval; then
    : "${prose:=$text}"
    $list || [[ -n $prose ]] || die "--retrieval needs text around the needles; give --prose PATH"
    [[ -z $prose || -e $prose ]] || die "--prose $prose: does not exist"
  fi
fi
if $list; then printf '%s\n' "${models[@]}" && exit; fi
if [[ -n ${RATPLUS:-} ]]; then RATPLUS=$(absolute "$RATPLUS"); fi
program=$(find_program "$jobs") || exit

: "${run:=$PWD/runs/reproduce-$scale${steps:+-short}}"
data=${prepared:-$run/data}

# --- Models ------------------------------------------------------------------------------------------------------

# given_value KEY: prints the number of the last --set SECTION.KEY=NUMBER; nothing without one.
given_value() { printf '%s\n' "${given[@]}" | sed -n "s/^[a-z]*\.$1=\([0-9]*\)$/\1/p" | tail -n 1; }
# Sizes of the scale, as its job file has them, or a --set of all jobs.
job_value() {
  local value
  value=$(given_value "$1")
  if [[ -n $value ]]; then
    echo "$value"
  else
    sed -n "s/^$1 = \([0-9]*\).*/\1/p" "$jobs/../configs/reproduce/$scale.toml"
  fi
}
length=$(job_value sequence_length)
heads=$(($(job_value width) / $(job_value head_dim)))
((heads * $(job_value head_dim) == $(job_value width))) ||
  die "model.width $(job_value width) is no multiple of model.head_dim $(job_value head_dim): --set both"
if [[ -z $retrieval_length ]]; then
  retrieval_length=$(sed -n 's/^sequence_length = //p' "$jobs/../configs/reproduce/retrieval-$scale.toml")
fi
layers=$(job_value layers)
seed_of() { if [[ $1 == *-seed2 ]]; then echo $((seed + 1)); else echo "$seed"; fi; }

# Sequences of a micro-batch, half as many as the other models have.
half_micro_batch() {
  local micro of_rank=$(($(job_value batch) / ranks))
  micro=$(job_value micro_batch)
  if ((micro > of_rank)); then micro=$of_rank; fi
  ((micro > 1 && micro % 2 == 0)) || die "ratplus-joint-split: micro-batches of $micro cannot be halved; give an even number of" \
    "sequences (--set data.micro_batch=N), and at least as many to a rank (data.batch, --ranks)"
  echo $((micro / 2))
}

local_mixer="{ kind = \"local_attention\", window = $((length / 4)) }"

# settings_of MODEL: the array `settings`, in which the model differs from the scale's job file.
settings_of() {
  settings=("job.seed=$(seed_of "$1")")
  case ${1%-seed2} in
    ratplus-joint) ;;
    ratplus-joint-f32) settings+=(job.precision=f32) ;;
    ratplus-joint-split) settings+=("data.micro_batch=$(half_micro_batch)") ;;
    ratplus-dense) settings+=(job.recipe=plain) ;;
    attention-joint) settings+=(model.mixer=gated_attention) ;;
    attention-window) settings+=(model.mixer=gated_attention "job.joint_pattern=none,64,0") ;;
    attention-dense) settings+=(model.mixer=gated_attention job.recipe=plain) ;;
    grouped-query)
      settings+=(model.mixer=gated_attention "model.kv_heads=$((heads >= 4 ? heads / 4 : 1))" job.recipe=plain)
      ;;
    rat) settings+=('model.mixer={ kind = "rat", chunk = 16, groups = 2 }' job.recipe=plain) ;;
    rnn) settings+=("model.mixer={ kind = \"rnn\", memory = $length }" job.recipe=plain) ;;
    local) settings+=("model.mixer=$local_mixer" job.recipe=plain) ;;
    interleaved)
      settings+=("model.mixer={ global = \"attention\", local = $local_mixer, every = 2 }" job.recipe=plain)
      ;;
  esac
  if ! takes_patterns "$1"; then settings+=('log.validation_patterns=["dense"]'); fi
}

# Models whose layers all take patterns; the others are evaluated as they are.
takes_patterns() { [[ ! $1 =~ ^(rat|rnn|local|interleaved)$ ]]; }

# What all jobs of this command share.
shared_settings() {
  shared=("data.directory=$data")
  if [[ -f $data/dataset.json ]]; then
    shared+=("model.vocab_size=$(sed -n 's/.*"vocab_size": \([0-9]*\).*/\1/p' "$data/dataset.json")")
  fi
  local batch micro
  batch=$(job_value batch) micro=$(job_value micro_batch)
  if ((ranks > 1)); then
    ((batch % ranks == 0)) || die "--ranks $ranks: the batch of $batch sequences is not divisible by it"
    shared+=("data.micro_batch=$((batch / ranks < micro ? batch / ranks : micro))")
  fi
  shared+=("${given[@]}")
}

# pretrain_settings MODEL, adapt_settings MODEL D [SHARE[@RATE]]: the array `all`, everything that --set takes.
pretrain_settings() {
  settings_of "$1"
  all=("${shared[@]}" "${settings[@]}")
  local setting
  for setting in "${pretraining[@]}"; do # but what a model has not, or has of its own
    case $setting in
      job.joint_pattern=*) [[ " ${settings[*]}" != *" job.recipe=plain"* && " ${settings[*]}" != *" job.joint_pattern="* ]] || continue ;;
      log.validation_patterns=*) takes_patterns "$1" || continue ;;
    esac
    all+=("$setting")
  done
  all+=("job.directory=$run/$1" ${steps:+"schedule.steps=$steps"} ${tokens:+"schedule.steps=$(pretraining_steps)"})
}
adapt_settings() {
  settings_of "$1"
  all=("${shared[@]}")
  local setting
  for setting in "${settings[@]}"; do # the recipe of adaptation is its own
    case $setting in job.recipe=* | job.joint_pattern=*) ;; *) all+=("$setting") ;; esac
  done
  all+=("job.directory=$run/$(adapted_name "$@")" "job.from=$run/$1" "job.pattern=$2,0,4")
  local count=${steps:+$(((steps + 9) / 10))}
  local share=${3:-}
  if [[ -z $share && -n $tokens ]]; then share=$([[ $scale == tiny ]] && echo 5 || echo 1); fi
  if [[ -n $share ]]; then
    count=$(awk -v s="${share%@*}" -v n="${steps:-$(pretraining_steps)}" 'BEGIN { c = int(s / 100 * n + 0.5); print (c < 1 ? 1 : c) }')
    if [[ $share == *@* ]]; then all+=("schedule.peak_lr=${share#*@}"); fi
  fi
  if [[ -n $count ]]; then all+=("schedule.steps=$count"); fi
}

# adapted_name MODEL D [SHARE[@RATE]]: of the run.
adapted_name() {
  local name=$1-d$2
  if [[ -n ${3:-} ]]; then name+=-${3%@*}pc; fi
  if [[ ${3:-} == *@* ]]; then name+=-${3#*@}; fi
  echo "$name"
}

# Of --tokens, or else of the scale's job file.
pretraining_steps() {
  if [[ -n $tokens ]]; then echo "tokens = $tokens"; else cat "$jobs/../configs/reproduce/$scale.toml"; fi | awk -v batch="$(job_value batch)" -v tokens="$length" '
    /^tokens = / { n = $3 / (batch * tokens); print (n > int(n) ? int(n) + 1 : n); exit }
    /^steps = / { print $3; exit }
  '
}

# Retrieval: runs are retrieval-T/MODEL-dense and, from it, one a pattern. The window has the cache of D = 16.
needles=$run/retrieval-$retrieval_length
window=$((retrieval_length / 16))
retrieval_patterns=("4,0,4" "16,0,4" "64,0,4" "16,$window,4" "64,$window,4" "none,$window,4")
pattern_name() { echo "d${1//,/-}" | sed 's/^dnone-\(.*\)-\(.*\)/w\1-i\2/; s/^\(d[0-9]*\)-\([0-9]*\)-\([0-9]*\)/\1-w\2-i\3/'; }

# retrieval_settings MODEL [PATTERN]: the array `all`; without a pattern densely, from the pretrained weights.
retrieval_settings() {
  adapt_settings "$1" 16
  local kept=() setting count
  for setting in "${all[@]}"; do
    case $setting in
      job.precision=*) kept+=("$setting") ;;
      data.directory=* | data.sequence_length=* | data.batch=* | data.micro_batch=* | job.* | schedule.* | log.validation_patterns=*) ;;
      *) kept+=("$setting") ;;
    esac
  done
  all=("${kept[@]}" "job.seed=$(seed_of "$1")" "data.directory=$needles/data/samples" "data.sequence_length=$retrieval_length")
  count=$(sed -n 's/^steps = //p' "$jobs/../configs/reproduce/retrieval-$scale.toml")
  count=${retrieval_steps:-${steps:-$count}}
  if takes_patterns "$1"; then all+=("job.pattern=${2:-dense}"); fi
  if [[ -z ${2:-} ]]; then
    all+=("job.directory=$needles/$1-dense" "job.from=$run/$1" "schedule.steps=$count")
  else
    local rate
    rate=$(sed -n 's/^peak_lr = //p' "$jobs/../configs/reproduce/retrieval-$scale.toml")
    all+=("job.directory=$needles/$1-$(pattern_name "$2")" "job.from=$needles/$1-dense" "schedule.steps=$(((count + 7) / 8))"
      "schedule.peak_lr=$(awk -v r="$rate" 'BEGIN { print r / 3 }')")
  fi
  # As many tokens in a micro-batch, whatever their length.
  local batch micro usual
  batch=$(sed -n 's/^batch = //p' "$jobs/../configs/reproduce/retrieval-$scale.toml")
  micro=$(sed -n 's/^micro_batch = //p' "$jobs/../configs/reproduce/retrieval-$scale.toml")
  usual=$(sed -n 's/^sequence_length = //p' "$jobs/../configs/reproduce/retrieval-$scale.toml")
  ((batch % ranks == 0)) || die "--ranks $ranks: the batch of $batch samples of needles is not divisible by it"
  while ((micro > 1 && (micro * retrieval_length > batch * usual || micro > batch / ranks))); do micro=$((micro / 2)); done
  all+=("data.micro_batch=$micro")
  for setting in "${given[@]}"; do # but sizes of samples, which are the job file's
    case $setting in data.sequence_length=* | data.batch=*) ;; *) all+=("$setting") ;; esac
  done
}

# --- The time that is expected -----------------------------------------------------------------------------------

# planned JOB: seconds of training by `ratplus plan` with the settings `all`.
planned() {
  local file seconds
  file=$(mktemp)
  "$program" plan "$jobs/../configs/reproduce/$1.toml" --nodes 1 --gpus-per-node "$ranks" --gpu "$plan" \
    --set "${all[@]}" job.device=cuda --json "$file" >/dev/null || die "ratplus plan failed for configs/reproduce/$1.toml (see above)"
  seconds=$(sed -n 's/^ "seconds": \([0-9.e+-]*\),*$/\1/p' "$file")
  rm -f "$file"
  echo "$seconds"
}

print_plan() {
  local model dilation pattern seconds sum=0
  printf 'Training on %s x %s, by ratplus plan:\n' "$ranks" "$plan"
  for model in "${models[@]}"; do
    pretrain_settings "$model"
    seconds=$(planned "$scale")
    if takes_patterns "$model"; then
      for dilation in 16 64; do
        for adaptation in '' "${adaptations[@]}"; do
          adapt_settings "$model" "$dilation" "$adaptation"
          seconds=$(awk -v a="$seconds" -v b="$(planned "adapt-$scale")" 'BEGIN { print a + b }')
        done
      done
    fi
    if $retrieval; then
      for pattern in '' "${retrieval_patterns[@]}"; do
        [[ -z $pattern ]] || takes_patterns "$model" || continue
        retrieval_settings "$model" "$pattern"
        seconds=$(awk -v a="$seconds" -v b="$(planned "retrieval-$scale")" 'BEGIN { print a + b }')
      done
    fi
    sum=$(awk -v a="$sum" -v b="$seconds" 'BEGIN { print a + b }')
    printf '  %-24s %6.1f min\n' "$model" "$(awk -v s="$seconds" 'BEGIN { print s / 60 }')"
  done
  printf '  %-24s %6.1f min, and some seconds a run to start and to evaluate\n' "in all" \
    "$(awk -v s="$sum" 'BEGIN { print s / 60 }')"
}

# The kind of this machine's GPU as plan knows it; empty: none, or another.
gpu_kind() {
  command -v nvidia-smi >/dev/null || return 0
  case $(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) in
    *H100*) echo h100 ;;
    *H200*) echo h200 ;;
    *B200*) echo b200 ;;
    *A100*40GB*) echo a100-40gb ;;
    *A100*) echo a100 ;;
  esac
}

if [[ -n $plan ]]; then
  shared_settings
  print_plan
  exit
fi

# --- What an output was begun with -----------------------------------------------------------------------------------

# of_results: those of the arguments KEY=VALUE that change results, the last of a key, in order.
of_results() {
  printf '%s\n' "$@" | awk -F= '
    !NF || /^(log|checkpoint|health)\./ || (/^parallel\./ && $1 != "parallel.reduce") { next }
    /^(job\.(device|deterministic|recompute|threads)|data\.(micro_batch|prefetch))=/ { next }
    { last[$1] = $0 }
    END { for (key in last) print last[key] }
  ' | LC_ALL=C sort
}

# What a table compares is to be of one scale, seed, length, data and settings, whichever command made it. A line each.
results_are_of() {
  echo "--scale $scale"
  echo "--seed $seed"
  if [[ -n $steps ]]; then echo "--steps $steps"; fi
  if [[ -n $tokens ]]; then echo "--tokens $tokens"; fi
  if [[ $data -ef $run/data || ! -e $data ]]; then
    echo "--data" # ratplus prepare sees to it that it stays the same
  else
    echo "--prepared with dataset.json of sha256 $(sha256sum <"$data/dataset.json" | cut -c 1-16)"
  fi
  of_results "${given[@]}" | sed 's/^/--set /'
  of_results "${pretraining[@]}" | sed 's/^/--pretraining /'
}
needles_are_of() {
  echo "--prose with names and sizes of sha256 $(find -L "$prose" -type f -printf '%P %s\n' | LC_ALL=C sort | sha256sum | cut -c 1-16)"
  if [[ -n $retrieval_steps ]]; then echo "--retrieval-steps $retrieval_steps"; fi
}

# same_as_begun FILE, lines on stdin: keeps them in FILE at the first time; later they have to be the same.
same_as_begun() {
  local lines mine
  lines=$(cat)
  if [[ ! -e $1 ]]; then
    mine=$(mktemp "$1.XXXXXX")
    printf '%s\n' "$lines" >"$mine"
    chmod "$(printf '%o' $((0666 & ~8#$(umask))))" "$mine"
    ln "$mine" "$1" 2>/dev/null || [[ -e $1 ]] || cp "$mine" "$1" # of several tasks the first; some file systems have no links
    rm -f "$mine"
  fi
  [[ -r $1 ]] || die "$1: cannot be read; ask its owner for leave, or name another --output"
  if ! cmp -s "$1" <(printf '%s\n' "$lines"); then
    diff "$1" <(printf '%s\n' "$lines") | sed -n "s/^</  begun with: /p; s/^>/  given now:  /p" >&2 || true
    die "$(dirname "$1") was begun with other settings ($1; differences above), and its table would mix both:" \
      "give the same, or another --output for these, or --fresh to start over"
  fi
}

# Settings are read by ratplus before anything is made.
check_settings() {
  local model
  take() { # JOB
    "$program" train "$jobs/../configs/reproduce/$1.toml" --set "${all[@]}" --print-config >/dev/null ||
      die "a setting is not taken (see above)"
  }
  for model in "${models[@]}"; do
    pretrain_settings "$model"
    take "$scale"
    if takes_patterns "$model"; then
      for adaptation in '' "${adaptations[@]}"; do
        adapt_settings "$model" 16 "$adaptation"
        take "adapt-$scale"
      done
    fi
    if $retrieval; then
      retrieval_settings "$model"
      take "retrieval-$scale"
    fi
  done
}

# Removes what this script makes, and nothing else.
start_over() {
  local own=() model inputs=("$text" "$prepared" "$tokenizer" "$prose" "$program")
  [[ -e $run ]] || return 0
  local metrics=("${all_models[@]/%//metrics.jsonl}")
  [[ -e $run/settings.txt || -e $run/tradeoff.json || -n $(cd "$run" && ls -d "${metrics[@]}" 2>/dev/null) || -z $(ls -A "$run") ]] ||
    die "--fresh: $run is not empty, and not of this script; remove it yourself, or name another --output"
  for model in "${all_models[@]}"; do
    own+=("$run/$model" "$run/$model.log" "$run/$model"-d{16,64} "$run/$model"-d{16,64}-*pc*)
  done
  own+=("$run/data" "$run/parts" "$run"/retrieval-[0-9]* "$run/settings.txt" "$run"/tradeoff.* "$run/report.html" "$run/.starts-in-vain"
    "$run"/.task-[0-9]*)
  remove_made "${own[@]}"
}

# --- Steps -------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2034 # of phases.sh
alone=true
case $part in
  '') phases=$((${#models[@]} + 2)) ;;
  models) phases=${#models[@]} ;;
  *) phases=1 ;;
esac
# shellcheck source=jobs/phases.sh
source "$jobs/phases.sh"

mpi_environment
progress_environment
shared_settings
if [[ $part != report ]]; then check_settings; fi
if $check; then # for a chain of jobs
  if ! $fresh && [[ -e $run/settings.txt ]]; then results_are_of | same_as_begun "$run/settings.txt"; fi
  printf '%s\n' "${models[@]}"
  exit
fi
mkdir -p "$run" || die "--output $run: the directory cannot be made (see above)"
# Commands side by side, and what they have started, share the output; --fresh has it alone. Where there are no locks, it goes without.
exec {output}<"$run"
lock_output() { # OPTION MESSAGE
  local status=0
  if ! command -v flock >/dev/null; then return; fi
  flock --nonblock --conflict-exit-code 75 "$1" "$output" 2>/dev/null || status=$?
  ((status != 75)) || die "$run: $2"
}
if $fresh && [[ -z $part || $part == data ]]; then
  lock_output --exclusive "another command is at work there, and --fresh would remove its runs; end it first, or name another --output"
  start_over
fi
lock_output --shared "another command is starting over there; wait for it, or name another --output"
results_are_of | same_as_begun "$run/settings.txt"
if $retrieval; then
  mkdir -p "$needles"
  needles_are_of | same_as_begun "$needles/settings.txt"
fi

# The text's files whose names begin with valid ("held-out"), or the others ("training").
text_files() {
  local files=()
  mapfile -t files < <(find -L "$text" -type f \( -name '*.jsonl' -o -name '*.jsonl.gz' -o -name '*.jsonl.zst' \) | sort)
  local file
  for file in "${files[@]}"; do
    if [[ $(basename "$file") == valid* ]]; then [[ $1 == held-out ]] && echo "$file"; else [[ $1 == training ]] && echo "$file"; fi
  done
  return 0
}

# A program of one rank, which a signal ends in order.
by_one() {
  local ranks=1
  run_ranks "$@"
}

not_prepared() { # PATHS [REMARK]
  die "$1: not prepared (see above). The same command goes on after an interruption; text or a tokenizer that has changed is" \
    "prepared anew with --fresh, or in another --output.${2:+ $2}"
}

prepare() {
  local training=() held_out=() by
  mapfile -t training < <(text_files training)
  mapfile -t held_out < <(text_files held-out)
  ((${#training[@]} > 0)) || die "--data $text: holds no training text (.jsonl, .jsonl.gz or .jsonl.zst not named valid*)"
  by=(--train-tokenizer --vocab-size "$(job_value vocab_size)")
  if [[ -n $tokenizer ]]; then by=(--tokenizer "$tokenizer"); fi
  if ((${#held_out[@]} == 0)); then
    by_one prepare "${training[@]}" --output "$data" "${by[@]}" --validation-fraction 0.03 ||
      not_prepared "$text" "Documents of a file named valid*.jsonl are held out, and without such a file 3 % of all"
    return
  fi
  # Each part as a dataset of its own, then both as one.
  echo "held out: ${held_out[*]}"
  by_one prepare "${training[@]}" --output "$run/parts/training" "${by[@]}" --validation-fraction 0 ||
    not_prepared "${training[*]}"
  by=(--tokenizer "$(find "$run/parts/training" -name 'tokenizer.*')")
  by_one prepare "${held_out[@]}" --output "$run/parts/held-out" "${by[@]}" --validation-fraction 0 ||
    not_prepared "${held_out[*]}"
  if [[ $data/dataset.json -nt $run/parts/training/dataset.json && $data/dataset.json -nt $run/parts/held-out/dataset.json ]]; then
    return
  fi
  local validation=() shard
  for shard in "$run"/parts/held-out/train-*.h5; do validation+=(--validation "$shard"); done
  by_one import "$run"/parts/training/train-*.h5 "${validation[@]}" --dataset tokens --output "$data" "${by[@]}" --force
}

# train JOB RUN: with the settings `all`.
train() {
  run_ranks train "$jobs/../configs/reproduce/$1.toml" --resume --set "${all[@]}" ||
    die "$2: training stopped (see above); the same command continues from its last checkpoint. With other settings, name" \
      "another --output, or start over with --fresh"
}

# A quarter of the layers, or of each layer's heads, dense (at least one), the others at D = 64. Of layers the last of every four.
hybrid_layers() {
  local all=() i
  for ((i = 1; i <= layers; ++i)); do
    if ((i % 4 == 0 || (layers < 4 && i == layers))); then all+=('"dense"'); else all+=('"64,0,4"'); fi
  done
  (IFS=, && echo "[${all[*]}]")
}
hybrid_heads() {
  local all=() i
  for ((i = 0; i < heads; ++i)); do
    if ((i == 0 || i < heads / 4)); then all+=('"dense"'); else all+=('"64,0,4"'); fi
  done
  (IFS=, && echo "[[${all[*]}]]")
}

# evaluation_of MODEL: the array `options`, of ratplus eval for its runs.
evaluation_of() {
  options=(--pattern dense)
  if takes_patterns "$1"; then
    options+=("2,0,4" "4,0,4" "8,0,4" "16,0,4" "32,0,4" "64,0,4" "16,$((length / 16)),4" "none,$((length / 16)),0"
      "$(hybrid_layers)" "$(hybrid_heads)")
  fi
  options+=(--by-position 8)
  if [[ -n $steps ]]; then
    options+=(--sequences 2)
  elif [[ $scale == tiny ]]; then
    options+=(--sequences 64)
  fi
}

# evaluation_record MODEL RUN: prints options, weights, data and checksum of the run's evaluation. Without weights, as where only
# small files were kept, it repeats the recorded ones.
evaluation_record() {
  local weights
  weights=$(cd "$2" && find checkpoints -maxdepth 1 -name 'step-*' ! -name '*.*' 2>/dev/null | sort -V | tail -n 1)
  if [[ -z $weights && -e $2/evaluation.txt ]]; then weights=$(sed -n 2p "$2/evaluation.txt"); fi
  evaluation_of "$1"
  printf 'eval %s\n%s\n' "${options[*]}" "$weights"
  sha256sum <"$data/dataset.json"
  sha256sum <"$2/evaluation.json"
}
# Of versions that kept no record, an evaluation is taken as it is.
evaluated_as_asked() { # MODEL RUN
  if [[ ! -e $2/evaluation.txt ]]; then
    evaluated "$2"
  else
    [[ -e $2/evaluation.json ]] && cmp -s <(evaluation_record "$@") "$2/evaluation.txt"
  fi
}

evaluate() { # MODEL RUN
  local directory=$run/$2
  if evaluated_as_asked "$1" "$directory"; then
    echo "$directory: evaluated already"
  else
    evaluation_of "$1"
    run_ranks eval "$directory" --data "$data" "${options[@]}" --json "$directory/evaluation.json" ||
      die "$directory: not evaluated (see above); the same command goes on from here"
    evaluation_record "$1" "$directory" >"$directory/evaluation.txt"
  fi
}

# Speeds of generation, which stand in the report beside the losses. Only a report goes without them where they cannot be measured.
# Models for the comparison of precisions are there for their losses alone.
time_generation() {
  if [[ $1 == *-f32 || $1 == *-split ]]; then return; fi
  local patterns=() batches=(1 64)
  if takes_patterns "$1"; then patterns=(--pattern dense "16,0,4" "64,0,4" "16,$((length / 16)),4"); fi
  if [[ $scale != tiny && -z $steps ]]; then batches+=(max); fi
  if [[ $run/$1/generation.json -nt $run/$1/metrics.jsonl ]]; then
    echo "$run/$1: generation timed already"
  else
    by_one bench generate "$run/$1" --lengths "$length" --batches "${batches[@]}" "${patterns[@]}" --json "$run/$1/generation.json" ||
      echo "$run/$1: generation was not timed (see above); the report goes without its speeds" >&2
  fi
}

# Needles in few words, which small models learn: "The number of river is 48.", with 1, 4, 16 keys in prose, and with nothing but
# needles. A sample for training asks for up to 64 keys of its text, one after the other: few answers a sample teach slowly.
make_needles() {
  local options=("$prose" --tokenizer "$(find "$data" -maxdepth 1 -name 'tokenizer.*')" --sequence-length "$retrieval_length"
    --wording brief --digits 2 --key-words 1 --answer-tokens 8 --task "1-key=essay,words,numbers,1,1,1"
    --task "4-keys=essay,words,numbers,4,1,1" --task "needles=needle,words,numbers,1,1,1")
  local lines=6000 asked=250 questions=64
  if [[ $scale == tiny ]]; then
    lines=500 asked=25 questions=4
  else
    options+=(--task "16-keys=essay,words,numbers,16,1,1")
  fi
  if [[ -n $steps ]]; then lines=50 asked=2; fi
  no_needles() {
    die "no needles in $needles/data (see above); --retrieval-length T sets the tokens of a sample, --prose PATH the text"
  }
  # Here alone, since all of the text is read for it; its names and sizes are compared by every part.
  mkdir -p "$needles/data"
  if [[ -d $prose ]]; then
    (cd "$prose" && find -L . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  else
    sha256sum <"$prose"
  fi | sha256sum | sed 's/^\(.\{16\}\).*/--prose with contents of sha256 \1/' | same_as_begun "$needles/data/prose.txt"
  [[ -f $needles/data/validation.jsonl ]] ||
    by_one needles "${options[@]}" --samples "$asked" --output "$needles/data/validation.jsonl" || no_needles
  [[ -f $needles/data/samples/dataset.json ]] && return
  by_one needles "${options[@]}" --samples "$lines" --subset train --seed 1042 --questions "$questions" --format samples --force \
    --output "$needles/data/train.jsonl" || no_needles
  by_one samples "$needles/data/train.jsonl" --output "$needles/data/samples" --sequence-length "$retrieval_length" \
    --tokenizer "$(find "$data" -maxdepth 1 -name 'tokenizer.*')" --pad --validation-fraction 0.02 || no_needles
  rm -f "$needles/data/train.jsonl"
}

# retrieve MODEL [PATTERN]: fine-tunes on needles, and answers.
retrieve() {
  retrieval_settings "$@"
  local tuned=$needles/$1-${2:+$(pattern_name "$2")}
  if [[ -z ${2:-} ]]; then tuned+=dense; fi
  train "retrieval-$scale" "$tuned"
  if [[ $tuned/answers.jsonl -nt $tuned/metrics.jsonl ]]; then
    echo "$tuned: answered already"
  else
    run_ranks generate "$tuned" --input "$needles/data/validation.jsonl" --output "$tuned/answers.jsonl" --max-tokens 8 --force ||
      die "$tuned: gave no answers (see above); the same command goes on from here"
  fi
}

# Answers that are the references whole, of all models that are done.
retrieval_table() {
  local answered=() model pattern
  for model in "${all_models[@]}"; do
    for pattern in dense "${retrieval_patterns[@]}"; do
      local name=$model-$pattern
      if [[ $pattern != dense ]]; then name=$model-$(pattern_name "$pattern"); fi
      if [[ -f $needles/$name/answers.jsonl ]]; then answered+=("$name=$needles/$name/answers.jsonl"); fi
    done
  done
  ((${#answered[@]} > 0)) || return 0
  "$program" score "${answered[@]}" --score whole --by task --by "distance:$window,$((4 * window)),$((8 * window))" \
    --json "$needles/retrieval.json" | tee "$needles/retrieval.md"
}

# Models side by side, one on each GPU.
side_by_side() {
  local -A gpu_of=() model_of=()
  local free=() model pid failed=() visible=()
  IFS=, read -ra visible <<<"${CUDA_VISIBLE_DEVICES-$(seq -s, 0 $((gpus - 1)))}"
  # An empty list hides all GPUs: models side by side on the CPU.
  ((${#visible[@]} == 0 || ${#visible[@]} >= gpus)) || die "--gpus $gpus: CUDA_VISIBLE_DEVICES names ${#visible[@]}"
  mapfile -t free < <(seq 0 $((gpus - 1)))
  stop_all() {
    local before=$interrupted
    interrupted=true
    kill -TERM "${!model_of[@]}" 2>/dev/null || true
    $before ||
      printf '\nstopping: all models finish their step and save first; Ctrl-C once more stops them at once\n' >&2 || true
  }
  trap stop_all INT TERM HUP
  ended() { # PID STATUS
    if (($2 != 0)); then failed+=("${model_of[$1]} ($run/${model_of[$1]}.log)"); fi
    echo "${model_of[$1]}: ended with status $2 after $(clock "$SECONDS")" || true
    free+=("${gpu_of[$1]}")
    unset "gpu_of[$1]" "model_of[$1]"
  }
  wait_for_one() {
    local status=0 done_pid='' one
    wait -n -p done_pid "${!model_of[@]}" 2>/dev/null || status=$?
    if [[ -n ${done_pid:-} ]]; then ended "$done_pid" "$status" && return; fi
    # A signal ends the wait, and unsets done_pid; a model that has ended at this moment is not found by -n again.
    for one in "${!model_of[@]}"; do
      if kill -0 "$one" 2>/dev/null; then continue; fi
      status=0
      wait "$one" 2>/dev/null || status=$?
      ended "$one" "$status"
    done
  }
  for model in "${models[@]}"; do
    while ((${#free[@]} == 0)) && ! $interrupted; do wait_for_one; done
    if $interrupted; then break; fi
    set -m # of its own process group, which a terminal's Ctrl-C does not reach
    (cd "$called_from" && CUDA_VISIBLE_DEVICES=${visible[free[0]]-} exec "$script" "${same[@]}" --only "$model" --part models) \
      >"$run/$model.log" 2>&1 </dev/null &
    pid=$!
    set +m
    gpu_of[$pid]=${free[0]} model_of[$pid]=$model
    free=("${free[@]:1}")
    if $interrupted; then kill -TERM "$pid" 2>/dev/null || true; fi # told the others just now
    echo "$model: on GPU ${visible[gpu_of[$pid]]-${gpu_of[$pid]}}, output in $run/$model.log" || true
  done
  while ((${#model_of[@]} > 0)); do wait_for_one; done
  trap on_interrupt INT TERM HUP
  if $interrupted; then stopped; fi
  ((${#failed[@]} == 0)) || die "these models failed: ${failed[*]}"
}

if [[ -z $part || $part == data ]]; then
  phase "prepare" "text as shards of tokens"
  if [[ -n $prepared ]]; then echo "$data: prepared before"; else prepare; fi
fi
[[ -f $data/dataset.json ]] || die "$data: holds no dataset; make it first (--part data)"
shared_settings # with the dataset's vocabulary
if [[ -z $part || $part == data ]]; then
  if [[ $scale != tiny || " ${given[*]} " == *" job.device=cuda "* ]]; then plan=$(gpu_kind); fi
  if [[ -n $plan ]]; then print_plan; fi
  if $retrieval; then make_needles; fi
fi
if [[ $part == data ]]; then exit; fi

if [[ $part == report ]]; then
  models=()
elif ((gpus > 1)); then
  phase "${models[*]}" "on $gpus GPUs side by side"
  side_by_side
  models=()
fi
for model in "${models[@]}"; do
  phase "$model" "pretrain, adapt, evaluate"
  pretrain_settings "$model"
  train "$scale" "$run/$model"
  evaluate "$model" "$model"
  time_generation "$model"
  if $retrieval; then
    retrieve "$model"
    if takes_patterns "$model"; then
      for pattern in "${retrieval_patterns[@]}"; do retrieve "$model" "$pattern"; done
    fi
  fi
  takes_patterns "$model" || continue
  for dilation in 16 64; do
    for adaptation in '' "${adaptations[@]}"; do
      name=$(adapted_name "$model" "$dilation" "$adaptation")
      adapt_settings "$model" "$dilation" "$adaptation"
      train "adapt-$scale" "$run/$name"
      evaluate "$model" "$name"
    done
  done
done
if [[ $part == models ]]; then exit; fi

phase "report" "all models that are done"
done_runs=() left_out=()
for model in "${all_models[@]}"; do
  if ! evaluated_as_asked "$model" "$run/$model"; then
    if [[ " ${of_command[*]} " == *" $model "* || -e $run/$model ]]; then left_out+=("$model"); fi
    continue
  fi
  done_runs+=("$run/$model")
  # The adaptation of the job file before those of other lengths.
  for directory in "$run/$model-d16" "$run/$model-d64" "$run/$model"-d{16,64}-*pc*; do
    if evaluated_as_asked "$model" "$directory"; then
      done_runs+=("$directory")
    elif [[ -e $directory || $directory == "$run/$model"-d+([0-9]) ]] && takes_patterns "$model"; then
      left_out+=("${directory##*/}")
    fi
  done
done
((${#done_runs[@]} > 0)) || die "$run: no model has been evaluated as these settings ask; run --part models first, or name another --output"
# It prints paths as seen from where the command was given.
(cd "$called_from" && "$program" report --tradeoff "${done_runs[@]}" --output "$run")
if ((${#left_out[@]} > 0)); then
  printf 'left out, since not trained and evaluated to the end by these settings: %s\n' "${left_out[*]}"
fi
if $retrieval; then
  printf '\nRetrieval: answers that are right as a whole, by task and by the distance of the needle in tokens\n\n'
  retrieval_table
fi
printf '\nDone in %s, on the text of %s:\n' "$(clock "$SECONDS")" "${text:-$prepared}"
"$program" inspect "$data" | grep -E '^(train|validation) '
