#!/usr/bin/env bash
# Serves a model on a free port and evaluates it by lm-evaluation-harness.
set -euo pipefail

jobs=$(realpath "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/..")
# shellcheck source=jobs/common.sh
source "$jobs/common.sh"

usage() {
  cat <<'END'
jobs/evaluate/commonsense.sh - piqa, arc_easy, arc_challenge, winogrande, lambada_openai and hellaswag, zero-shot

Usage: jobs/evaluate/commonsense.sh CHECKPOINT [--tasks A,B,...] [--include DIR] [--output DIR] [option of ratplus serve]...

  CHECKPOINT     a checkpoint, a run, a .pth file or safetensors
  --tasks A,B    other tasks of the harness
  --include DIR  a directory with task files of your own (the harness's --include_path)
  --output DIR   where the harness puts results and samples; default: it prints its table alone
  --help         this text

Starts `ratplus serve CHECKPOINT --port 0`, runs the installed lm_eval (pip install "lm-eval[api]") against it, prints its table and
the means of all tasks beside the papers', and ends the server. Several --pattern are evaluated one after another, of the same
weights. A model is evaluated whole or not at all: after Ctrl-C, results of the models before are in --output.

Environment:
  RATPLUS      the program; default: build/ratplus of this repository, or the installed one
  LM_EVAL      the harness; default: lm_eval
  CONCURRENT   requests at a time; default: 8
END
}

lm_eval=${LM_EVAL:-lm_eval}
tasks=piqa,arc_easy,arc_challenge,winogrande,lambada_openai,hellaswag
checkpoint="" output=""
harness=()
serve=()
while (($# > 0)); do
  case $1 in
    -h | --help) usage && exit ;;
    --tasks | --include | --output)
      [[ -n ${2:-} ]] || die "$1 needs a value"
      case $1 in
        --tasks) tasks=$2 ;;
        --include) harness+=(--include_path "$2") ;;
        --output) output=$2 && harness+=(--output_path "$2" --log_samples) ;;
      esac
      shift
      ;;
    *) if [[ -z $checkpoint ]]; then checkpoint=$1; else serve+=("$1"); fi ;;
  esac
  shift
done
[[ -n $checkpoint && $checkpoint != -* ]] || die "give a checkpoint first; --help explains"
ratplus=$(find_program "$jobs") || exit
command -v "$lm_eval" >/dev/null || die "$lm_eval is missing; pip install \"lm-eval[api]\", or set LM_EVAL"
command -v curl >/dev/null || die "curl is missing; install it"
mpi_environment

# means MODEL: of the harness's tables on standard input. Groups are means of tasks that stand beside them: the second table
# names them, and in the first they have no number of shots where their tasks' numbers differ. Of a task with several
# filters the first counts.
means() {
  awk -F'|' -v model="$1" '
    NF < 9 { next }
    $2 ~ /^ *(Tasks|Groups) *$/ { of_groups = $2 ~ /Groups/; next }
    $2 !~ /^ *$/ {
      row++
      name[row] = $2
      gsub(/^[ -]+| +$/, "", name[row])
      if (of_groups) group[name[row]] = 1
      left_out[row] = of_groups || $5 ~ /^ *$/
    }
    $6 ~ /^ *acc *$/ && !(row in acc) { acc[row] = $8 }
    $6 ~ /^ *acc_norm *$/ && !(row in norm) { norm[row] = $8 }
    function mean(sum, n) { return n > 0 ? sprintf("%6.2f of %d", 100 * sum / n, n) : "     - of 0" }
    END {
      for (i = 1; i <= row; i++) {
        if (left_out[i] || name[i] in group) continue
        if (i in acc) { of_acc++; sum += acc[i] }
        if (i in acc || i in norm) { of_best++; best += (i in norm) ? norm[i] : acc[i] }
      }
      if (of_best > 0) printf "  %-24s %s, %s\n", model, mean(sum, of_acc), mean(best, of_best)
    }'
}

scratch=$(mktemp -d)
server="" client="" model="" complete=0
end() {
  if [[ -n $1 ]] && kill -0 "$1" 2>/dev/null; then
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
  fi
}
finish() {
  trap '' INT TERM HUP # a second Ctrl-C reaches the server, which then ends at once
  end "$client"
  end "$server"
  rm -rf "$scratch"
}
stopped() {
  trap '' INT TERM HUP
  [[ -n $model ]] || die "stopped before a model was evaluated"
  die "stopped at $model; complete: $complete of ${#models[@]}. The same command begins anew; give the --pattern of the" \
    "others to compute those alone"
}
models=()
trap finish EXIT
trap stopped INT TERM HUP
"$ratplus" serve "$checkpoint" --port 0 --quiet ${serve[@]+"${serve[@]}"} >"$scratch/address" &
server=$!
until [[ -s $scratch/address ]]; do
  kill -0 "$server" 2>/dev/null || { wait "$server" || true; die "the server did not start"; }
  sleep 0.2
done
read -r address _ <"$scratch/address"
# Of the first model: {"data":[{"id":...,"max_model_len":4096,...},...]}
curl -fsS "$address/v1/models" ${RATPLUS_API_KEY:+-H "Authorization: Bearer $RATPLUS_API_KEY"} >"$scratch/models"
length=$(grep -o '"max_model_len":[0-9]*' "$scratch/models" | head -n 1 | tr -dc 0-9)
mapfile -t models < <(grep -o '"id":"[^"]*@[^"]*"' "$scratch/models" | sed 's/"id":"//; s/"$//')
for model in "${models[@]}"; do
  printf '\n%s\n' "$model"
  touch "$scratch/begun"
  # Beside this shell, so that a signal to it ends both; its progress is on standard error.
  OPENAI_API_KEY=${RATPLUS_API_KEY:-none} "$lm_eval" --model local-completions --batch_size 16 --tasks "$tasks" \
    --model_args "{\"model\": \"$model\", \"base_url\": \"$address/v1/completions\", \"num_concurrent\": ${CONCURRENT:-8}, \"max_length\": $length}" \
    ${harness[@]+"${harness[@]}"} >"$scratch/table" &
  client=$!
  wait "$client" || {
    cat "$scratch/table"
    die "$lm_eval failed for $model (see above)"
  }
  client=""
  cat "$scratch/table"
  # The harness ends in order where it could not write its results.
  [[ -z $output || -n $(find "$output" -name 'results*.json' -newer "$scratch/begun" -size +0 -print -quit 2>/dev/null) ]] ||
    die "$output: $lm_eval wrote no results for $model there (see above); make room, or give another --output"
  means "$model" <"$scratch/table" >>"$scratch/means"
  complete=$((complete + 1))
done
model=""
printf '\nmeans in percent, each of its number of tasks: of acc, and of acc_norm (by the length of choices) or else acc\n'
cat "$scratch/means"
cat <<'END'
the papers' means of the six tasks (their 1.5B as others quote it, their 7.6B read off a figure):
  1.5B  attention dense 58.33; RAT+ D = 16 58.06, D = 64 57.46; attention forced to D = 16 32.60
  7.6B  RAT+ dense 64.4, D = 16 63.6, D = 64 63.1, (16, 256, 4) 64.7
END
