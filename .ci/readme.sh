#!/usr/bin/env bash
# Run the commands of README.md, read from README.md itself, in a clean virtual environment.
#
#   readme.sh train   the first command until it has learnt a little, then every other shell block of the page
#   readme.sh test    the second command
set -euo pipefail
cd "$(dirname "$0")/.."

# The text of the N-th shell block of README.md.
block() {
    awk -v wanted="$1" '/^```sh$/ { inside = ++n == wanted; next } /^```$/ { inside = 0 } inside' README.md
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset VIRTUAL_ENV PYTHONPATH
"${PYTHON:-python3}" -m venv "$scratch/venv"
export PATH="$scratch/venv/bin:$PATH"

case "$1" in
train)
    command=$(block 1)
    install=${command%% && *} train=${command#* && }
    echo "\$ $install"
    bash -euo pipefail -c "$install"
    echo "\$ $train"
    before=$(ls -d runs/* 2>/dev/null || true)
    read -ra words <<<"$train"
    # The whole run takes days on two cores: stop it after its first full round of updates, and go on with it.
    python .ci/train_briefly.py --rounds 1 --max-gib 4 -- "${words[@]}"
    run=$(comm -13 <(sort <<<"$before") <(ls -d runs/* | sort))
    python .ci/train_briefly.py --max-gib 4 -- crl train --resume "$run"
    crl eval "$run" --num-eval-episodes 4
    rm -rf "$run"

    checkout=$PWD
    mkdir "$scratch/empty"
    cd "$scratch/empty"
    for ((n = 3; ; n++)); do
        commands=$(cd "$checkout" && block "$n")
        [[ -n $commands ]] || break
        echo "\$ $commands"
        bash -euo pipefail -c "$commands"
    done
    ;;
test)
    command=$(block 2)
    echo "\$ $command"
    bash -euo pipefail -c "$command"
    ;;
*)
    echo "usage: readme.sh train | test" >&2
    exit 2
    ;;
esac
