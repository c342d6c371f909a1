#!/usr/bin/env bash
# make s3: an S3 server (SeaweedFS) on this machine alone, with an empty bucket `models`, to try mvault with.
# Usage: serve-s3.sh [--background] [--port N]
# Prints the lines that point mvault at it. Ctrl-C ends it, and nothing stays: not the objects either.
# --background returns when it is ready, with the same lines on stdout and how to end it on stderr:
#   eval "$(scripts/serve-s3.sh --background)"      ends with: kill "$MVAULT_S3_PID"

source "$(dirname "$0")/common.sh"

BUCKET=models
ACCESS_KEY=mvault-tour
SECRET_KEY=mvault-tour-secret
PORT=8333
BACKGROUND=

main() {
    while (($# > 0)); do
        case $1 in
            --background) BACKGROUND=1 ;;
            --port)
                PORT=${2:-}
                [[ $PORT =~ ^[0-9]{1,5}$ ]] || die "--port wants a number"
                shift
                ;;
            *) die "unknown option '$1' (usage: serve-s3.sh [--background] [--port N])" ;;
        esac
        shift
    done
    "$REPO/scripts/setup.sh" servers
    local ports work
    ports=$(free_ports "$PORT") || die "something listens on port $PORT already: give another one with --port"
    work=$(mktemp -d "${TMPDIR:-/tmp}/mvault-s3.XXXXXX")
    identities >"$work/s3.json"
    # a server of its own session: a Ctrl-C for us must not reach it before we have our word
    # shellcheck disable=SC2086 # eight words
    setsid bash -c "$KEEPER" keeper "$work" "$(servers_venv_dir)/bin/weed" $ports </dev/null >"$work/log" 2>&1 9>&- &
    local keeper=$!
    trap 'trap - INT TERM EXIT; kill "$keeper" 2>/dev/null; wait "$keeper" 2>/dev/null; exit 130' INT TERM
    trap 'kill "$keeper" 2>/dev/null' EXIT
    wait_ready "$keeper" "$work/log"

    exports
    if [[ $BACKGROUND ]]; then
        trap - EXIT INT TERM
        printf 'export MVAULT_S3_PID=%s\n' "$keeper"
        say "kill $keeper   # ends the server, and its objects with it"
        return
    fi
    say "serving s3://$BUCKET on http://127.0.0.1:$PORT until Ctrl-C; nothing is kept"
    wait "$keeper"
}

exports() {
    printf 'export AWS_ACCESS_KEY_ID=%s\n' "$ACCESS_KEY"
    printf 'export AWS_SECRET_ACCESS_KEY=%s\n' "$SECRET_KEY"
    printf 'export AWS_ENDPOINT_URL=http://127.0.0.1:%s\n' "$PORT"
    printf 'export AWS_REGION=us-east-1\n'
}

identities() {
    printf '{"identities":[{"name":"tour","credentials":[{"accessKey":"%s","secretKey":"%s"}],' "$ACCESS_KEY" "$SECRET_KEY"
    printf '"actions":["Admin","Read","Write","List","Tagging"]}]}\n'
}

# Runs the server in a folder and removes the folder when it is told to end or the server ends. SeaweedFS does not end
# by itself when asked, once its stores are closed.
# shellcheck disable=SC2016 # another shell's variables
KEEPER='
    work=$1 weed=$2
    shift 2
    "$weed" -logtostderr=true server -s3 -ip=127.0.0.1 -ip.bind=127.0.0.1 -dir="$work" -s3.config="$work/s3.json" \
        -s3.port="$1" -s3.port.grpc="$2" -master.port="$3" -master.port.grpc="$4" -volume.port="$5" \
        -volume.port.grpc="$6" -filer.port="$7" -filer.port.grpc="$8" -s3.port.iceberg=0 -s3.port.lance=0 -s3.autoCreateBucket=false \
        -filer.localSocket="$work/filer.sock" -s3.localSocket="$work/s3.sock" -master.peers=none \
        -master.telemetry=false -master.volumeSizeLimitMB=1024 -volume.max=1000 &
    server=$!
    ended() {
        trap "" INT TERM HUP
        kill -KILL "$server" 2>/dev/null
        wait "$server"
        rm -rf "$work" "/tmp/seaweedfs-s3-grpc-$2.sock" "/tmp/seaweedfs-master-grpc-$4.sock" \
            "/tmp/seaweedfs-volume-grpc-$6.sock" "/tmp/seaweedfs-filer-grpc-$8.sock"
        exit 0
    }
    trap "ended \"\$@\"" INT TERM HUP
    wait "$server"
    ended "$@"
'

# Prints eight ports that nobody listens on, the first being the given one; fails when that one is taken.
free_ports() {
    "$(servers_venv_dir)/bin/python" - "$1" <<'PY'
import random, socket, sys


def free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


wanted = int(sys.argv[1])
if not free(wanted):
    sys.exit(1)
# below those that the system gives to outgoing connections
others = (port for port in random.sample(range(20000, 32000), 12000) if port != wanted and free(port))
print(wanted, *(next(others) for _ in range(7)))
PY
}

# wait_ready KEEPER LOG  returns when an object could be written to the bucket.
wait_ready() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        kill -0 "$1" 2>/dev/null || break
        put "/$BUCKET" "" && put "/$BUCKET/ready" ready && request DELETE "/$BUCKET/ready" "" && return
        sleep 0.1
    done
    tail -n 20 "$2" >&2 || true
    die "the server does not start"
}
put() { request PUT "$1" "$2"; }
request() {
    curl -q --fail --silent --output /dev/null --noproxy '*' --aws-sigv4 aws:amz:us-east-1:s3 \
        --user "$ACCESS_KEY:$SECRET_KEY" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -X "$1" --data-binary "$3" \
        "http://127.0.0.1:$PORT$2"
}

main "$@"
