# shellcheck shell=bash
# Made hosts: network namespaces of this machine, each with a hostname, an address and a link to one bridge. To be sourced
# after jobs/common.sh. All of it lives in namespaces of the test itself, which the kernel takes apart when the test's
# first process ends, in whatever way: nothing is left on the machine, and no process outlives the test.

# What is missing for them; empty if nothing is.
hosts_are_missing() {
  local program
  for program in ip unshare nsenter setpriv mpirun; do
    command -v "$program" >/dev/null && continue
    echo "$program is not installed; Debian: apt-get install iproute2 util-linux openmpi-bin (or jobs/setup.sh --cluster)"
    return
  done
  if [[ $(id -u) -ne 0 ]]; then
    echo "network namespaces are made by root only; run this as root"
  elif ! unshare --mount --net --uts --pid --fork --mount-proc true 2>/dev/null; then
    echo "this container may not make namespaces (unshare); run it with CAP_SYS_ADMIN"
  elif ! unshare --net ip link add ratplus0 type bridge 2>/dev/null; then
    echo "this kernel makes no network bridges (ip link add type bridge)"
  fi
}

# in_own_namespaces SCRIPT ARGUMENT...: runs the script as the first process of new namespaces; its status. When this
# shell ends, all that is in them ends.
in_own_namespaces() {
  local status=0
  setpriv --pdeathsig KILL unshare --mount --propagation private --net --uts --ipc --pid --fork --mount-proc \
    --kill-child bash "$@" &
  inside=$!
  trap 'exit 130' INT TERM HUP
  wait "$inside" || status=$?
  return "$status"
}

# Ends what in_own_namespaces has started.
end_namespaces() {
  [[ -n ${inside:-} ]] || return 0
  kill -KILL "$inside" 2>/dev/null || true
  wait "$inside" 2>/dev/null || true
}

# make_hosts DIRECTORY NAME...: the hosts, and DIRECTORY/enter, which runs a command on one of them, as ssh does. The
# machine itself, named `login`, is the hosts' switch and has an address too.
make_hosts() {
  local directory=$1 name number=0
  shift
  hosts_directory=$directory
  mkdir -p "$directory" /run/netns
  mount -t tmpfs -o size=1m netns /run/netns
  # Shared memory of these hosts alone: the machine's own may be small, or full.
  mount -t tmpfs -o size=512m shm /dev/shm
  mkdir -p "$directory/sys"
  mount -t sysfs sysfs "$directory/sys" # /sys has the machine's links, this one has the switch's
  hostname login
  ip link set lo up
  ip link add switch type bridge
  ip link set switch up
  ip address add 10.77.0.254/24 dev switch
  printf '127.0.0.1 localhost\n10.77.0.254 login\n' >"$directory/hosts"
  for name in "$@"; do
    ip netns add "$name"
    ip link add "to-$name" type veth peer name eth0 netns "$name"
    ip link set "to-$name" master switch up
    ip -n "$name" address add "10.77.0.$((++number))/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" link set lo up
    echo "10.77.0.$number $name" >>"$directory/hosts"
  done
  mount --bind "$directory/hosts" /etc/hosts
  # The host's own preparations (mounts, a clock) are in DIRECTORY/NAME.sh, read at each entry.
  cat >"$directory/enter" <<END_OF_ENTER
#!/usr/bin/env bash
# enter HOST COMMAND...: through a shell, as ssh does.
host=\$1
shift
exec nsenter --net="/run/netns/\$host" unshare --uts --mount bash -c '
  hostname "\$1"
  if [[ -e $directory/\$1.sh ]]; then source "$directory/\$1.sh"; fi
  shift
  eval "\$*"' enter "\$host" "\$@"
END_OF_ENTER
  # mpirun's agent: as ssh, it does not learn that the host has lost its power.
  cat >"$directory/agent" <<END_OF_AGENT
#!/usr/bin/env bash
"$directory/enter" "\$@"
status=\$?
if ((status == 128 + 9)); then sleep infinity; fi
exit "\$status"
END_OF_AGENT
  chmod +x "$directory/enter" "$directory/agent"
}

on_host() { "$hosts_directory/enter" "$@"; } # HOST COMMAND...

cut_link() { ip link set "to-$1" down; }
mend_link() { ip link set "to-$1" up; }
# limit_link HOST RATE ("400mbit"): of what comes to the host; false where the kernel cannot.
limit_link() { tc qdisc replace dev "to-$1" root tbf rate "$2" burst 256kb latency 100ms 2>/dev/null; }
free_link() { tc qdisc delete dev "to-$1" root; }
# Bytes that have come from a host and gone to it, by the switch's end of its link.
link_bytes() {
  local statistics=$hosts_directory/sys/class/net/to-$1/statistics
  echo $(($(cat "$statistics/rx_bytes") + $(cat "$statistics/tx_bytes")))
}

# All processes of a host.
processes_of() { ip netns pids "$1"; }
signal_host() { # HOST SIGNAL
  local processes
  mapfile -t processes < <(processes_of "$1")
  if ((${#processes[@]} > 0)); then kill "-$2" "${processes[@]}" 2>/dev/null || true; fi
}
freeze_host() { signal_host "$1" STOP; }
# As a power failure: no word of its end reaches the others.
kill_host() {
  cut_link "$1"
  signal_host "$1" KILL
}
# A host that was cut off, frozen or killed is as new: its processes are ended.
restore_host() {
  signal_host "$1" KILL
  rm -f "$hosts_directory/$1.sh"
  mend_link "$1"
}
