# shellcheck shell=bash disable=SC2154
# The jobs of tests/cluster.sh, which sets `work` and `program`; to be sourced by it.

timeout=5 # seconds: parallel.timeout of the jobs
steps=400 # of the schedule; most runs are stopped long before

make_data() {
  local line
  for ((line = 0; line < 3000; ++line)); do
    echo "{\"text\": \"line $line of words: $((line * line)) $((line * 7919 % 1000)) and the rest of it\"}"
  done >"$work/text.jsonl"
  "$program" prepare "$work/text.jsonl" --output "$work/data" --train-tokenizer --vocab-size 300 \
    --validation-fraction 0.05 >"$work/prepare.log" 2>&1 || fail_with_log "$work/prepare.log" "no data"
}

# A batch of 12 sequences divides over 1, 2, 3, 4 and 6 ranks.
write_job() {
  cat >"$work/job.toml" <<END
[job]
directory = "set below"
recipe = "joint"
joint_pattern = "8,0,0"
device = "cpu"
[model]
layers = 3
width = 64
head_dim = 32
vocab_size = 300
[data]
directory = "$work/data"
sequence_length = 32
batch = 12
[schedule]
steps = $steps
peak_lr = 2e-4
shape = "constant"
warmup = 0
[parallel]
timeout = $timeout
[checkpoint]
every = 10
background = false
[log]
every = 1
validation_sequences = 4
END
}

# The newest step in metrics.jsonl of a run; 0 without any.
last_step() {
  grep -o '"kind":"step","time":[^,]*,"step":[0-9]*' "$1/metrics.jsonl" 2>/dev/null | tail -n 1 |
    grep -o '[0-9]*$' || echo 0
}

# await_step RUN STEP LOG [PROCESS]: while the process, where there is one, is alive.
await_step() {
  local attempt
  for ((attempt = 0; attempt < 600; ++attempt)); do
    if (($(last_step "$1") >= $2)); then return; fi
    if [[ -n ${4:-} ]] && ! kill -0 "$4" 2>/dev/null; then fail_with_log "$3" "the run ended before step $2"; fi
    sleep 0.1
  done
  fail_with_log "$3" "the run did not come to step $2 within a minute"
}

# The step of the last start that a log reports.
resumed_at() { sed -n 's/^resum.* at step \([0-9]*\) of.*/\1/p' "$1" | tail -n 1; }

# expect_losses RUN STEP [TOLERANCE]: those of the undisturbed run on one rank, to 1e-6 or this, each step once, up to STEP
# at least.
expect_losses() {
  awk -v wanted="$2" -v tolerance="${3:-1e-6}" '
    !/"kind":"step"/ { next }
    {
      match($0, /"step":[0-9]+/)
      step = substr($0, RSTART + 7, RLENGTH - 7) + 0
      count = split($0, parts, "\"loss\":")
      if (FNR != NR && step != before + 1) { print "step " step " follows step " before; wrong = 1 }
      before = FNR == NR ? 0 : step
      for (i = 2; i <= count; ++i) {
        loss = parts[i] + 0
        if (FNR == NR) { expected[step, i] = loss; continue }
        if (!((step, i) in expected)) continue
        error = loss / expected[step, i] - 1
        if (error < 0) error = -error
        if (error > worst) worst = error
        last = step
      }
    }
    END {
      printf "losses of %d steps agree to %.1e\n", last, worst
      exit wrong || last < wanted + 0 || worst > tolerance + 0
    }' "$work/reference/metrics.jsonl" "$1/metrics.jsonl" || die "$1: its losses are not those of the undisturbed run"
}
