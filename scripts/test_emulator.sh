#!/bin/bash
# The emulator and the kernels on it under the sanitizers that need clang: usage: scripts/test_emulator.sh [address|thread]
# address: overruns of static shared memory, which g++'s builds do not guard, in the emulator's own planted kernels; it is
# built alone, as another project would, with the fibers of other machines than x86-64, in build/emulator_address.
# thread: races within and between blocks, also in the backend's kernels, in build/clang_thread; small shapes only.
# Without an argument both.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

case ${1-both} in
  address | thread) kinds=("$1") ;;
  both) kinds=(address thread) ;;
  *) die "usage: scripts/test_emulator.sh [address|thread]" ;;
esac
if ! command -v clang++ >/dev/null; then
  say "skipped: sanitizers of kernels: no clang++"
  exit 0
fi
# One thread on the CPU's side: the races that are looked for are those of kernels.
export OMP_NUM_THREADS=1 TSAN_OPTIONS=atexit_sleep_ms=0:halt_on_error=1 \
  ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
use_ccache
for kind in "${kinds[@]}"; do
  started=$(date +%s)
  if [ "$kind" = address ]; then
    folder=build/emulator_address programs=(test_emulator)
    options=(-S tests/emulator -DEMULATOR_SANITIZE=address,undefined -DEMULATOR_UCONTEXT=ON)
  else
    folder=build/clang_thread programs=(test_emulator test_cuda)
    options=(-S . -DMHMOE_EMULATED=ON -DMHMOE_SANITIZE=thread -DCMAKE_C_COMPILER=clang)
  fi
  cmake -G Ninja -B "$folder" "${options[@]}" -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
    -DCMAKE_CXX_COMPILER=clang++ >"$folder.log"
  ninja -C "$folder" "${programs[@]}" >>"$folder.log" || {
    tail -n 50 "$folder.log"
    die "the build with $kind sanitizer failed"
  }
  built=$(date +%s)
  for program in "${programs[@]}"; do "$folder/$program" --gtest_brief=1; done
  say "note: $kind sanitizer: build $((built - started)) s, tests $(($(date +%s) - built)) s"
done
