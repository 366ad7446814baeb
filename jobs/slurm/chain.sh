#!/usr/bin/env bash
# Pretraining, the sweep of adaptations from it, and its table, by one command.
set -euo pipefail

usage() {
  cat <<'END'
jobs/slurm/chain.sh - submit a pretraining, the sweep of adaptations from it, and the table of the sweep

Usage: jobs/slurm/chain.sh [--sweep DIRECTORY] PRETRAIN.toml ADAPT.toml [option of sbatch]...

Submits pretrain.sbatch, then adapt_sweep.sbatch, which waits until the pretraining is done, then eval.sbatch --table,
which waits for all tasks of the sweep. The sweep starts from the weights of the pretraining, whatever job.from in
ADAPT.toml says. If one of them fails, Slurm cancels the jobs that wait for it; the same command continues from there.

  --sweep DIRECTORY  where the adapted runs and table.txt go; default: sweep/ beside the pretraining's run directory
  option of sbatch   for all three, in place of the settings of the scripts: --partition=gpu --account my-project, in one
                     word or in two, as sbatch has them; --array=0,4,6 (or -a) is for the sweep alone. Others for one
                     alone are set in the scripts
  --help             this text

  jobs/slurm/chain.sh configs/pretrain/1b.toml configs/adapt/1b.toml --partition=gpu --account=my-project
  RATPLUS_LAUNCHER=mpirun jobs/slurm/chain.sh ...

RATPLUS is the program (build/ratplus of the repository, or the installed one), RATPLUS_LAUNCHER srun (the default) or
mpirun.
END
}

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=jobs/common.sh
source "$here/../common.sh"

sweep=
jobs=() options=() sweep_options=()
while (($# > 0)); do
  case $1 in
    --sweep | --array | -a)
      [[ -n ${2:-} && $2 != -* ]] || die "$1 needs a value; --help says more"
      if [[ $1 == --sweep ]]; then sweep=$2; else sweep_options+=("--array=$2"); fi
      shift
      ;;
    --sweep=?*) sweep=${1#*=} ;;
    --array=?* | -a?*) sweep_options+=("$1") ;;
    -h | --help) usage && exit ;;
    *.toml) if ((${#options[@]} == 0)); then jobs+=("$1"); else options+=("$1"); fi ;;
    *)
      # A word that follows an option may be its value: sbatch knows.
      ((${#jobs[@]} == 2)) || die "give two job files before $1, of the pretraining and of the adaptation; --help says more"
      options+=("$1")
      ;;
  esac
  shift
done
((${#jobs[@]} == 2)) || die "give two job files, of the pretraining and of the adaptation; --help says more"
command -v sbatch >/dev/null || die "there is no sbatch here: this is for a login node of a Slurm cluster"
ratplus=$(find_program "$here/..") || exit
bin=$(dirname "$(realpath "$ratplus")")
[[ -r jobs/slurm/batch.sh || -r $bin/../share/ratplus/jobs/slurm/batch.sh || -r $bin/slurm/batch.sh ]] ||
  die "start it in the root of the repository: the jobs' paths are relative to it"
export RATPLUS=$ratplus # for the jobs

directory_of() { sed -n 's/^directory = "\(.*\)"$/\1/p' <<<"$1" | head -n 1; }

# Both job files are read before anything is queued.
pretrain_job=$("$ratplus" train "${jobs[0]}" --print-config) || exit
pretrained=$(directory_of "$pretrain_job")
[[ -n $pretrained ]] || die "$ratplus does not print the run directory of ${jobs[0]}"
[[ $pretrained != *\\* ]] || die "$pretrained: batch jobs take no quotes, backslashes or line ends in job.directory; rename it"
sweep=${sweep:-$(dirname "$pretrained")/sweep}
"$ratplus" train "${jobs[1]}" --set job.kind=adapt "job.from=$pretrained" --print-config >/dev/null || exit

submit "pretraining, in $pretrained" "${options[@]}" "$here/pretrain.sbatch" "${jobs[0]}"
mapfile -t wait < <(after "$job")
RATPLUS_SWEEP=$sweep submit "sweep, in $sweep" "${options[@]}" "${sweep_options[@]}" "${wait[@]}" \
  "$here/adapt_sweep.sbatch" "${jobs[1]}" --set job.kind=adapt "job.from=$pretrained"
mapfile -t wait < <(after "$job")
submit "table, $sweep/table.txt" "${options[@]}" "${wait[@]}" "$here/eval.sbatch" --table "$sweep" "$pretrained"
echo "to watch: squeue --me; to withdraw all: scancel ${submitted[*]}"
