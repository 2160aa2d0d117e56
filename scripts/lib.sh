# Shared by the scripts of this folder: source it after `set -euo pipefail`, in the root of the tree.

export DEBIAN_FRONTEND=noninteractive
# mpirun refuses to start as root, which is what a container usually is, unless both are set.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

PROGRAM_PACKAGES=(g++ cmake ninja-build libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libdnnl-dev
  libsentencepiece-dev libsimdjson-dev libxxhash-dev libzstd-dev zlib1g-dev libopenmpi-dev openmpi-bin)
PLOT_PACKAGES=(python3 python3-matplotlib)
TEST_PACKAGES=(libgtest-dev ccache git python3-numpy python3-pip clang-format clang-tidy clang libclang-rt-14-dev strace
  chromium slurmctld slurmd slurm-client munge)

say() { printf '%s\n' "$*"; }

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Runs a command as root: directly, or through sudo where it asks no password.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo -n --preserve-env=DEBIAN_FRONTEND "$@"
  else
    return 1
  fi
}

# Those of the given Debian packages that are not installed, one a line.
missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

# Installs what is missing of the given Debian packages, without recommended ones.
install_packages() {
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here: assuming that the equivalents of these are installed: $*"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages "$@")
  if [ "${#missing[@]}" = 0 ]; then
    say "all ${#} packages are installed"
    return
  fi
  say "installing: ${missing[*]}"
  if ! as_root true; then
    die "neither root nor password-less sudo: run 'apt-get install --no-install-recommends ${missing[*]}' and try again"
  fi
  mkdir -p build
  quietly build/packages.log as_root apt-get -q update
  quietly build/packages.log as_root apt-get -q install -y --no-install-recommends "${missing[@]}"
}

# quietly LOG COMMAND...: the output goes to the log, whose end is shown if the command fails.
quietly() {
  local log=$1
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    die "failed: $*; the whole output is in $log"
  fi
}

# begin_phase NAME BUDGET-IN-MINUTES; end_phase
begin_phase() {
  phase_name=$1
  phase_budget=$2
  phase_start=$(date +%s)
  say ""
  say "== $phase_name (budget $phase_budget min)"
}

end_phase() {
  local seconds=$(($(date +%s) - phase_start))
  local note=""
  [ "$seconds" -le $((phase_budget * 60)) ] || note=", over its budget"
  say "== $phase_name took $(in_minutes "$seconds") of $phase_budget min$note"
}

in_minutes() { awk -v s="$1" 'BEGIN { printf "%.1f", s / 60 }'; }

# What ccache saves is worth having, but nothing needs it.
use_ccache() {
  if command -v ccache >/dev/null; then
    export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
  fi
}

# A python3 that has the given modules: the first on the PATH, or else the system's, whose modules are Debian packages.
find_python() {
  local python
  for python in "$(command -v python3 || true)" /usr/bin/python3; do
    if [ -x "$python" ] && "$python" -c "import $1" 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  return 1
}
