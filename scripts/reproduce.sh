#!/usr/bin/env bash
# Builds the release's program a second time, from a copy of the sources in another folder, into another target folder, with another clock zone,
# locale and umask, and compares the bytes with the first build's. What differs is kept and named. Usage: reproduce.sh
# The first build is the release's own (scripts/release.sh): where CI builds with a release's flags it is there already.

source "$(dirname "$0")/common.sh"

main() {
    "$REPO/scripts/setup.sh" build release
    cd "$REPO"
    local first second began=$SECONDS
    first=$(release_build) || die "the first build failed"
    work=$(mktemp -d "$CACHE/reproduce.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/elsewhere"
    # what is not ignored, committed or not
    git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -cf - | tar -xf - -C "$work/elsewhere"
    second=$(
        cd "$work/elsewhere" || exit 1
        umask 077
        unset RUSTFLAGS CFLAGS CXXFLAGS
        TZ=Asia/Tokyo LC_ALL=C CARGO_TARGET_DIR=$work/out bash -c 'source scripts/common.sh && umask 077 && release_build'
    ) || die "the second build failed"
    compare "$first" "$second"
    say "reproduce: twice the same program, $(stat -c %s "$first") bytes, SHA-256 $(sha256sum "$first" | cut -c1-64) ($((SECONDS - began)) s)"
}

compare() {
    cmp -s "$1" "$2" && return
    local keep=$CACHE/reproduce-differs
    mkdir -p "$keep"
    cp "$1" "$keep/first"
    cp "$2" "$keep/second"
    readelf -SW "$1" >"$keep/first.sections"
    readelf -SW "$2" >"$keep/second.sections"
    say "$(cmp "$1" "$2" 2>&1)"
    die "two builds of the same sources differ: both are in $keep (diffoscope tells where)"
}

main "$@"
