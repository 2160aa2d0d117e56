#!/bin/bash
# The emulator and the kernels on it under the sanitizers that need clang: usage: scripts/test_emulator.sh [address|thread]
# address: overruns of static shared memory, which g++'s builds do not guard, in the emulator's own planted kernels.
# thread: races within and between blocks, also in the backend's kernels. Without an argument both. Builds in build/clang_address and build/clang_thread; small shapes only.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

case ${1-both} in
  address) kinds=(address,undefined) ;;
  thread) kinds=(thread) ;;
  both) kinds=(address,undefined thread) ;;
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
  folder=build/clang_${kind%%,*}
  started=$(date +%s)
  cmake -G Ninja -S . -B "$folder" -DMHMOE_EMULATED=ON -DMHMOE_SANITIZE="$kind" -DCMAKE_CXX_FLAGS_RELEASE=-O1 \
    -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ >"$folder.log"
  programs=(test_emulator)
  [ "$kind" != thread ] || programs+=(test_cuda)
  ninja -C "$folder" "${programs[@]}" >>"$folder.log" || {
    tail -n 50 "$folder.log"
    die "the build with -fsanitize=$kind failed"
  }
  built=$(date +%s)
  for program in "${programs[@]}"; do "$folder/$program" --gtest_brief=1; done
  say "note: -fsanitize=$kind: build $((built - started)) s, tests $(($(date +%s) - built)) s"
done
