#!/bin/bash
# What `cargo xtask bench runtime` does in the guest: bash /run/bench.sh FUNCTION [ARGUMENT ...]
# Times are microseconds, memory is KiB.
set -euo pipefail

peers=/run/peers
api=unix:///run/docker.sock

# Without starting a program, so that what it takes does not count.
now() { printf -v "$1" '%s' "${EPOCHREALTIME/./}"; }

timed() {
    local before after
    now before
    "$@" >/dev/null </dev/null
    now after
    echo $((after - before))
}

# Runs a function of this script in the system of the peers.
inside() {
    nsenter --target "$(cat /run/peers.pid)" --mount -- \
        /usr/bin/env -i PATH=/usr/local/sbin:/usr/sbin:/usr/bin HOME=/root bash /run/bench.sh "$@"
}
docker() { command docker --host "$api" "$@"; }

# The root of the container `peers` and a volume for what they keep, as a system of its own. It is the root of a mount
# namespace, since crun and runc change the root of their containers, which is refused under chroot (pivot_root(2), EINVAL).
prepare() {
    mkdir -p "$peers"
    unshare --mount --propagation private bash /run/bench.sh become_peers &
    echo $! >/run/peers.pid
    until [ -e /run/peers.ready ]; do
        kill -0 $!
        sleep 0.1
    done
    inside start_docker "$1"
    shift
    for image; do inside pull "$image"; done
}

become_peers() {
    mount --bind /run/host/bennu/instances/peers-1/rootfs "$peers"
    mkdir -p "$peers/usr/lib/modules" "$peers/before"
    for one in dev proc sys; do mount --rbind "/$one" "$peers/$one"; done
    mount -t tmpfs tmpfs "$peers/run"
    mount -t tmpfs tmpfs "$peers/tmp"
    mount --bind /usr/lib/modules "$peers/usr/lib/modules"
    cp /etc/resolv.conf "$peers/etc/resolv.conf"
    mount --bind /state/volumes/peers "$peers/var/lib"
    cp /run/bench.sh "$peers/run/bench.sh"
    cd "$peers"
    pivot_root . before
    : >/before/run/peers.ready
    umount --lazy /before
    exec sleep 1000000 >/dev/null 2>&1 </dev/null
}

start_docker() {
    dockerd --host "$api" --exec-opt native.cgroupdriver=cgroupfs --insecure-registry "$1" \
        >/run/dockerd.log 2>&1 </dev/null &
    for _ in $(seq 240); do
        kill -0 $! && ! docker version >/dev/null 2>&1 || break
        sleep 1
    done
    docker version >/dev/null || { tail -n 20 /run/dockerd.log >&2; return 1; }
}

pull() {
    docker pull --quiet "$1"
    podman pull --quiet --tls-verify=false "$1"
}

# A bundle with the root of the container `first`, and nothing besides.
bundle() {
    mkdir -p /run/bare/rootfs
    mount --bind /run/host/bennu/instances/first-1/rootfs /run/bare/rootfs
    cd /run/bare
    crun spec
    sed -i -e 's/"terminal": true/"terminal": false/' -e 's/"sh"$/"sleep", "1000000"/' config.json
    grep -q '"sleep", "1000000"' config.json
}

bare() {
    crun create --bundle /run/bare "$1"
    crun start "$1"
}

one_bare() {
    timed bare "bare$1"
    crun delete --force "bare$1"
}

one_podman() {
    timed podman run --detach --name "one$1" "$2"
    podman rm --force --time 0 "one$1" >/dev/null
}

one_docker() {
    timed docker run --detach --name "one$1" "$2"
    docker rm --force "one$1" >/dev/null
}

# KiB that all processes hold together which are no container's own.
held() {
    local sum=0 kib
    for process in /proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" != sleep ] || continue
        kib=$(sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "$process/smaps_rollup" 2>/dev/null || true)
        sum=$((sum + ${kib:-0}))
    done
    echo "$sum"
}

run() { "$1" run --detach --name "$2" "$3"; }

# COUNT containers, two at a time since there are two processors, and the growth of what is held: microseconds, KiB.
many() {
    local who=$1 image=$2 count=$3 before after
    before=$(held)
    timed xargs --arg-file <(seq "$count") -P 2 -I {} bash /run/bench.sh run "$who" many{} "$image"
    after=$(held)
    echo $((after - before))
    [ "$("$who" ps --quiet | wc -l)" -eq "$count" ]
    # shellcheck disable=SC2046
    "$who" rm --force --volumes $("$who" ps --quiet) >/dev/null
}

# Microseconds of processor time of the daemon and of what it runs (Linux, Documentation/admin-guide/cgroup-v2.rst, "cpu.stat").
processor() {
    sed -n 's/^usage_usec //p' /sys/fs/cgroup/system.slice/hostd.service/cpu.stat
}

resident() {
    local daemon
    daemon=$(systemctl show --property=MainPID --value hostd.service)
    sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$daemon/status"
}

# The same work everywhere, to tell how many times slower this machine is.
work() {
    for ((i = 0; i < 300000; i++)); do :; done
}

# A neighbour of the host on a wire of its own.
client() {
    ip netns add client
    ip link add wire type veth peer name eth0 netns client
    ip address add 192.0.2.1/24 dev wire
    ip link set wire up
    ip netns exec client ip address add 192.0.2.2/24 dev eth0
    ip netns exec client ip link set eth0 up
    ip netns exec client ip route add default via 192.0.2.1
    ip netns exec client ip link set lo up
}

serve_podman() { podman run --detach --name web --publish 8081:80 --tmpfs /run --tmpfs /var/log/nginx --tmpfs /var/lib/nginx "$1"; }

# Requests for PATH at PORT: how many a second, bytes a second, and the latency that 99 of 100 stay below.
load() {
    ip netns exec client nsenter --target "$(cat /run/peers.pid)" --mount -- wrk --threads 1 --connections "$3" --duration 10s --latency \
        "http://192.0.2.1:$1/$2"
}

"$@"
