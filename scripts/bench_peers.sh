#!/bin/bash
# mhmoe and PyTorch train the same models by turns, on the same two threads: usage: scripts/bench_peers.sh [--quick]
# [--all] [--json] and the other options of tests/bench/peer_table.py (--help). It installs PyTorch from PyPI into
# build/peers/venv (5 GB with what its Linux wheels depend on), builds the release program, and takes up to 25 minutes
# more, with --quick 8. A benchmark for a quiet machine, not a test.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

environment=build/peers/venv
mkdir -p build/peers
exec 9>build/peers/lock
flock -n 9 || die "another scripts/bench_peers.sh is running in this tree: wait for it"

install_torch() {
  local python=${PYTHON:-python3} free
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    die "$python cannot make virtual environments: install python3-venv, or name another one with PYTHON=..."
  free=$(df -Pk build | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
  [ "$free" -ge 8 ] || die "PyTorch needs 8 GB of disk while it is installed, and build has $free GB free"
  say "installing PyTorch from PyPI into $environment (some minutes)" >&2
  "$python" -m venv --clear "$environment"
  if ! timeout 1200 "$environment/bin/pip" install --quiet --disable-pip-version-check --retries 1 --only-binary :all: \
    torch safetensors numpy >build/peers/install.log 2>&1; then
    die "PyTorch cannot be had from PyPI: $(tail -n 1 build/peers/install.log); the whole output is in build/peers/install.log"
  fi
  touch "$environment/.complete"
}

[ -e "$environment/.complete" ] || install_torch
"$environment/bin/python" -c 'import torch, safetensors' 2>build/peers/import.log ||
  die "$environment does not work: $(tail -n 1 build/peers/import.log); remove it and run this again"
use_ccache
quietly build/peers/build.log cmake --preset cpu
quietly build/peers/build.log ninja -C build/cpu mhmoe
"$environment/bin/python" tests/bench/peer_table.py build/cpu/mhmoe "$@"
