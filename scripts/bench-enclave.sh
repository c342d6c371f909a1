#!/usr/bin/env bash
# make bench, the enclave's part: boot, attestation with release, and the rate of the weights beside the raw rate of the same
# vsock in the same run; inferences inside beside the same engine outside. bench-enclave.sh ROUNDS. Emulated, on this machine.

source "$(dirname "$0")/common.sh"

rounds=${1:-3}
"$REPO/scripts/setup.sh" build emulator eif
emulator=$(emulator_dir) eif=$(eif_dir)/mvault-eif
guest=$(dirname "$("$REPO/scripts/guest.sh")")
models=$("$REPO/scripts/models.sh")
bin=$(target_dir)/release

work=$(mktemp -d "${TMPDIR:-/tmp}/mvault-bench.XXXXXX")
children=()
clean_up() {
    ((${#children[@]} == 0)) || kill "${children[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap clean_up EXIT
cd "$work"
export HOME=$work PATH=$bin:$PATH

# appears FILE WORDS
appears() {
    local tries=0
    until grep -q "$2" "$1"; do
        ((++tries < 1200)) || die "$(<"$1")"
        sleep 0.1
    done
}

quietly mvault keygen
quietly mvault keygen --signing -o sign.pem
quietly "$REPO/scripts/dev-root.sh" dev
quietly mvault broker init broker --host localhost --listen 127.0.0.1:0 --admin 127.0.0.1:0
quietly mvault enclave config --broker broker/client.toml --model minilm --signer sign.pem.pub -o enclave.toml
for name in init probe; do
    quietly mvault enclave build --kernel "$emulator/bzImage" --init "$guest/mvault-$name" --eif-tool "$eif" \
        --config enclave.toml -o "$name.eif"
done
quietly mvault enclave measure init.eif --policy prod -o broker/policies/prod.toml
{ mvault broker recipient broker prod && sed -n 's/^# .*\(mvault-xw1-[^ ]*\).*/\1/p' .config/mvault/identity.txt; } >line.txt
quietly mvault seal "$models/minilm" -o minilm.mvault --sign sign.pem -R line.txt
mvault broker serve broker --dangerous-dev-root dev/root.pem >/dev/null 2>broker.log &
children+=($!)
appears broker.log 'health on'
address=$(sed -n 's|.*listening on https://\([^,]*\),.*|\1|p' broker.log)

# run NAME LOG  boots an image until it is ready or done; its parent's process is $!.
run() {
    mvault enclave run "$1.eif" minilm.mvault --broker "$address" --listen 127.0.0.1:0 --emulator "$emulator" \
        --dangerous-dev-signer dev --json >"$2" 2>&1 &
}

for ((round = 1; round <= rounds; round++)); do
    say "bench: enclave, round $round of $rounds"
    run probe "probe-$round"
    wait $! || true
    run init "init-$round"
    machine=$!
    children+=("$machine")
    appears "init-$round" '"ready"'
    url=$(sed -n 's|.*"ready":"\([^"]*\)".*|\1|p' "init-$round")
    "$bin/examples/enclave_load" "$url" broker/policies/prod.toml dev/root.pem 5 >"inside-$round"
    kill "$machine"
    wait "$machine" || true
    "$guest/mvault-embed" minilm.mvault .config/mvault/identity.txt 100 >"outside-$round"
done

python3 - "$rounds" <<'PY'
import json, re, statistics, sys

rounds = range(1, int(sys.argv[1]) + 1)

def lines(name):
    rows = [json.loads(row) for row in open(name) if row.startswith('{"')]
    return [(row["s"], row["line"]) for row in rows if "line" in row]

def found(texts, pattern):
    return next(float(m[1]) for text in texts if (m := re.search(pattern, text)))

table = {}
def add(name, value):
    table.setdefault(name, []).append(value)

for n in rounds:
    probe, init = lines(f"probe-{n}"), lines(f"init-{n}")
    raw = found([l for _, l in probe], r"at best ([\d.]+) MB/s")
    told = [l for _, l in init]
    add("start to init, s", next(s for s, l in init if "[E-1]" in l))
    add("attest and release, ms", found(told, r"in (\d+) ms"))
    load = found(told, r"s, (\d+) MB/s")
    add("start to ready, s", next(s for s, l in init if "[E-10]" in l))
    add("raw vsock, MB/s", raw)
    add("weights into place, MB/s", load)
    add("weights / raw", load / raw)
    add("BLAKE3 inside, one core, MB/s", found([l for _, l in probe], r"BLAKE3: ([\d.]+)"))
    add("AES-256-GCM inside (ring), one core, MB/s", found([l for _, l in probe], r"ring: ([\d.]+)"))
    add("peak memory inside, MB", found(told, r"peak memory ([\d.]+) MB"))
    inside, outside = open(f"inside-{n}").read(), open(f"outside-{n}").read()
    add("TLS and attestation of a new connection, ms", found([inside], r"connection (\d+) ms"))
    add("inferences/s inside", found([inside], r"([\d.]+) inferences/s"))
    add("inferences/s outside, same engine", found([outside], r"([\d.]+) inferences/s"))
    add("outside / inside", table["inferences/s outside, same engine"][-1] / table["inferences/s inside"][-1])
    add("weights into place outside, MB/s", found([outside], r"loaded (\d+) MB/s"))

print(f"Enclave in QEMU by emulation, MiniLM 91.6 MB, medians of {len(rounds)} rounds")
for name, values in table.items():
    print(f"  {statistics.median(values):>9.2f}  {name}")
PY
