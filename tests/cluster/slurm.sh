# shellcheck shell=bash disable=SC2154
# Jobs on a Slurm of three made hosts: n1, n2 and n3 are its nodes, this machine has the controller. To be sourced by
# tests/cluster.sh.

node_timeout=8 # seconds, SlurmdTimeout: a node that does not answer for so long is down
pace=0:slow:0.05:1 # each update of rank 0 takes 0.05 s longer, so that there is time to disturb a run

start_slurm() {
  if [[ -n ${SLURM_CONF:-} ]]; then return; fi
  heading "a Slurm cluster of three nodes"
  # Jobs of the partition `urgent` take the nodes of others, which are sent SIGTERM and have the grace time to save.
  # shellcheck disable=SC2034 # for start_cluster
  local cluster_settings="SlurmdTimeout=$node_timeout
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
TCPTimeout=2" kill_wait=4 partition_settings="PriorityTier=1 GraceTime=30" \
    cluster_partitions="PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF"
  start_cluster "$work/slurm" 2 n1 n2 n3
}

# submit RUN OPTION...: `ratplus submit` of the test's job; the job's number into `job`, its log into `log`.
submit() {
  local run=$1
  shift
  RATPLUS_TEST_FAULT=$pace "$program" submit "$work/job.toml" --ranks-per-node 1 --cpus-per-rank 1 \
    --set "job.directory=$run" "$@" >"$run.submit.log" 2>&1 || fail_with_log "$run.submit.log" "submit has refused it"
  job=$(cat "$run/submitted.job") log=$run/slurm-$(cat "$run/submitted.job").log
}

# await_restart JOB COUNT LOG: until the job has been resumed COUNT times.
await_restart() {
  local attempt waited=0 state
  for ((attempt = 0; attempt < 240; ++attempt)); do
    state=$(field "$1" JobState)
    if [[ $state == PENDING && $(field "$1" Reason) == BeginTime ]] && ((++waited > 10)); then
      scontrol update jobid="$1" TimeLimit=20 StartTime=now 2>/dev/null || true
    fi
    if [[ $state == RUNNING ]] && (($(field "$1" Restarts) >= $2)) && (($(grep -c '^resum.* at step' "$3") >= $2)); then
      return
    fi
    if [[ $state == FAILED || $state == COMPLETED ]]; then fail_with_log "$3" "job $1 is $state, and was not queued again"; fi
    sleep 0.5
  done
  fail_with_log "$3" "job $1 is $state ($(field "$1" Reason)) after 2 minutes, and does not run again"
}

expect_starts() { # LOG REGEX...: the nodes and ranks of each start
  local log=$1 number=0 regex
  shift
  for regex in "$@"; do
    expect_in "$log" "batch: job .* on $regex, start $((++number)),"
  done
  grep 'batch: ' "$log" | sed 's/, run directory.*//'
}

test_slurm_chain() {
  start_slurm
  heading "pretrain on 2 or 3 nodes, preempted, then without n1; adapt; evaluate"
  local run=$work/chain job log adapt urgent before
  if "$program" submit "$work/job.toml" --nodes 2-5 --ranks-per-node 1 --dry-run --set job.directory="$run" \
    >"$work/refused.log" 2>&1; then die "submit --nodes 2-5 is not refused"; fi
  expect_one_message "numbers of nodes that do not fit" "$work/refused.log" \
    'with 5 nodes: .*data.batch = 12 is not divisible by 5 ranks.*Numbers of nodes that fit: 2, 3, 4'

  submit "$run" --nodes 2-3 --time 20 --stop-before 30 --set schedule.steps=110 parallel.timeout=60
  local pretrain=$job pretrain_log=$log
  "$program" submit "$work/job.toml" --ranks-per-node 1 --cpus-per-rank 1 --nodes 2-3 --after "$pretrain" --time 20 \
    --stop-before 30 --set job.kind=adapt job.recipe=plain "job.from=$run" job.pattern=8,0,0 schedule.steps=12 \
    "job.directory=$work/adapted" >"$work/adapted.submit.log" || die "the adaptation was not submitted"
  adapt=$(cat "$work/adapted/submitted.job")
  local evaluate
  evaluate=$(RATPLUS=$program RATPLUS_SEQUENCES=4 sbatch --parsable --nodes=2 --ntasks-per-node=1 --cpus-per-task=1 \
    --gpus-per-node=0 --time=20 --dependency="afterok:$adapt" --kill-on-invalid-dep=yes --output="$work/evaluate.log" \
    jobs/slurm/eval.sbatch "$work/adapted" --pattern dense 8,0,0)

  await_step "$run" 20 "$log"
  before=$(last_step "$run")
  urgent=$(sbatch --parsable --partition=urgent --nodes=3 --exclusive --time=1 --output=/dev/null --wrap='sleep 1')
  local began=$SECONDS
  await_restart "$pretrain" 1 "$log"
  expect_in "$log" 'stopped by SIGUSR1 after step\|stopped by SIGTERM after step'
  [[ $(field "$urgent" JobState) == COMPLETED ]] || fail_with_log "$log" "the urgent job has not run"
  await_step "$run" $((before + 25)) "$log"
  (($(resumed_at "$log") >= before)) || fail_with_log "$log" "the preempted job lost steps"
  add_row "Slurm: a job of higher priority takes the nodes" $((SECONDS - began)) "saved; queued again; no step lost"

  before=$(last_step "$run") began=$SECONDS
  kill_host n1 # which has the batch script, and rank 0
  await_restart "$pretrain" 2 "$log"
  local lost=$((before - $(resumed_at "$log")))
  ((lost >= 0 && lost <= 10)) || fail_with_log "$log" "$lost steps are lost, and a checkpoint is made every 10"
  add_row "Slurm: the node with rank 0 loses its power" $((SECONDS - began)) \
    "$lost steps lost; queued again; runs on the two others"
  await "$evaluate" "$work/evaluate.log" 150
  expect_state "$pretrain" COMPLETED "$pretrain_log"
  expect_starts "$pretrain_log" 'n\[1-3\]: 3 ranks' 'n\[1-3\]: 3 ranks' 'n\[2-3\]: 2 ranks'
  expect_losses "$run" 110
  expect_state "$adapt" COMPLETED "$work/adapted/slurm-$adapt.log"
  expect_state "$evaluate" COMPLETED "$work/evaluate.log"
  [[ $(grep -o '"pattern": *"[^"]*"' "$work/adapted/evaluation.json" | wc -l) == 2 ]] ||
    fail_with_log "$work/evaluate.log" "evaluation.json does not hold two patterns"
  return_node n1
}

# A host that was lost is one again, with a new slurmd. Slurm forgets what it waits for there when the node is down.
return_node() {
  local attempt
  restore_host "$1"
  scontrol update nodename="$1" state=down reason=lost
  start_node "$1"
  scontrol update nodename="$1" state=resume 2>/dev/null || true # it may have come back by itself
  for ((attempt = 0; attempt < 100; ++attempt)); do
    if [[ $(sinfo -h -n "$1" -p test -o %T) == idle ]]; then return; fi
    sleep 0.3
  done
  die "$1 is not idle again: $(sinfo -h -n "$1" -o '%T %E')"
}

test_slurm_limits() {
  start_slurm
  heading "a drained node, and a time limit of a minute"
  local run=$work/limits job log before began=$SECONDS pace=0:slow:0.2:1
  submit "$run" --nodes 2-3 --time 1 --stop-before 50 --set schedule.steps=400 parallel.timeout=60
  await_step "$run" 10 "$log"
  scontrol update nodename=n2 state=drain reason="to be mended"
  await_restart "$job" 1 "$log"
  before=$(resumed_at "$log")
  await_step "$run" $((before + 5)) "$log"
  scancel --batch --signal=INT "$job"
  await "$job" "$log" 60
  expect_starts "$log" 'n\[1-3\]: 3 ranks' 'n\[1,3\]: 2 ranks'
  expect_in "$log" 'batch: stopped; submit it again to continue'
  expect_losses "$run" $((before + 5))
  scontrol update nodename=n2 state=resume
  add_row "Slurm: a node is drained, the time limit comes near" $((SECONDS - began)) \
    "saved; queued again; runs on the two others"
}

# lose_under LAUNCHER NAME ACTION: n3 is lost, and the ranks notice before Slurm does: the batch step ends, names the node
# and queues the job again, which goes on on the others once Slurm, too, takes the node for lost.
lose_under() {
  local launcher=$1 name=$2 action=$3 run=$work/lost-$1-$3 job log before began tenths lost
  submit "$run" --launcher "$launcher" --nodes 2-3 --time 20 --stop-before 30 --set schedule.steps=50
  await_step "$run" 15 "$log"
  began=$(date +%s%N)
  "$action"
  before=$(last_step "$run")
  until grep -q 'batch: queued again' "$log"; do
    tenths=$((($(date +%s%N) - began) / 100000000))
    ((tenths < 900)) || fail_with_log "$log" "$name: the batch step has not ended after 90 s"
    sleep 0.1
  done
  expect_one_message "$name" "$log" "rank 0 on n1 has waited $timeout s (parallel.timeout) in .*, at .*; all ranks end"
  expect_in "$log" 'batch: training failed with status [0-9]*, and these nodes do not answer: n3$'
  scontrol update nodename=n3 state=down reason="does not answer" # as Slurm does after SlurmdTimeout
  await_restart "$job" 1 "$log"
  lost=$((before - $(resumed_at "$log")))
  ((lost >= 0 && lost <= 10)) || fail_with_log "$log" "$lost steps are lost, and a checkpoint is made every 10"
  add_row "$name" "$((tenths / 10)).$((tenths % 10))" "$lost steps lost; queued again; runs on the two others"
  await "$job" "$log" 60
  expect_state "$job" COMPLETED "$log"
  expect_starts "$log" 'n\[1-3\]: 3 ranks' 'n\[1-2\]: 2 ranks'
  expect_losses "$run" 50
  return_node n3
}

test_slurm_faults() {
  start_slurm
  heading "hosts that are lost while Slurm waits longer (SlurmdTimeout) than the ranks (parallel.timeout, $timeout s)"
  sed -i 's/^SlurmdTimeout=.*/SlurmdTimeout=300/' "$SLURM_CONF"
  scontrol reconfigure
  lose_under mpirun "Slurm, mpirun: a host freezes" freeze_n3
  lose_under srun "Slurm, srun: the link of a host is cut" cut_n3
}
