# shellcheck shell=bash disable=SC2154
# Jobs over made hosts under mpirun: layouts, hosts that are not alike, faults. To be sourced by tests/cluster.sh.

export launcher_grace=6
allowed=$((timeout + launcher_grace + 7)) # seconds from a fault to the end of mpirun

# start HOSTS RUN WORD...: `ratplus train` over HOSTS (n1:1,n2:2) in the run directory RUN, with these words after its
# --set job.directory=RUN. By jobs/mpirun.sh on the first host; that script is then this process.
start() {
  local hosts=$1 run=$2
  shift 2
  RATPLUS=$program on_host "${hosts%%:*}" exec jobs/mpirun.sh --host "$hosts" --mca plm_rsh_agent "$work/hosts/agent" \
    --mca btl tcp,self --mca btl_tcp_if_include eth0 -- train "$work/job.toml" --set "job.directory=$run" "$@"
}

# run NAME HOSTS WORD...: to its end, in the run directory NAME; its log is NAME.log.
run() {
  local name=$1 hosts=$2
  shift 2
  start "$hosts" "$work/$name" "$@" >"$work/$name.log" 2>&1 || fail_with_log "$work/$name.log" "$name failed"
}

restore_hosts() {
  local host
  for host in n1 n2 n3 n4; do restore_host "$host"; done
}

# --- Layouts and traffic ---------------------------------------------------------------------------------------------

test_layouts() {
  heading "the same job on 2, 3 and 4 hosts"
  local hosts mesh settings name number=0
  while read -r hosts mesh settings; do
    name=layout-$((++number))
    # shellcheck disable=SC2086 # settings are words
    run "$name" "$hosts" $settings --stop-after 20 </dev/null
    grep -q "^mesh: ${mesh//_/ }" "$work/$name.log" ||
      fail_with_log "$work/$name.log" "$hosts $settings: its mesh is not $mesh"
    printf '%-22s %-46s %-33s ' "$hosts" "$settings" "$(grep -o '^mesh: [^;]*' "$work/$name.log")"
    expect_losses "$work/$name" 20
  done <<'END'
n1:1,n2:1 2_replicas_x_1_shard parallel.shard=none
n1:1,n2:1,n3:1 3_replicas_x_1_shard parallel.shard=none
n1:1,n2:1,n3:1,n4:1 4_replicas_x_1_shard parallel.shard=none
n1:1,n2:2 3_replicas_x_1_shard parallel.shard=none
n1:2,n2:1,n3:1 4_replicas_x_1_shard parallel.shard=none
n1:2,n2:2 2_replicas_x_2_shards parallel.shard=full
n1:2,n2:2,n3:2 3_replicas_x_2_shards parallel.shard=optimizer
n1:1,n2:1,n3:1 1_replica_x_3_shards parallel.shard=full parallel.shard_group=0
n1:1,n2:2 1_replica_x_3_shards parallel.shard=full parallel.shard_group=0
END
}

# Bytes on the link of n1 while 20 steps of two updates each are made, into `traffic`.
measure_traffic() { # NAME WORD...
  local name=$1 before
  shift
  before=$(link_bytes n1)
  run "$name" n1:2,n2:2 parallel.shard=full checkpoint.every=0 "$@" --stop-after 20
  traffic=$(($(link_bytes n1) - before))
}

test_traffic() {
  heading "bytes on the link between two hosts of 2 ranks, full sharding, 40 updates"
  local traffic parameters hybrid gradients
  measure_traffic traffic-hybrid
  hybrid=$traffic
  parameters=$(sed -n 's/^model: .* \([0-9]*\) parameters$/\1/p' "$work/traffic-hybrid.log")
  measure_traffic traffic-all parallel.shard_group=0
  # A host sends the halves of its two ranks once an update, in f32, and gets as many: 8 bytes a parameter.
  gradients=$((8 * parameters * 2 * 20))
  echo "shards within a host: $hybrid bytes, of which gradients are $gradients; shards over both hosts: $traffic bytes"
  ((hybrid >= gradients && hybrid <= gradients * 12 / 10)) || die "the traffic is not that of the summed gradients"
  ((traffic >= 3 * hybrid)) || die "gathered weights are not on the link: the count is wrong"

  local mode
  for mode in none full; do
    measure_traffic "traffic-$mode-rounded" "parallel.shard=$mode" parallel.reduce=bf16_between_hosts
    echo "$mode, bfloat16 between hosts: $traffic bytes, $((100 * traffic / hybrid)) % of float32's"
    ((traffic >= gradients / 2 && traffic <= hybrid * 55 / 100)) || die "$mode: the traffic is not half of float32's"
    expect_losses "$work/traffic-$mode-rounded" 20 2e-3
  done
}

# Updates of a larger model over slow links, whose sums take most of the time. By hand: ctest times nothing.
test_speed() {
  heading "steps over slow links between two hosts of 2 ranks"
  local rate=400mbit reduce seconds whole
  if ! limit_link n1 "$rate" || ! limit_link n2 "$rate"; then
    echo "skipped: the time of updates over slow links (this kernel limits none: tc qdisc add ... tbf)"
    return
  fi
  for reduce in f32 bf16_between_hosts; do
    run "timed-$reduce" n1:2,n2:2 model.layers=4 model.width=512 data.batch=4 parallel.shard=full \
      checkpoint.every=0 parallel.timeout=60 "parallel.reduce=$reduce" --stop-after 8
    seconds=$(median_step "$work/timed-$reduce")
    echo "a step over links of $rate, $reduce: $seconds s"
    if [[ $reduce == f32 ]]; then whole=$seconds; fi
  done
  awk -v part="$seconds" -v whole="$whole" 'BEGIN { exit !(part < 0.8 * whole) }' ||
    die "half the bytes between hosts do not make the step faster"
  free_link n1
  free_link n2
}

# Seconds of a step: the median of a run's steps after the first.
median_step() { # RUN
  grep '"kind":"step"' "$1/metrics.jsonl" | tail -n +2 | grep -o '"step_seconds":[0-9.e-]*' | cut -d : -f 2 | sort -g |
    awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'
}

# --- Hosts that are not alike ----------------------------------------------------------------------------------------

# expect_refusal NAME HOSTS REGEX WORD...: one message, which names what differs, and where.
expect_refusal() {
  local name=$1 hosts=$2 regex=$3 status=0 began=$SECONDS log=$work/alike.log
  shift 3
  start "$hosts" "$work/alike" "$@" >"$log" 2>&1 || status=$?
  [[ $status == 1 ]] || fail_with_log "$log" "$name: its status is $status, not 1"
  expect_one_message "$name" "$log" "$regex"
  add_row "$name" $((SECONDS - began)) "refused at the start"
  restore_hosts
}

expect_one_message() { # NAME LOG REGEX
  expect_in "$2" "$3"
  [[ $(grep '^ratplus: ' "$2" | grep -vc '^ratplus: warning: ') == 1 ]] || fail_with_log "$2" "$1: not one message"
  grep -A 2 '^ratplus: ' "$2" | grep '^ratplus\|^  '
}

test_alike() {
  heading "hosts that are not alike"
  expect_refusal "unequal ranks a host, with sharding" n1:1,n2:2 \
    'node 0 has 1 rank and node 1 has 2; start as many on each, or set parallel.shard_group' parallel.shard=full
  echo "export RATPLUS_TEST_REVISION=0123abc" >"$work/hosts/n2.sh"
  expect_refusal "another program on a host" n1:1,n2:1 \
    "rank 1 on n2: .* revision 0123abc.*, but rank 0 on n1 is ratplus .*; install the same program"
  sed 's/^peak_lr = .*/peak_lr = 2e-3/' "$work/job.toml" >"$work/other.toml"
  echo "mount --bind '$work/other.toml' '$work/job.toml'" >"$work/hosts/n3.sh"
  expect_refusal "another job file on a host" n1:1,n2:1,n3:1 \
    'rank 2 on n3: .*job.toml: differs from the job file of rank 0 on n1'
  mkdir "$work/local"
  echo "mount -t tmpfs -o size=1m local '$work/local'" >"$work/hosts/n2.sh"
  expect_refusal "a run directory that a host does not see" n1:1,n2:1 \
    'rank 1 on n2: .*local/run is not the directory that rank 0 on n1 writes to' "job.directory=$work/local/run"
}

# --- Faults ----------------------------------------------------------------------------------------------------------

cut_n1() { cut_link n1; }
cut_n3() { cut_link n3; }
freeze_n3() { freeze_host n3; }
power_off_n3() { kill_host n3; }

in_a_step() { await_step "$1" 25 "$2" "$3"; } # RUN LOG PROCESS
# A save of a larger model takes some tenths of a second.
in_a_save() {
  await_step "$1" 3 "$2" "$3"
  until [[ -e $1/checkpoints/step-00000004.partial ]]; do
    kill -0 "$3" 2>/dev/null || fail_with_log "$2" "the run ended before its second save"
  done
}
larger=(model.layers=4 model.width=512 schedule.steps=40 checkpoint.every=2)

# fault NAME MOMENT ACTION REGEX [WORD...]: a run on n1, n2 and n3, and ACTION in the middle of it. The job ends within
# `allowed` seconds, mpirun included, with one message, and can be resumed on n1 and n2.
fault() {
  local name=$1 moment=$2 action=$3 regex=$4 run=$work/fault-$2-$3 log process status=0 before began tenths
  log=$run.log
  shift 4
  start n1:1,n2:1,n3:1 "$run" "$@" >"$log" 2>&1 &
  process=$!
  "$moment" "$run" "$log" "$process"
  "$action"
  began=$(date +%s%N)
  before=$(last_step "$run")
  wait_for_end "$process" "$log" "$name"
  tenths=$((($(date +%s%N) - began) / 100000000))
  wait "$process" || status=$?
  ((status != 0)) || fail_with_log "$log" "$name: its status is 0"
  ((tenths <= 10 * allowed)) || fail_with_log "$log" "$name: ended after $((tenths / 10)) s; $allowed are allowed"
  expect_one_message "$name" "$log" "$regex"
  expect_no_ranks "$name" "$log"
  restore_hosts
  if [[ $moment == in_a_save ]]; then
    [[ -e $run/checkpoints/step-00000004.partial ]] || fail_with_log "$log" "$name: no save was under way"
  fi
  resume_fault "$name" "$run" "$before" "$((tenths / 10)).$((tenths % 10))" "$@"
}

wait_for_end() { # PROCESS LOG NAME
  local attempt
  for ((attempt = 0; attempt < 1200; ++attempt)); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  fail_with_log "$2" "$3: mpirun has not ended after 2 minutes"
}

# No process of the job may be left on the hosts that can be reached.
expect_no_ranks() { # NAME LOG
  local attempt host left
  for ((attempt = 0; attempt < 100; ++attempt)); do
    left=
    for host in n1 n2; do
      left+=$(processes_of "$host" | xargs -r ps -o comm= -p 2>/dev/null | grep -x 'ratplus\|mpirun' || true)
    done
    if [[ -z $left ]]; then return; fi
    sleep 0.1
  done
  fail_with_log "$2" "$1: left on $host: $left"
}

resume_fault() { # NAME RUN LAST_STEP SECONDS WORD...
  local name=$1 run=$2 before=$3 seconds=$4 log=$2.resumed.log resumed every=10 more=15
  shift 4
  if (($# > 0)); then every=2 more=3; fi # the larger model
  start n1:1,n2:1 "$run" "$@" --resume --stop-after "$more" >"$log" 2>&1 ||
    fail_with_log "$log" "$name: the run could not be resumed"
  resumed=$(resumed_at "$log")
  [[ -n $resumed ]] || fail_with_log "$log" "$name: the run was not resumed from a checkpoint"
  ((before >= resumed && before - resumed <= every)) ||
    fail_with_log "$log" "$name: it was at step $before, and is resumed at $resumed"
  add_row "$name" "$seconds" "$((before - resumed)) steps lost; resumed on the two others"
  if (($# == 0)); then expect_losses "$run" "$((resumed + more))"; fi
}

# n2 and n3 lose what they send to each other, as behind a firewall: the ranks cannot connect.
unreachable() {
  local name="two hosts do not reach each other" log=$work/unreachable.log status=0 began
  ip -n n2 neighbour replace 10.77.0.3 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
  ip -n n3 neighbour replace 10.77.0.2 lladdr 02:00:00:00:00:99 dev eth0 nud permanent
  began=$(date +%s%N)
  start n1:1,n2:1,n3:1 "$work/unreachable" >"$log" 2>&1 || status=$?
  local tenths=$((($(date +%s%N) - began) / 100000000))
  ((status != 0)) || fail_with_log "$log" "$name: its status is 0"
  ((tenths <= 10 * (allowed + 20))) || fail_with_log "$log" "$name: ended after $((tenths / 10)) s"
  expect_one_message "$name" "$log" "rank 0 on n1 has waited 20 s in connecting the ranks"
  ip -n n2 neighbour delete 10.77.0.3 dev eth0
  ip -n n3 neighbour delete 10.77.0.2 dev eth0
  restore_hosts
  add_row "$name" "$((tenths / 10)).$((tenths % 10))" "ends at the start"
}

test_faults() {
  heading "faults of a run on n1, n2 and n3 under mpirun; parallel.timeout is $timeout s, launcher_grace $launcher_grace s"
  local waits="rank 0 on n1 has waited $timeout s (parallel.timeout) in .*, at .*; all ranks end"
  unreachable
  fault "the link of a host is cut in a step" in_a_step cut_n3 "$waits"
  fault "the link of a host is cut in a save" in_a_save cut_n3 "at saving of .*; all ranks end" "${larger[@]}"
  fault "a host freezes (SIGSTOP)" in_a_step freeze_n3 "$waits"
  fault "a host loses its power" in_a_step power_off_n3 "$waits"
  fault "the link of the host with rank 0 and mpirun is cut" in_a_step cut_n1 "$waits"
}

# --- Faults that a run survives, and a full disk ---------------------------------------------------------------------

test_milder() {
  heading "a slow host, clocks that differ, a full disk"
  local log run=$work/slow before resumed status=0 process
  RATPLUS_TEST_FAULT=2:slow:0.05:5 run slow n1:1,n2:1,n3:1 --stop-after 25
  grep -m 1 '^warning: step [0-9]*: rank 2 on n3 is slow' "$work/slow.log" ||
    fail_with_log "$work/slow.log" "no warning of the slow host"
  expect_losses "$run" 25
  add_row "a host is slow" - "goes on, with a warning that names rank and host"

  run=$work/moment log=$work/moment.log
  start n1:1,n2:1,n3:1 "$run" --stop-after 60 >"$log" 2>&1 &
  process=$!
  await_step "$run" 10 "$log" "$process"
  cut_link n3
  sleep 2
  before=$(last_step "$run")
  mend_link n3
  wait "$process" || fail_with_log "$log" "a link that was cut for 2 s has ended the run"
  ((before < 60)) || fail_with_log "$log" "the run was over before the link was cut"
  expect_losses "$run" 60
  add_row "the link of a host is cut for 2 s" - "goes on; no step lost"

  local library
  library=$(find /usr/lib -name libfaketime.so.1 2>/dev/null | head -n 1)
  if [[ -n $library ]]; then
    echo "export LD_PRELOAD=$library FAKETIME=+5m DONT_FAKE_MONOTONIC=1" >"$work/hosts/n2.sh"
    echo "export LD_PRELOAD=$library FAKETIME=-7m DONT_FAKE_MONOTONIC=1" >"$work/hosts/n3.sh"
    on_host n2 date +n2:%T
    on_host n3 date +n3:%T
    run clocks n2:1,n1:1,n3:1 --stop-after 15
    echo "export LD_PRELOAD=$library FAKETIME=-30m DONT_FAKE_MONOTONIC=1" >"$work/hosts/n2.sh"
    run clocks n2:1,n1:1,n3:1 --resume --stop-after 10
    restore_hosts
    expect_losses "$work/clocks" 25
    add_row "clocks differ by 12 min, and rank 0's goes back" - "goes on, and is resumed"
  else
    echo "skipped: clocks that differ (no libfaketime; jobs/setup.sh --cluster installs it)"
    add_row "clocks differ by minutes" - "not shown: no libfaketime here"
  fi

  run=$work/small/run log=$work/disk.log
  mkdir "$work/small"
  mount -t tmpfs -o size=24m small "$work/small"
  start n1:1,n2:1,n3:1 "$run" >"$log" 2>&1 &
  process=$!
  await_step "$run" 25 "$log" "$process"
  on_host n3 "head -c 64M /dev/zero >$work/small/ballast 2>/dev/null || true"
  before=$(last_step "$run")
  wait_for_end "$process" "$log" "full disk"
  wait "$process" || status=$?
  [[ $status == 1 ]] || fail_with_log "$log" "full disk: its status is $status, not 1"
  expect_one_message "full disk" "$log" 'No space left on device'
  rm "$work/small/ballast"
  start n1:1,n2:1 "$run" --resume --stop-after 15 >"$run.log" 2>&1 || fail_with_log "$run.log" "full disk: not resumed"
  resumed=$(resumed_at "$run.log")
  ((resumed >= before - 10)) || fail_with_log "$run.log" "it was at step $before, and is resumed at $resumed"
  expect_losses "$run" $((resumed + 15))
  add_row "the disk of the run is full" - "ends at the next save, of step $((before / 10 * 10 + 10)); resumed at $resumed"
  umount --lazy "$work/small"

  log=$work/limit.log status=0
  echo "ulimit -f 16384 # of 1024 bytes; a part of the larger model's checkpoint has 60 MB" >"$work/hosts/n3.sh"
  start n1:1,n2:1,n3:1 "$work/limit" "${larger[@]}" parallel.timeout=60 --stop-after 3 >"$log" 2>&1 || status=$?
  [[ $status == 1 ]] || fail_with_log "$log" "limited files: its status is $status, not 1"
  expect_one_message "limited files" "$log" 'rank 2 on n3: .*part-00002.h5: cannot write .*File too large'
  restore_hosts
  add_row "a host cannot write its part of a checkpoint" - "ends at that save, with rank, host and file"
}
