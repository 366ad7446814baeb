#!/usr/bin/env bash
# The papers' claims in miniature as a chain of batch jobs: data, an array of models, the report.
set -euo pipefail

usage() {
  cat <<'END'
jobs/slurm/reproduce_chain.sh - submit jobs/reproduce.sh as a chain of batch jobs

Usage: jobs/slurm/reproduce_chain.sh [option of sbatch]... -- --scale NAME --data DIR [option of jobs/reproduce.sh]...

Submits jobs/slurm/reproduce.sbatch three times: for the data, as an array with a task for each model, which pretrains, adapts
and evaluates it, and for the report. Each waits for the one before, and resumes when it was preempted. If one fails, Slurm
cancels those that wait for it; the same command resumes from there. Options of sbatch are for all three, in place of the
settings of the script: one GPU a model.

  jobs/slurm/reproduce_chain.sh --partition=gpu -- --scale small --data text/
  jobs/slurm/reproduce_chain.sh --ntasks-per-node=4 --gpus-per-node=4 -- --scale medium --data text/ --ranks 4

RATPLUS is the program (build/ratplus of the repository, or the installed one).
END
}

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=jobs/common.sh
source "$here/../common.sh"

read_chain "$here" "$@"
models=$(bash "$here/../reproduce.sh" "${rest[@]}" --part models --check) || exit
count=$(wc -l <<<"$models")
submit_parts "$here/reproduce.sbatch" "$count" data "data" models "$count models" report "report"
