#!/usr/bin/env bash
# Judges deploy/systemd: systemd's own verdict on the units, their exposure, the users, and that the commands in them start a real broker.
# systemd itself is not started. One line a check on stdout; fails at the first that fails. Usage: units.sh MVAULT

set -euo pipefail
umask 022
mvault=$1
systemd=$(cd "$(dirname "$0")/../systemd" && pwd)
# What `systemd-analyze security` gives, in tenths of its 0 (closed) to 10 (open). The enclave host needs devices, other users' files and
# what nitro-cli reads in /proc, so it is a little more open.
BROKER_MOST=14
ENCLAVE_MOST=20

die() {
    printf 'units.sh: error: %s\n' "$*" >&2
    exit 1
}

work=$(mktemp -d "${TMPDIR:-/tmp}/mvault-units.XXXXXX")
broker=
clean_up() {
    [[ -z $broker ]] || kill -KILL "$broker" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

main() {
    # A system of their own, with the programs that they name.
    root=$work/root
    mkdir -p "$root"/{bin,usr/local/bin,usr/lib/systemd,etc/systemd/system}
    cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/"
    cp /bin/kill /bin/sh "$root/bin/"
    cp /bin/true "$root/usr/local/bin/mvault"
    cp "$systemd"/*.service "$root/etc/systemd/system/"
    verify mvault-broker.service
    verify mvault-enclave@.service
    secure mvault-broker.service "$BROKER_MOST"
    secure mvault-enclave@.service "$ENCLAVE_MOST"
    mkdir "$root/etc/systemd/system/mvault-broker.service.d"
    cp "$systemd/passphrase.conf" "$root/etc/systemd/system/mvault-broker.service.d/"
    verify mvault-broker.service "with passphrase.conf"
    loose
    users
    # As a user, which the units' are: root's SQLite asks for more.
    program=$work/mvault
    cp "$mvault" "$program"
    chmod 711 "$work"
    starts_with_key_file
    within_bounds
    starts_with_passphrase
}

verify() {
    local said
    said=$(systemd-analyze verify --root="$root" --man=no "$1" 2>&1) || die "$1 ${2:-}: $said"
    # what it only warns of, it takes all the same
    [[ -z $said ]] || die "$1 ${2:-}: $said"
    echo "systemd-analyze verify: $1${2:+ $2}"
}

exposure() { systemd-analyze security --offline=true --no-pager --root="$root" --threshold="$2" "$1" 2>&1; }

secure() {
    local said
    said=$(exposure "$1" "$2") || die "$1 is more open than 0.1 x $2: $(tail -n 1 <<<"$said")"
    echo "systemd-analyze security: $1: $(sed -n 's/.*level for [^:]*: \([0-9.]*\).*/\1/p' <<<"$said"), at most $((${2} / 10)).$((${2} % 10))"
}

# The mistakes that must be found: a unit that runs as root with all capabilities, and one with a misspelt setting.
loose() {
    sed -e '/^User=/d' -e '/^CapabilityBoundingSet=/d' -e '/^SystemCallFilter=/d' "$systemd/mvault-broker.service" \
        >"$root/etc/systemd/system/loose.service"
    ! exposure loose.service "$BROKER_MOST" >/dev/null || die "a loose unit was not found"
    echo "mistake found: a unit that runs as root with every capability and system call"
    sed 's/^ProtectSystem=strict/ProtectSytem=strict/' "$systemd/mvault-broker.service" >"$root/etc/systemd/system/misspelt.service"
    ! (verify misspelt.service) >/dev/null 2>&1 || die "a misspelt setting was not found"
    echo "mistake found: a misspelt setting"
}

users() {
    mkdir -p "$root/etc" "$root/usr/lib/sysusers.d"
    systemd-sysusers --root="$root" "$systemd/mvault.sysusers" 2>/dev/null || die "systemd-sysusers refuses mvault.sysusers"
    local user
    for user in mvault-broker mvault-enclave; do
        grep -q "^$user:x:[0-9]*:[0-9]*:.*:/var/lib/$user:/usr/sbin/nologin$" "$root/etc/passwd" || die "sysusers: $user: $(cat "$root/etc/passwd")"
        grep -q "^User=$user$" "$systemd"/*.service || die "no unit runs as $user"
    done
    grep -q '^ne:x:[0-9]*:mvault-enclave$' "$root/etc/group" || die "sysusers: mvault-enclave is not in group ne"
    echo "systemd-sysusers: mvault-broker, mvault-enclave (in group ne), without shell"
}

# The units' own ExecStart, with systemd's specifiers filled in; what a credential holds is never an argument.
starts_with_key_file() {
    local state=$work/key-file credentials=$work/credentials line
    mkdir -p "$state/mvault-broker" "$credentials"
    "$mvault" keygen -o "$credentials/operator" >"$work/operator.pub" 2>/dev/null
    "$mvault" broker init -q "$state/mvault-broker/broker" --host localhost -R "$work/operator.pub" "${PORTS[@]}" >/dev/null
    "$mvault" policy new -q --from <(measurements) --name prod --release 1 -o "$state/mvault-broker/broker/policies/prod.toml" >/dev/null
    line=$(sed -n 's/^ExecStart=//p' "$systemd/mvault-broker.service")
    line=${line//%S/$state} line=${line//%d/$credentials}
    line=${line//\/usr\/local\/bin\/mvault/$program}
    owned
    # shellcheck disable=SC2086 # words, as systemd splits them
    start strace -D -f -qq -o "$work/trace" "${USER_OF_UNIT[@]}" $line
    ask
    reload_and_stop "the unit's command, with the key file of its credential"
}

starts_with_passphrase() {
    local state=$work/passphrase line
    mkdir -p "$state"
    # made for this run, and gone with it
    (umask 077 && head -c 18 /dev/urandom | base64 >"$work/credentials/passphrase")
    "$mvault" broker init -q "$state/broker" --host localhost --passphrase-fd 3 "${PORTS[@]}" 3<"$work/credentials/passphrase" >/dev/null
    line=$(sed -n "s/^ExecStart=\/bin\/sh -c '\(.*\)'$/\1/p" "$systemd/passphrase.conf")
    [[ -n $line ]] || die "passphrase.conf: no ExecStart of the known form"
    owned
    STATE_DIRECTORY=$state CREDENTIALS_DIRECTORY=$work/credentials \
        start "${USER_OF_UNIT[@]}" /bin/sh -c "${line//\/usr\/local\/bin\/mvault/$program}"
    if tr '\0' '\n' <"/proc/$broker/cmdline" | grep -qFf "$work/credentials/passphrase"; then die "the passphrase is an argument"; fi
    if tr '\0' '\n' <"/proc/$broker/environ" | grep -qFf "$work/credentials/passphrase"; then die "the passphrase is in the environment"; fi
    reload_and_stop "passphrase.conf's command, with the passphrase of its credential on a descriptor"
}

measurements() {
    local pcr
    pcr=$(printf 'a1%.0s' {1..48})
    printf '{"Measurements": {"HashAlgorithm": "Sha384 { ... }", "PCR0": "%s", "PCR1": "%s", "PCR2": "%s"}}' "$pcr" "$pcr" "$pcr"
}

# A connection with TLS, and a look at the database.
ask() {
    local listen admin
    listen=$(sed -n 's|.*listening on https://\([0-9.:]*\).*|\1|p' "$work/out") admin=$(sed -n 's|.*health on http://\([0-9.:]*\).*|\1|p' "$work/out")
    curl -q --fail --silent --noproxy '*' -o "$work/asked" "http://$admin/readyz" || die "not ready: $(cat "$work/out")"
    curl -q --fail --silent --noproxy '*' -o "$work/asked" --insecure -X POST "https://$listen/v1/challenge" || die "no challenge: $(cat "$work/out")"
}

# What that broker asked of the kernel, from its first instruction to its last, and what the unit lets it ask.
within_bounds() {
    local allowed denied used other
    allowed=$(members @system-service) denied=$(members @privileged && members @ipc)
    allowed=$(grep -vxFf <(echo "$denied") <<<"$allowed" | sort -u)
    # setpriv, which systemd's own changes of user stand for here, ends where it starts the broker
    used=$(sed '1,/execve("[^"]*\/mvault"/d' "$work/trace" | sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p' | sort -u)
    (($(wc -l <<<"$used") > 30)) || die "strace saw next to nothing: $used"
    other=$(comm -23 <(echo "$used") <(echo "$allowed"))
    [[ -z $other ]] || die "SystemCallFilter would forbid what the broker does: $other"
    other=$(sed -n 's/.*socket(\(AF_[A-Z0-9]*\).*/\1/p' "$work/trace" | sort -u | grep -vxE 'AF_INET|AF_INET6|AF_UNIX' || true)
    [[ -z $other ]] || die "RestrictAddressFamilies would forbid what the broker does: $other"
    ! grep -E 'PROT_WRITE\|PROT_EXEC' "$work/trace" || die "MemoryDenyWriteExecute would forbid what the broker does"
    echo "within bounds: $(wc -l <<<"$used") system calls of the broker, all of them allowed by the unit; IP and Unix sockets; no writable code"
}

# members @SET  the system calls in it
members() {
    local member
    systemd-analyze syscall-filter "$1" | sed -n 's/^    \([@a-z0-9_-]*\)$/\1/p' |
        while read -r member; do
            if [[ $member == @* ]]; then members "$member"; else echo "$member"; fi
        done
}

# The unit's user, in place of systemd's.
USER_OF_UNIT=()
((EUID != 0)) || USER_OF_UNIT=(setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set=-all)
owned() { ((EUID != 0)) || chown -R 65532:65532 "$work"/key-file "$work"/credentials "$work"/passphrase* 2>/dev/null || true; }

# Ports that the system chooses: two runs at once do not meet.
PORTS=(--listen 127.0.0.1:0 --admin 127.0.0.1:0)

start() {
    : >"$work/out"
    "$@" >"$work/out" 2>&1 &
    broker=$!
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        grep -q 'metrics and health on' "$work/out" && return
        kill -0 "$broker" 2>/dev/null || break
        sleep 0.1
    done
    die "the broker does not start: $(cat "$work/out")"
}

reload_and_stop() {
    kill -HUP "$broker"
    sleep 0.3
    kill -TERM "$broker"
    local status=0
    wait "$broker" || status=$?
    broker=
    ((status == 0)) || die "after SIGHUP and SIGTERM the broker ended with $status: $(cat "$work/out")"
    echo "started, reloaded, stopped: $1"
}

main
