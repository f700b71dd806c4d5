#!/usr/bin/env bash
# Makes .venv with the pinned dependencies and vl3 itself. `make setup` calls it, and so does every target that needs it.
# PYTHON=/path/to/python3 chooses the interpreter. A CPU build of torch satisfies the pin as well. The arguments are the
# targets that wait for it: what run-pipeline was asked to do is checked before minutes of installation.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" # a company's own CA is known to the system, not to uv

say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 2; }

need_program() {
    command -v "$1" > /dev/null || fail "$1 is missing: $2. Install it (Debian: apt-get install $1) and start again."
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer. Name one, or leave PYTHON out."
        command -v -- "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3; do
        if is_new_enough "$candidate"; then command -v "$candidate"; return; fi
    done
    fail "no Python 3.11 or newer is on the PATH. Install one (Debian: apt-get install python3.11 python3.11-venv)" \
        "or name it: make setup PYTHON=/path/to/python3.11"
}

retry() { # retry COMMAND...: three tries, for networks that stumble
    local try
    for try in 1 2 3; do
        if "$@"; then return 0; fi
        if [ "$try" -lt 3 ]; then say "that failed; try $((try + 1)) of 3 in $((try * 5)) s"; sleep $((try * 5)); fi
    done
    return 1
}

ensure_venv_module() { # Debian splits venv from Python
    if "$1" -c 'import ensurepip' 2> /dev/null; then return; fi
    local package
    package="python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        say "this Python has no venv module: installing $package"
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package") > /dev/null \
            || fail "could not install $package. Install it by hand and start again."
    else
        fail "this Python has no venv module. Install it (Debian: sudo apt-get install $package) and start again."
    fi
}

make_venv() {
    local python
    python=$(find_python)
    say "making .venv with $("$python" --version) ($python)"
    rm -rf .venv
    if command -v uv > /dev/null && uv venv --quiet --python "$python" .venv 2> /dev/null; then return; fi
    ensure_venv_module "$python"
    "$python" -m venv .venv
}

install_packages() { # install into .venv: with uv where it can be had, else with pip, which shows its own progress
    local uv=uv
    if ! uv --version > /dev/null 2>&1; then
        uv=.venv/bin/uv
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv 2> /dev/null || uv=
    fi
    if [ -n "$uv" ]; then
        retry .venv/bin/python scripts/install.py "$uv" .venv/bin/python "$@"
    else
        retry .venv/bin/python -m pip install --disable-pip-version-check "$@"
    fi
}

for target; do
    if [ "$target" = run-pipeline ]; then python=$(find_python); "$python" scripts/preflight.py; fi
done
need_program git "a run records the commit it was made from"
need_program g++ "DeepSpeed looks for a C++ compiler"
mkdir -p build
exec 9> build/setup.lock
flock -n 9 || { say "another set-up is running in this checkout: waiting for it"; flock 9; }

if ! is_new_enough .venv/bin/python; then make_venv; fi
say "installing the pinned dependencies (a first time downloads some 3 GB and takes minutes)"
install_packages -c constraints.txt -e '.[dev]' \
    || fail "the dependencies could not be installed: see the reason above; then start again with: make setup"

.venv/bin/python scripts/warm_bytecode.py
say "making the empty tracking database that runs start from"
.venv/bin/python -c 'from pathlib import Path; import sys
from vl3.tracking.database import make_template
make_template(Path(sys.prefix, "share", "vl3", "mlflow.db"))' 2> build/setup.log \
    || say "left out (see build/setup.log): the first run makes its own"
say "done"
