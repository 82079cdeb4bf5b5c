#!/usr/bin/env bash
# Install the wheel and the source distribution in $DIST as users do: clean environments, outside the checkout.
# Needs uv on PATH (`make package` sees to it): it shares one copy of PyTorch between environments.
set -euo pipefail
cd "$(dirname "$0")/.."
ci=$PWD/.ci
dist=$(cd "${DIST:-dist}" && pwd)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset VIRTUAL_ENV PYTHONPATH
mkdir "$scratch/empty"
cd "$scratch/empty"

install() { # install NAME REQUIREMENT: a new environment $scratch/NAME with REQUIREMENT in it
    uv venv --quiet --python "${PYTHON:-python3}" "$scratch/$1"
    uv pip install --quiet --python "$scratch/$1" "$2"
}

echo "-- contents"
"${PYTHON:-python3}" "$ci/check_dist.py" "$dist"

echo "-- base wheel: the buffer alone"
install base "crl @ file://$(echo "$dist"/*.whl)"
"$scratch/base/bin/python" "$ci/smoke.py" --base
"$scratch/base/bin/crl" --help >/dev/null
"$scratch/base/bin/crl" bench buffer --quick --workload ant --rows 1e4 >/dev/null
code=0
said=$("$scratch/base/bin/crl" train 2>&1) || code=$?
[[ $code == 2 && $said == *'pip install "crl[train]"'* && $said != *Traceback* ]] || {
    echo "FAILED: \`crl train\` without the extra exited $code and said: $said"
    exit 1
}

echo "-- wheel with training: a minute of the ant"
install train "crl[train] @ file://$(echo "$dist"/*.whl)"
export PATH="$scratch/train/bin:$PATH"
python "$ci/smoke.py"
python "$ci/train_briefly.py" --seconds 60 --rounds 1 -- crl train --env ant --run-dir run
crl eval run --num-eval-episodes 4

echo "-- source distribution: builds and works"
install sdist "crl @ file://$(echo "$dist"/*.tar.gz)"
"$scratch/sdist/bin/python" "$ci/smoke.py" --base
