#!/usr/bin/env bash
# Runs what deploy/Containerfile and deploy/kubernetes/broker.yaml say, without a container runtime: the image's files, laid out by the image's
# own script, in a chroot; its user, no capabilities, a read-only root; volumes as a kubelet makes them; each pod a network namespace with
# the manifest's broker.toml, stunnel.conf and probes; and a real PostgreSQL, which takes clients by TLS certificate alone.
# One line a check on stdout; fails at the first that fails. Usage (as root): container.sh MVAULT POSTGRES-BIN PYTHON

set -euo pipefail
umask 022
mvault=$1 postgres=$2 python=$3
deploy=$(cd "$(dirname "$0")/.." && pwd)
ID=mvault-pod-$$
ADMIN=127.0.0.1:9443
pods=(1 2)

die() {
    printf 'container.sh: error: %s\n' "$*" >&2
    exit 1
}

work=$(mktemp -d "${TMPDIR:-/tmp}/mvault-container.XXXXXX")
started=()
clean_up() {
    local it
    for it in "${started[@]}"; do
        kill -KILL "$it" 2>/dev/null || true
        wait "$it" 2>/dev/null || true
    done
    [[ ! -s $work/db/data/postmaster.pid ]] || as_postgres "$postgres/pg_ctl" -D "$work/db/data" -m immediate -s stop || true
    for it in db "${pods[@]}"; do ip netns delete "$ID-$it" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean_up EXIT

main() {
    chmod 711 "$work"
    image
    network
    secrets
    database
    local pod
    for pod in "${pods[@]}"; do pod "$pod"; done
    echo "pods: ${#pods[@]}, as user 65532, no capabilities, read-only root, volumes of mode 0440 behind a kubelet's links"
    for pod in "${pods[@]}"; do ready "$pod"; done
    echo "ready: by the image's probe, through the tunnel to PostgreSQL with TLS 1.3 and a client's certificate"
    one_log
    tunnels
    without_database
    stop
}

image() {
    rustc --edition 2024 -O -o "$work/probe" "$deploy/container/probe.rs"
    root=$work/root
    "$deploy/container/rootfs.sh" "$mvault" "$work/probe" "$root"
    local files bad
    files=$(find "$root" -type f -printf '/%P\n' | sort)
    bad=$(grep -E '/(sh|bash|dash|busybox|apt|dpkg|perl|python[0-9.]*|curl|wget)$' <<<"$files" || true)
    [[ -z $bad ]] || die "in the image: $bad"
    [[ -z $(find "$root" -perm /6000) ]] || die "a setuid program in the image"
    [[ $(grep -vc '^/lib\|^/usr/lib' <<<"$files") == 6 ]] || die "the image has other files: $files"
    # where volumes are mounted; an orchestrator makes these itself
    mkdir -p "$root/etc/mvault/broker" "$root/etc/mvault/operator"
    echo "image: $(wc -l <<<"$files") files, $(du -sm "$root" | cut -f1) MB; mvault, the probe, their libraries, CAs; no shell, nothing setuid"
}

# Pods behind a router, which has the database's address.
network() {
    local pod
    ip netns add "$ID-db"
    ip -n "$ID-db" link set lo up
    ip -n "$ID-db" addr add 10.4.0.5/32 dev lo
    for pod in "${pods[@]}"; do
        ip netns add "$ID-$pod"
        ip -n "$ID-$pod" link set lo up
        ip -n "$ID-$pod" link add eth0 type veth peer name "pod$pod" netns "$ID-db"
        ip -n "$ID-$pod" addr add "10.5.$pod.2/24" dev eth0
        ip -n "$ID-db" addr add "10.5.$pod.1/24" dev "pod$pod"
        ip -n "$ID-$pod" link set eth0 up
        ip -n "$ID-db" link set "pod$pod" up
        ip -n "$ID-$pod" route add default via "10.5.$pod.1"
    done
}

# The secrets and config maps that the manifest names, made by the commands of docs/OPERATIONS.md.
secrets() {
    local sources=$work/sources pcr
    mkdir -p "$sources"/{mvault-broker,mvault-operator,mvault-postgres,mvault-policies}
    "$mvault" keygen -o "$sources/mvault-operator/operator.txt" >"$work/operator.pub" 2>/dev/null
    "$mvault" broker init -q "$work/made" --host broker.example -R "$work/operator.pub" >/dev/null
    cp "$work/made/broker.keys" "$work/made/tls/cert.pem" "$work/made/tls/key.pem" "$sources/mvault-broker/"
    pcr=$(printf 'a1%.0s' {1..48})
    printf 'version = 1\nname = "prod"\nplatform = "aws-nitro"\nmax_age_s = 300\n[[release]]\nname = "1"\npcr0 = "%s"\npcr1 = "%s"\npcr2 = "%s"\n' \
        "$pcr" "$pcr" "$pcr" >"$sources/mvault-policies/prod.toml"
    mkdir "$work/tls"
    certificate "$work/tls/ca" /CN=ca keyUsage=critical,keyCertSign
    certificate "$work/tls/server" /CN=postgres.example subjectAltName=DNS:postgres.example
    certificate "$work/tls/client" /CN=mvault extendedKeyUsage=clientAuth
    cp "$work/tls/ca.pem" "$sources/mvault-postgres/ca.crt"
    cp "$work/tls/client.pem" "$sources/mvault-postgres/tls.crt"
    cp "$work/tls/client.key" "$sources/mvault-postgres/tls.key"
    "$python" "$deploy/tests/kubernetes.py" volumes "$sources" "$work/volumes"
    chmod 755 "$work/volumes"
}

# certificate FILE SUBJECT EXTENSION  signed by ca, which signs itself
certificate() {
    local signed=()
    # shellcheck disable=SC2054 # one word of X.509
    [[ $1 == */ca ]] || signed=(-CA "$work/tls/ca.pem" -CAkey "$work/tls/ca.key" -addext basicConstraints=critical,CA:FALSE)
    openssl req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj "$2" -addext "$3" "${signed[@]}" \
        -keyout "$1.key" -out "$1.pem" 2>/dev/null
}

database() {
    mkdir "$work/db"
    cp "$work/tls/server.pem" "$work/tls/server.key" "$work/tls/ca.pem" "$work/db/"
    chmod 600 "$work/db/server.key"
    chown -R postgres "$work/db"
    as_postgres "$postgres/initdb" -D "$work/db/data" -U postgres --auth=peer >/dev/null
    # by certificate, whose CN is the user; nothing without TLS
    printf 'local all postgres peer\nhostssl mvault mvault 10.5.0.0/16 cert\n' >"$work/db/data/pg_hba.conf"
    start_database
    as_postgres "$postgres/psql" -q -h "$work/db" -U postgres -c 'create role mvault login' -c 'create database mvault owner mvault' postgres
}

start_database() {
    ip netns exec "$ID-db" setpriv --reuid postgres --regid postgres --clear-groups "$postgres/pg_ctl" -D "$work/db/data" -s -w -l "$work/db/log" \
        -o "-h 10.4.0.5 -k $work/db -c ssl=on -c ssl_cert_file=$work/db/server.pem -c ssl_key_file=$work/db/server.key -c ssl_ca_file=$work/db/ca.pem" start
}

as_postgres() { (cd / && setpriv --reuid postgres --regid postgres --clear-groups "$@"); }

# In the pod's network namespace, as its user, with nothing that a restricted pod has not.
in_pod() {
    local pod=$1
    shift
    exec ip netns exec "$ID-$pod" setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"
}

pod() {
    # The tunnel's image is Debian's stunnel: here, with its volumes' paths.
    sed "s|/etc/mvault|$work/volumes|" "$work/volumes/tunnel/stunnel.conf" >"$work/stunnel.conf"
    (in_pod "$1" --reuid 65532 --regid 65532 --clear-groups stunnel "$work/stunnel.conf") >"$work/tunnel.$1" 2>&1 &
    started+=($!)
    local tries words
    mapfile -t words < <(manifest initContainers 0 startupProbe exec command)
    for ((tries = 0; tries < 50; tries++)); do
        (in_pod "$1" "${words[@]}") 2>>"$work/probe.log" && break
        sleep 0.1
    done
    ((tries < 50)) || die "pod $1: the tunnel's probe does not pass: $(cat "$work/tunnel.$1")"
    broker "$1"
}

# manifest STEP...  words of the manifest's pod, one a line
manifest() { "$python" "$deploy/tests/kubernetes.py" words "$@"; }

broker() {
    # A mount namespace of its own, that no other sees.
    local arguments
    mapfile -t arguments < <(manifest containers 0 args)
    # shellcheck disable=SC2016 # another shell's variables
    (
        exec ip netns exec "$ID-$1" unshare --mount --propagation private sh -eu -c '
            root=$1 volumes=$2
            shift 2
            mount --bind "$root" "$root"
            for volume in broker operator; do
                mount --bind "$volumes/$volume" "$root/etc/mvault/$volume"
                mount -o remount,bind,ro "$root/etc/mvault/$volume"
            done
            mount -o remount,bind,ro "$root"
            exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid --inh-caps=-all chroot --userspec=65532:65532 --groups= "$root" \
                /usr/bin/mvault "$@"
        ' broker "$root" "$work/volumes" "${arguments[@]}"
    ) >"$work/broker.$1" 2>&1 &
    brokers[$1]=$!
    started+=($!)
}
declare -A brokers

# probe POD PATH  as the kubelet's exec would; kubernetes.py demands these words of the manifest
probe() { (in_pod "$1" "$root/usr/bin/probe" "$ADMIN" "$2") 2>>"$work/probe.log"; }

ready() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        probe "$1" /readyz && break
        kill -0 "${brokers[$1]}" 2>/dev/null || die "pod $1 ended: $(cat "$work/broker.$1" "$work/tunnel.$1")"
        sleep 0.1
    done
    { probe "$1" /readyz && probe "$1" /healthz; } || die "pod $1 is not ready: $(cat "$work/broker.$1" "$work/tunnel.$1")"
    local status
    status=$(sed -n 's/^\(Uid\|CapEff\|CapPrm\|NoNewPrivs\):[[:space:]]*//p' "/proc/${brokers[$1]}/status" | tr '\t\n' '  ')
    [[ $status == "65532 65532 65532 65532 0000000000000000 0000000000000000 1 " ]] || die "pod $1 is not what the manifest says: $status"
    ! probe "$1" /nothing || die "the probe takes any answer"
}

# A challenge is an entry of nobody's log yet, but both give the same checkpoint, at the broker's own name and CA.
one_log() {
    local pod seen=()
    sed -n '/BEGIN/,/END/p' "$work/made/client.toml" | sed 's/.*\(-----BEGIN\)/\1/' >"$work/ca.pem"
    for pod in "${pods[@]}"; do
        seen+=("$(ip netns exec "$ID-db" curl -q --fail --silent --noproxy '*' --tlsv1.3 --cacert "$work/ca.pem" \
            --resolve "broker.example:8443:10.5.$pod.2" https://broker.example:8443/v1/log/checkpoint)") || die "pod $pod does not answer"
    done
    [[ ${seen[0]} == "${seen[1]}" && ${seen[0]} == broker.example/mvault* ]] || die "two logs: ${seen[*]}"
    echo "one log: both pods give the same signed checkpoint, over TLS 1.3, by the broker's name and CA"
}

# What the tunnel's settings are for: who is not the named server, or has no certificate, gets nowhere.
tunnels() {
    asks_through "the manifest's" '' || die "the manifest's tunnel does not lead to PostgreSQL: $(cat "$work/asked")"
    ! asks_through other 's/^checkHost = .*/checkHost = other.example/' || die "the tunnel takes another server"
    ! asks_through nobody '/^cert = /d; /^key = /d' || die "PostgreSQL takes clients without a certificate"
    echo "mistakes found: a tunnel to a server of another name, a tunnel without the client's certificate"
}

# asks_through NAME SED-SCRIPT  asks PostgreSQL through a tunnel beside pod 1's, its configuration changed.
asks_through() {
    local tunnel status=0
    sed -e "$2" -e 's/127.0.0.1:5432/127.0.0.1:5433/' "$work/stunnel.conf" >"$work/other.conf"
    (in_pod 1 --reuid 65532 --regid 65532 --clear-groups stunnel "$work/other.conf") >"$work/asked" 2>&1 &
    tunnel=$!
    started+=("$tunnel")
    sleep 0.5
    PGSSLMODE=disable PGGSSENCMODE=disable ip netns exec "$ID-1" "$postgres/psql" -h 127.0.0.1 -p 5433 -U mvault -Atc 'select 1' mvault >>"$work/asked" 2>&1 || status=1
    kill -TERM "$tunnel"
    wait "$tunnel" || true
    return "$status"
}

# Readiness goes, liveness stays, and it comes back by itself.
without_database() {
    as_postgres "$postgres/pg_ctl" -D "$work/db/data" -m fast -s stop
    ! probe 1 /readyz || die "ready without a database"
    probe 1 /healthz || die "not alive without a database: it would be restarted"
    start_database
    ready 1
    ready 2
    echo "database away: not ready, still alive; ready again when it is back"
}

stop() {
    local pod status
    for pod in "${pods[@]}"; do
        kill -TERM "${brokers[$pod]}"
        status=0
        wait "${brokers[$pod]}" || status=$?
        ((status == 0)) || die "pod $pod ended with $status: $(cat "$work/broker.$pod")"
    done
    echo "stopped: by SIGTERM, with 0"
}

main
