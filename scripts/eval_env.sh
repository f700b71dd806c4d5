#!/usr/bin/env bash
# Makes .venv-eval: lmms-eval 0.7.3 and vl3, beside .venv, with the same pins. lmms-eval wants av below 16, which its tasks
# for the paper's benchmarks do not use; images/harness/left-out.txt keeps ours, so that videos are decoded as they were in training.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" # a company's own CA is known to the system, not to uv

uv=$(command -v uv || echo "$PWD/.venv/bin/uv")
"$uv" --version > /dev/null 2>&1 || { echo "[eval-env] uv is missing: make setup" >&2; exit 2; }
[ -x .venv-eval/bin/python ] || "$uv" venv --quiet --python .venv/bin/python .venv-eval
echo "[eval-env] installing lmms-eval and vl3 (a first time downloads some 500 MB beside what .venv has)"
"$uv" pip install --quiet --python .venv-eval/bin/python --compile-bytecode \
    -c constraints.txt -c images/harness/requirements.txt --override images/harness/left-out.txt \
    -r images/harness/requirements.in -e .
echo "[eval-env] done: .venv-eval/bin/vl3 eval run, .venv-eval/bin/lmms-eval --model vl3"
