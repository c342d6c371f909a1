#!/usr/bin/env bash
# Publishes a model from a CI job: what the GitHub action and the GitLab template run. Needs mvault and, for a role, curl.
# All it is told is in the environment, so that nothing is in argv and no quoting can go wrong:
#   MVAULT_MODEL, MVAULT_VAULT, MVAULT_NAME   a file or folder; s3://BUCKET/PREFIX; the model's name
#   MVAULT_RECIPIENTS                         a file of recipients, one a line
#   MVAULT_SIGN_KEY                           the publisher's private key, PEM; a secret of the CI
#   MVAULT_JOB                                what this job publishes: repository and commit; published once
#   MVAULT_TAG, MVAULT_MODEL_VERSION, MVAULT_SOURCE, MVAULT_BUILDER   as the flags of `mvault publish`, or empty
#   MVAULT_SUMMARY                            where the JSON summary goes [default: mvault-publish.json]
#   MVAULT_ROLE_ARN                           the role in AWS, by OIDC; empty: credentials are there in another way
#   MVAULT_ID_TOKEN                           the CI's token for sts.amazonaws.com; GitHub's is asked for here
# Exits as mvault does: 0 published, 1 refused, 2 usage, 5 the store failed (run it again: it goes on).

set -euo pipefail

main() {
    local sign=${MVAULT_SIGN_KEY:?a secret of the CI: the private key in PEM} summary=${MVAULT_SUMMARY:-mvault-publish.json}
    unset MVAULT_SIGN_KEY # no process started here has it in its environment
    if [[ -z ${AWS_REGION:-} ]]; then unset AWS_REGION; fi # an input left out is not a region
    if [[ -n ${MVAULT_ROLE_ARN:-} ]]; then assume_role; fi
    unset MVAULT_ID_TOKEN ACTIONS_ID_TOKEN_REQUEST_TOKEN

    local command=(mvault publish "${MVAULT_MODEL:?}" "${MVAULT_VAULT:?}" "${MVAULT_NAME:?}" --json --job "${MVAULT_JOB:?}")
    optional -R "${MVAULT_RECIPIENTS:-}"
    optional --tag "${MVAULT_TAG:-}"
    optional --model-version "${MVAULT_MODEL_VERSION:-}"
    optional --source "${MVAULT_SOURCE:-}"
    optional --builder "${MVAULT_BUILDER:-}"
    if [[ ${GITHUB_ACTIONS:-} == true ]]; then command+=(--annotate github); fi

    local status=0
    # The key goes through a pipe: on no disk, in no argv.
    "${command[@]}" --sign <(printf '%s\n' "$sign") >"$summary" || status=$?
    if ((status == 0)); then
        report "$summary"
    fi
    exit "$status"
}

# A flag, if it has a value.
optional() {
    if [[ -n $2 ]]; then command+=("$1" "$2"); fi
}

# Web identity as every AWS tool takes it: the role, and a file with the token, in memory, for this process alone.
assume_role() {
    [[ -d /dev/shm ]] || { echo "publish: no /dev/shm to keep the token in memory" >&2; exit 1; }
    umask 077
    AWS_WEB_IDENTITY_TOKEN_FILE=$(mktemp /dev/shm/mvault-token.XXXXXXXX)
    trap 'rm -f "$AWS_WEB_IDENTITY_TOKEN_FILE"' EXIT
    token >"$AWS_WEB_IDENTITY_TOKEN_FILE"
    [[ -s $AWS_WEB_IDENTITY_TOKEN_FILE ]] || { echo "publish: the CI gave no token: in GitHub the job needs 'permissions: id-token: write'" >&2; exit 1; }
    export AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN=$MVAULT_ROLE_ARN AWS_ROLE_SESSION_NAME=mvault-publish
}

token() {
    if [[ -n ${MVAULT_ID_TOKEN:-} ]]; then
        printf '%s' "$MVAULT_ID_TOKEN"
    elif [[ -n ${ACTIONS_ID_TOKEN_REQUEST_URL:-} ]]; then
        printf 'header = "Authorization: bearer %s"\n' "${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-}" |
            curl --silent --show-error --fail --retry 3 --config - "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=sts.amazonaws.com" |
            sed -n 's/.*"value" *: *"\([^"]*\)".*/\1/p' | tr -d '\n'
    fi
}

# For people, and for the job's next steps.
report() {
    local version id
    version=$(sed -n 's/^  "model_version": \([0-9]*\),\{0,1\}$/\1/p' "$1")
    id=$(sed -n 's/^  "id": "\([0-9a-f]*\)",\{0,1\}$/\1/p' "$1")
    echo "published: $MVAULT_NAME:$version in $MVAULT_VAULT${MVAULT_TAG:+, tagged $MVAULT_TAG}"
    if [[ -n ${GITHUB_OUTPUT:-} ]]; then
        printf 'version=%s\nid=%s\nsummary=%s\n' "$version" "$id" "$1" >>"$GITHUB_OUTPUT"
    fi
    if [[ -n ${GITHUB_STEP_SUMMARY:-} ]]; then
        # shellcheck disable=SC2016 # Markdown's backticks
        printf '`%s:%s` is in `%s`%s\n' "$MVAULT_NAME" "$version" "$MVAULT_VAULT" "${MVAULT_TAG:+, tagged \`$MVAULT_TAG\`}" >>"$GITHUB_STEP_SUMMARY"
    fi
}

main
