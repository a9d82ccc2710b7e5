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

inside() { chroot "$peers" /usr/bin/env -i PATH=/usr/local/sbin:/usr/sbin:/usr/bin HOME=/root "$@"; }
podman() { inside podman "$@"; }
docker() { inside docker --host "$api" "$@"; }

# The root of the container `peers` and a volume for what they keep, as a system of its own.
prepare() {
    mkdir -p "$peers"
    mount --bind /run/bennu/instances/peers-1/rootfs "$peers"
    mount --make-private "$peers"
    mkdir -p "$peers/usr/lib/modules"
    for one in dev proc sys; do
        mount --rbind "/$one" "$peers/$one"
        mount --make-rslave "$peers/$one"
    done
    mount -t tmpfs tmpfs "$peers/run"
    mount -t tmpfs tmpfs "$peers/tmp"
    mount --bind /usr/lib/modules "$peers/usr/lib/modules"
    mount --bind /etc/resolv.conf "$peers/etc/resolv.conf"
    mount --bind /state/volumes/peers "$peers/var/lib"
    inside dockerd --host "$api" --exec-opt native.cgroupdriver=cgroupfs --insecure-registry "$1" \
        >/run/dockerd.log 2>&1 </dev/null &
    for _ in $(seq 240); do
        docker version >/dev/null 2>&1 && break
        sleep 1
    done
    docker version >/dev/null || { tail -n 20 /run/dockerd.log >&2; return 1; }
    shift
    for image; do
        docker pull --quiet "$image"
        podman pull --quiet --tls-verify=false "$image"
    done
}

# A bundle with the root of the container `first`, and nothing besides.
bundle() {
    mkdir -p /run/bare/rootfs
    mount --bind /run/bennu/instances/first-1/rootfs /run/bare/rootfs
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

# COUNT containers, two at a time since there are two processors, and the growth of what is held: microseconds, KiB.
many() {
    local who=$1 image=$2 count=$3 before after
    before=$(held)
    export -f podman docker inside
    export peers api who image
    # shellcheck disable=SC2016
    timed bash -c 'seq "$1" | xargs -P 2 -I {} bash -c "$who run --detach --name many{} $image"' many "$count"
    after=$(held)
    echo $((after - before))
    [ "$("$who" ps --quiet | wc -l)" -ge "$count" ]
    "$who" ps --quiet | xargs -r bash -c "$who"' rm --force "$@" >/dev/null' rm
}

# Nanoseconds of processor time of the daemon (Linux, Documentation/scheduler/sched-stats.rst).
processor() {
    local daemon
    daemon=$(systemctl show --property=MainPID --value hostd.service)
    cat /proc/"$daemon"/task/*/schedstat | awk '{ sum += $1 } END { print sum }'
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
    ip netns exec client chroot "$peers" wrk --threads 1 --connections "$3" --duration 10s --latency \
        "http://192.0.2.1:$1/$2"
}

"$@"
