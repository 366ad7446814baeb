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

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=jobs/common.sh
source "$here/../common.sh"

options=()
while (($# > 0)) && [[ $1 != -- ]]; do
  case $1 in
    -h | --help) usage && exit ;;
    *) options+=("$1") ;;
  esac
  shift
done
(($# > 1)) || die "give options of sbatch, if any, then -- and the runs; --help says more"
shift
command -v sbatch >/dev/null || die "there is no sbatch here: this is for a login node of a Slurm cluster"
ratplus=$(find_program "$here/..") || exit
bin=$(dirname "$(realpath "$ratplus")")
[[ -r jobs/slurm/batch.sh || -r $bin/../share/ratplus/jobs/slurm/batch.sh || -r $bin/slurm/batch.sh ]] ||
  die "start it in the root of the repository: the jobs' paths are relative to it"
export RATPLUS=$ratplus # for the jobs
models=$(bash "$here/../evaluate/ruler.sh" "$@" --list) || exit
count=$(wc -l <<<"$models")

submit "data" "${options[@]}" "$here/ruler.sbatch" --part data "$@"
mapfile -t wait < <(after "$job")
submit "fine-tuning of $count models" "${options[@]}" "--array=0-$((count - 1))" "${wait[@]}" \
  "$here/ruler.sbatch" --part tune "$@"
mapfile -t wait < <(after "$job")
submit "scores" "${options[@]}" "${wait[@]}" "$here/ruler.sbatch" --part scores "$@"
echo "to watch: squeue --me; to withdraw all: scancel ${submitted[*]}"
