#!/usr/bin/env bash
# RULER's needle tasks as a chain of batch jobs: data, an array of fine-tunings, the table.
set -euo pipefail

usage() {
  cat <<'END'
jobs/slurm/ruler_chain.sh - submit jobs/evaluate/ruler.sh as a chain of batch jobs

Usage: jobs/slurm/ruler_chain.sh [option of sbatch]... -- RUN... --prose PATH [option of jobs/evaluate/ruler.sh]...

Submits jobs/slurm/ruler.sbatch three times: for the data, as an array with a task for each model, and for the table. Each waits
for the one before, and resumes when it was preempted. If one fails, Slurm cancels those that wait for it; the same command
resumes from there. Options of sbatch are for all three, in place of the settings of the script.

  jobs/slurm/ruler_chain.sh --partition=gpu -- runs/1b/sweep/d16-w0-i4 runs/1b/sweep/d64-w0-i4 --prose books/ --ranks 8

RATPLUS is the program (build/ratplus of the repository, or the installed one).
END
}

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=jobs/common.sh
source "$here/../common.sh"

read_chain "$here" "$@"
models=$(bash "$here/../evaluate/ruler.sh" "${rest[@]}" --list) || exit
count=$(wc -l <<<"$models")
submit_parts "$here/ruler.sbatch" "$count" data "data" tune "fine-tuning of $count models" scores "scores"
