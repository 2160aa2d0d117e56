#!/bin/bash
# Builds and tests everything this machine can: usage: scripts/test.sh [--fast]
# --fast leaves out the sanitizer build, fuzzing, slow tests, nvcc, and clang-tidy on unchanged files.
# The last line counts; the exit code is 0 if nothing failed. What is left out says "skipped: ..." and why.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

fast=no
case ${1-} in
  "") ;;
  --fast) fast=yes ;;
  *) die "usage: scripts/test.sh [--fast]" ;;
esac
started=$(date +%s)
passed=0 failed=0 skipped=0
cuda_seconds=0

# check NAME COMMAND...: one check, counted; its output is shown if it fails.
check() {
  local name=$1 log=build/checks.log
  shift
  if "$@" >"$log" 2>&1; then
    say "passed: $name"
    grep -E '^(skipped|note): ' "$log" || true
    passed=$((passed + 1))
  else
    cat "$log"
    say "FAILED: $name"
    failed=$((failed + 1))
  fi
}

skip() {
  say "skipped: $1"
  skipped=$((skipped + 1))
}

# build FOLDER LOG-NAME CMAKE-OPTIONS... -- TARGETS...
build() {
  local folder=$1 options=()
  shift
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  cmake -G Ninja -S . -B "$folder" "${options[@]}" && ninja -C "$folder" "$@"
}

# cuda COMMAND...: the command, whose time is spent on the CUDA backend or its emulator alone.
cuda() {
  local begun=$SECONDS
  "$@"
  cuda_seconds=$((cuda_seconds + SECONDS - begun))
}

# What tests of the CUDA backend and its emulator took of a run of ctest that had other tests too.
cuda_seconds_of() {
  awk -v threads="$(nproc)" '/Test +#[0-9]+: (cuda|emulator|golden\.emulated|cli\.Emulated)[.A-Z]/ { sum += $(NF - 1) }
    END { printf "%d", sum / threads }' "$1/ctest.log"
}

# run_ctest FOLDER OPTIONS...: every case counted by itself.
run_ctest() {
  local folder=$1 counts
  shift
  ctest --test-dir "$folder" --output-junit junit.xml --output-on-failure --timeout 300 "$@" >"$folder/ctest.log" 2>&1 ||
    sed -n '/\*\*\*/,/^ *Start /p' "$folder/ctest.log" | tail -n 200
  counts=$(scripts/summarize_ctest.py "$folder/junit.xml")
  sed '$d' <<<"$counts"
  read -r p f s <<<"${counts##*$'\n'}"
  say "$folder: $p passed, $f failed, $s skipped"
  [ $((p + f + s)) -gt 0 ] || f=1
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

finish() {
  say ""
  if [ -e build/test/test_emulator ]; then
    build/test/test_emulator --gtest_filter='Engine.*' 2>&1 | grep '^note: the emulator cannot see' || true
    say "of all that, the CUDA backend and its emulator took $(in_minutes "$cuda_seconds") min, beside their part of the build"
  fi
  say "all phases took $(in_minutes $(($(date +%s) - started))) min"
  say "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" = 0 ]
}

# The newest commit that is known to have passed elsewhere; nothing if there is none.
landed_commit() {
  local head remote
  head=$(git rev-parse -q --verify HEAD) || return 0
  remote=$(git rev-parse -q --verify "${MHMOE_BASE_COMMIT:-origin/main}^{commit}") || return 0
  [ "$remote" != "$head" ] || remote=$(git rev-parse -q --verify "HEAD^^{commit}") || return 0
  git merge-base "$remote" "$head" || true
}

format_check() {
  local file bad=0
  while read -r file; do
    clang-format --dry-run -Werror "$file" 2>/dev/null || { echo "clang-format -i $file" && bad=1; }
  done < <(git ls-files '*.cc' '*.h' '*.cu' '*.cuh')
  return $bad
}

length_check() {
  git ls-files '*.cc' '*.h' '*.cu' '*.cuh' '*.py' '*.sh' | xargs wc -l |
    awk '$2 != "total" && $1 > 300 { print $2 ": " $1 " lines, at most 300 are allowed"; bad = 1 } END { exit bad }'
}

# Every symbol it wants is there; whether a device answers is another matter.
cuda_module_loads() {
  local version
  version=$(build/cuda/mhmoe --version)
  echo "$version"
  ! grep -q "cannot load" <<<"$version"
}

mkdir -p build
build_minutes=14 test_minutes=26
[ $fast = no ] || build_minutes=8 test_minutes=4
say "mhmoe tests ($([ $fast = yes ] && echo fast || echo full)): on 2 cores packages 3, build $build_minutes (budgets; less where it was built before), tests $test_minutes min"

begin_phase packages 3
install_packages "${PROGRAM_PACKAGES[@]}" "${PLOT_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
end_phase

begin_phase build $build_minutes
use_ccache
check "build" build build/test -- all
[ "$failed" = 0 ] || finish
sanitized=()
if [ $fast = no ]; then
  for folder in core ops reference emulator; do
    [ ! -e build/test/test_$folder ] || sanitized+=("test_$folder")
  done
  [ ! -e build/test/test_emulator_nccl ] || sanitized+=(test_emulator_nccl)
  check "build with ASan and UBSan (${sanitized[*]})" build build/asan -DMHMOE_SANITIZE=address,undefined \
    -DCMAKE_CXX_FLAGS_RELEASE=-O1 -- "${sanitized[@]}"
else
  skip "sanitizer build: --fast"
fi
if [ $fast = yes ]; then
  fuzzing="--fast"
elif ! command -v clang++ >/dev/null; then
  fuzzing="no clang++"
elif ! clang++ -fsanitize=fuzzer,address -x c++ -o build/fuzz_probe - 2>/dev/null \
  <<<'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'; then
  fuzzing="clang++ has no libFuzzer (libclang-rt-14-dev)"
else
  fuzzing=""
  check "build of the fuzzed readers" build build/fuzz -DMHMOE_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++ \
    -DCMAKE_C_COMPILER=clang -- all
fi
end_phase

begin_phase tests $test_minutes
check "include directions" scripts/check_includes.sh
check "files under 300 lines" length_check
if clang-format --version 2>/dev/null | grep -q 'version 14\.'; then
  check "clang-format" format_check
else
  found=$(clang-format --version 2>/dev/null || echo none)
  skip "clang-format: version 14 is wanted (others format differently), found $found"
fi
base=$(landed_commit)
if ! command -v clang-tidy >/dev/null; then
  skip "clang-tidy: not installed"
elif [ -n "$base" ]; then
  check "clang-tidy on what changed since ${base:0:12}" scripts/run_clang_tidy.py build/test --since "$base" \
    --minutes $([ $fast = yes ] && echo 1 || echo 3)
elif [ $fast = yes ]; then
  skip "clang-tidy: --fast, and no landed commit to compare with"
else
  check "clang-tidy on all files" scripts/run_clang_tidy.py build/test --all --minutes 3
fi

if [ -z "$fuzzing" ]; then
  check "fuzzing for a minute" scripts/fuzz.sh build/fuzz 60
else
  skip "fuzzing: $fuzzing"
fi
threads=$(nproc)
run_ctest build/test -j "$threads" $([ $fast = no ] || echo -LE slow)
cuda_seconds=$((cuda_seconds + $(cuda_seconds_of build/test)))
[ $fast = no ] || skip "tests labelled slow: --fast"
if [ $fast = no ]; then
  labels=$(printf '|%s' "${sanitized[@]#test_}")
  # Out-of-memory paths are tested: the allocator then returns null instead of ending the program.
  export ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  run_ctest build/asan -j "$threads" -L "^(${labels#|})\$" -LE slow
  # One order of the three: the sanitizers look at each thread by itself, and this one takes a minute and a half.
  [ ! -e build/asan/libmhmoe_emulated.so ] || cuda run_ctest build/asan -R '^cuda\.ops\.random'
fi
if [ $fast = yes ]; then
  skip "kernels under clang's sanitizers: --fast"
elif ! command -v clang++ >/dev/null || [ ! -e build/test/libmhmoe_emulated.so ]; then
  skip "kernels under clang's sanitizers: no clang++, or no CUDA headers"
else
  cuda check "the emulator, alone and with ucontext, guards shared memory (clang, ASan and UBSan)" scripts/test_emulator.sh address
  cuda check "kernels on the emulator, races (clang, ThreadSanitizer)" scripts/test_emulator.sh thread
fi
if [ $fast = yes ]; then
  skip "deleted barriers and waits: --fast"
elif [ -z "$base" ] || [ ! -e build/clang_thread/libmhmoe_emulated.so ]; then
  skip "deleted barriers and waits: no landed commit to compare with, or no ThreadSanitizer build of kernels"
else
  cuda check "deleted barriers and waits of CUDA sources changed since ${base:0:12} are noticed" scripts/mutate_kernels.py \
    build/test --races build/clang_thread --changed-since "$base" --minutes 2 --jobs "$threads"
fi
if [ $fast = yes ]; then
  skip "CUDA build: --fast"
elif nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null); then
  export CUDACXX=$nvcc
  cuda check "CUDA build for sm_80, sm_90, sm_100 (compiled, not run)" build build/cuda -DMHMOE_CUDA=ON \
    -DMHMOE_EMULATED=OFF -DMHMOE_TESTS=OFF -- all
  check "kernels: no stack frames, no spills" \
    scripts/check_ptxas.py build/cuda/ptxas.txt kernels/ptxas_allowed.txt sm_80 sm_90 sm_100
  # Another compiler allots other registers.
  if "$nvcc" --version | grep -q 'release 13\.0,'; then
    check "kernels: the table of docs/gpu_performance.md is what ptxas says" \
      scripts/gpu_tables.py build/test/mhmoe --ptxas build/cuda/ptxas.txt --check
  else
    skip "kernels: the table of docs/gpu_performance.md: it is by nvcc 13.0"
  fi
  check "the CUDA module can be loaded" cuda_module_loads
else
  skip "CUDA build: no nvcc"
fi
end_phase

finish
