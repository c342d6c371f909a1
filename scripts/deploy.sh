#!/usr/bin/env bash
# Judges deploy/: CloudFormation on emulators of AWS, the segment's rules by packets, systemd's units, dashboards, the image, Kubernetes' manifests
# and the release. Makes what it needs and removes it; the network's, the container's and the release's part want root. One line a check; exits non-zero at the first that fails.
# Usage: deploy.sh [aws|segment|units|dashboards|kubernetes|container|release]...   all of them unless some are named
# MVAULT_BIN names a built mvault; otherwise it is built.

source "$(dirname "$0")/common.sh"

main() {
    local part parts=("$@")
    ((${#parts[@]} > 0)) || parts=(aws segment units dashboards kubernetes container release)
    "$REPO/scripts/setup.sh" deploy servers localstack postgres
    mvault=${MVAULT_BIN:-}
    if [[ -z $mvault ]]; then
        "$REPO/scripts/setup.sh" build
        build_workspace
        mvault=$(target_dir)/release/mvault
    fi
    mvault=$(realpath "$mvault")
    python=$(deploy_venv_dir)/bin
    for part in "${parts[@]}"; do
        case $part in
            aws | segment | units | dashboards | kubernetes | container | release) "judge_$part" ;;
            *) die "unknown part '$part'" ;;
        esac
    done
    say "deploy: all of it is as it should be"
}

judge_aws() {
    "$python/cfn-lint" "$REPO/deploy/aws/vault.yaml"
    echo "cfn-lint: deploy/aws/vault.yaml"
    local localstack=()
    if localstack_venv_dir >/dev/null; then localstack=("$(localstack_venv_dir)/bin/python"); fi
    run python "$REPO/deploy/tests/aws.py" "$mvault" "$(servers_venv_dir)/bin/ministack" "${localstack[@]}"
}

judge_segment() {
    namespaces_for segment || return 0
    python3 "$REPO/deploy/tests/segment.py"
}

judge_units() { "$REPO/deploy/tests/units.sh" "$mvault"; }

judge_dashboards() {
    "$python/yamllint" --strict -c "$REPO/deploy/tests/yamllint.yaml" "$REPO/deploy/dashboards"
    echo "yamllint: deploy/dashboards"
    run python "$REPO/deploy/tests/dashboards.py"
}

judge_kubernetes() {
    "$python/yamllint" --strict -c "$REPO/deploy/tests/yamllint.yaml" "$REPO/deploy/kubernetes" "$REPO/deploy/aws" "$REPO/deploy/ci"
    echo "yamllint: deploy/kubernetes, deploy/aws, deploy/ci"
    run python "$REPO/deploy/tests/kubernetes.py"
}

judge_container() {
    "$python/hadolint" "$REPO/deploy/Containerfile"
    echo "hadolint: deploy/Containerfile"
    namespaces_for container || return 0
    "$REPO/deploy/tests/container.sh" "$mvault" "$(postgres_bin)" "$python/python"
}

judge_release() {
    namespaces_for release || return 0
    "$REPO/scripts/setup.sh" release debian-root
    "$REPO/deploy/tests/release.sh" "$mvault" "$(debian_root)"
}

# Root is asked for; a machine that makes no namespaces even for root is not judged.
namespaces_for() {
    ((EUID == 0)) || die "$1: namespaces need root: run as root, or name the other parts"
    unshare --net --mount true 2>/dev/null && return
    say "deploy: $1 skipped: this machine makes no namespaces"
    return 1
}

# A Python program that leaves nothing beside the sources.
run() { PYTHONDONTWRITEBYTECODE=1 "$python/$1" "${@:2}"; }

main "$@"
