#!/bin/bash
# Tests and measures the CUDA backend on a machine with a GPU, unattended, without network. Writes a Markdown report.
# usage: scripts/test_gpu.sh [--device cuda|emulated] [--build FOLDER] [--report FILE]
# What it needs is checked first, and all that is missing is named at once. --device emulated is a dry run of this script
# on the CPU: every step but those of NVIDIA's own tools, on small models. The exit code is 0 if nothing failed. Every
# step has a time limit, and the report is written anew after each, so that a device that hangs costs one step's result.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh

device=cuda folder=build/gpu report=
while [ $# -gt 0 ]; do
  case $1 in
    --device) device=${2-} ;;
    --build) folder=${2-} ;;
    --report) report=${2-} ;;
    *) die "usage: scripts/test_gpu.sh [--device cuda|emulated] [--build FOLDER] [--report FILE]" ;;
  esac
  shift 2 || die "$1: expected a value"
done
[[ $device =~ ^(cuda|emulated)$ ]] || die "--device $device: expected cuda or emulated"
report=${report:-$folder/report.md}
logs=$folder/logs
work=$folder/gpu_work
passed=0 failed=0 skipped=0
table=""

# --- what is needed -----------------------------------------------------------------------------------------------

toolkit=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || ls "$toolkit/bin/nvcc" 2>/dev/null || true)
[ -z "$nvcc" ] || toolkit=$(cd "$(dirname "$nvcc")/.." && pwd)
sanitizer=$(command -v compute-sanitizer || ls "$toolkit/bin/compute-sanitizer" 2>/dev/null || true)
missing=()

need() { "${@:2}" >/dev/null 2>&1 || missing+=("$1"); }

nvcc_release() { "$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p'; }
nvcc_major() { nvcc_release | cut -d . -f 1; }

check_needs() {
  local tool
  for tool in cmake ninja c++ python3; do need "$tool" command -v "$tool"; done
  if command -v dpkg-query >/dev/null; then
    mapfile -t packages < <(missing_packages "${PROGRAM_PACKAGES[@]}" libgtest-dev)
    missing+=("${packages[@]/#/Debian package }")
  fi
  need "cuda_runtime.h in $toolkit/include (CUDA's headers)" test -e "$toolkit/include/cuda_runtime.h"
  if [ "$device" = cuda ]; then
    need "nvcc (on PATH, or CUDA_HOME set)" test -n "$nvcc"
    [ -z "$nvcc" ] || need "nvcc 13.0 or newer (found $(nvcc_release))" test "$(nvcc_major)" -ge 13
    need "cublas_v2.h in $toolkit/include (cuBLAS for development)" test -e "$toolkit/include/cublas_v2.h"
    need "libcublas.so under $toolkit (cuBLAS for development)" compgen -G "$toolkit/lib*/libcublas.so"
    need "libcudart_static.a under $toolkit (CUDA's runtime for development)" compgen -G "$toolkit/lib*/libcudart_static.a"
    need "nvidia-smi (NVIDIA's driver)" command -v nvidia-smi
    need "a GPU that nvidia-smi lists" bash -c "nvidia-smi -L | grep -q GPU"
  fi
  [ "$device" = emulated ] || [ -n "$sanitizer" ] ||
    say "not installed, so its four steps will be skipped: compute-sanitizer (it comes with the CUDA Toolkit)"
  [ "${#missing[@]}" = 0 ] && return
  printf 'missing: %s\n' "${missing[@]}" >&2
  die "scripts/test_gpu.sh --device $device needs all of the above"
}

# --- steps --------------------------------------------------------------------------------------------------------

row() { table+="| $1 | $2 | ${3//|/,} |"$'\n'; }

job=
trap '[ -z "$job" ] || kill -KILL -- "-$job" 2>/dev/null || true' EXIT

# limited MINUTES COMMAND...: the command, a function too, and all it starts; after so long it is ended, and what cannot be
# ended (the driver may hold it) is left behind.
limited() {
  local end=$((SECONDS + $1 * 60)) minutes=$1
  shift
  set -m
  "$@" </dev/null &
  job=$!
  set +m
  while kill -0 "$job" 2>/dev/null && [ $SECONDS -lt $end ]; do sleep 0.1; done
  if kill -0 "$job" 2>/dev/null; then
    kill -TERM -- "-$job" 2>/dev/null || true
    sleep 2
    kill -KILL -- "-$job" 2>/dev/null || true
    job=
    echo "ended after its time limit of $minutes minutes"
    return 124
  fi
  local result=0
  wait "$job" || result=$?
  job=
  return $result
}

# step MINUTES NAME COMMAND...: one check with a time limit; its output is in the logs, its last line in the report.
step() {
  local minutes=$1 name=$2 log=$logs/${2//[^a-zA-Z0-9]/_}.log begun=$SECONDS result=passed
  shift 2
  limited "$minutes" "$@" >"$log" 2>&1 || result=FAILED
  [ $result = passed ] && passed=$((passed + 1)) || failed=$((failed + 1))
  say "$result: $name ($((SECONDS - begun)) s, $log)"
  [ $result = passed ] || tail -n 15 "$log"
  row "$name" "$result" "$(tail -n 1 "$log")"
  write_report
}

skip() {
  say "skipped: $1: $2"
  skipped=$((skipped + 1))
  row "$1" skipped "$2"
  write_report
}

build() {
  local options=(-DMHMOE_TESTS=ON) targets=(mhmoe test_ops test_cuda test_nn test_golden) capability
  if [ "$device" = cuda ]; then
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1)
    options+=(-DMHMOE_CUDA=ON -DMHMOE_EMULATED=OFF "-DCMAKE_CUDA_COMPILER=$nvcc" "-DCMAKE_CUDA_ARCHITECTURES=${capability/./}")
    targets+=(mhmoe_cuda)
  else
    options+=(-DMHMOE_EMULATED=ON "-DEMULATOR_CUDA_INCLUDE_DIR=$toolkit/include")
    targets+=(mhmoe_emulated)
  fi
  cmake -G Ninja -S . -B "$folder" "${options[@]}" && ninja -C "$folder" "${targets[@]}"
}

# For tests whose own assertions read and write tensors in place.
on_device() { MHMOE_TEST_DEVICE=$device MHMOE_MANAGED_MEMORY=1 "$@"; }
# For the others: the memory that training has, which is also the only one whose first use initcheck follows.
in_device_memory() { MHMOE_TEST_DEVICE=$device "$@"; }

# A few small steps on text that every tree has.
small_config() {
  local precision=$1
  cat <<JSON
{ "name": "$precision", "output_dir": "$work/runs",
  "data": {"train": [{"path": "$work/text"}], "validation": [{"name": "text", "path": "$work/text"}],
           "tokenizer": "bytes", "sequence_length": 32},
  "model": {"layers": 2, "hidden_size": 64, "attention_heads": 2, "ffn": {"hidden_size": 96},
            "moe": {"every_n_layers": 2, "experts": 8, "top_k": 2, "heads": 2, "expert_hidden_size": 48}},
  "train": {"steps": 30, "batch_tokens": 256, "micro_batch_sequences": 4, "precision": "$precision",
            "learning_rate": {"peak": 1e-3, "final": 1e-4, "warmup_steps": 5}},
  "evaluation": {"every_steps": 30, "tokens": 256}, "checkpoint": {"every_steps": 0}, "log": {"every_steps": 1} }
JSON
}

# 30 steps on the CPU and on the device. f32 sums in another order differ by about 1e-6 of a loss, and training carries
# that on; bf16 has 2^-8 a product's input.
compare_training() {
  local precision=$1 tolerance=$2 on
  small_config "$precision" >"$work/$precision.json"
  for on in cpu "$device"; do
    rm -rf "$work/runs/$on-$precision"
    "$folder/mhmoe" train "$work/$precision.json" --device "$on" --set "name=$on-$precision"
  done
  scripts/compare_losses.py "$work/runs/cpu-$precision" "$work/runs/$device-$precision" "$tolerance"
}

# train_variant NAME KEY=VALUE: the training of compare_training on the device once more, with one setting changed. The
# losses of every step must be those of before, bit by bit.
train_variant() {
  local name=$device-$1
  rm -rf "$work/runs/$name"
  "$folder/mhmoe" train "$work/bf16.json" --device "$device" --set "name=$name" --set "$2" &&
    scripts/compare_losses.py "$work/runs/$device-bf16" "$work/runs/$name" 0
}

prepare_text() {
  rm -rf "$work" && mkdir -p "$work"
  cat docs/*.md >"$work/text.txt"
  "$folder/mhmoe" prepare --input "$work/text.txt" --output "$work/text" --tokenizer bytes
}

# Each op against its floor, then whole steps.
bench() {
  local config=$1 options=(--device "$device")
  [ "$device" = cuda ] || options+=(--gpu h100 --warmup 0 --steps 1)
  "$folder/mhmoe" bench ops "$config" "${options[@]}" && echo && "$folder/mhmoe" bench train "$config" "${options[@]}"
}

# Whole steps, which are recorded in the second one and replayed from then on.
bench_graphs() {
  local options=(--device "$device" --warmup 3)
  [ "$device" = cuda ] || options+=(--gpu h100 --steps 1)
  "$folder/mhmoe" bench train "$1" "${options[@]}" --set train.cuda_graphs=true
}

# Those whose experts' products are measured in each of the ways there are: many rows a product, some, few columns.
flipped_configs() {
  if [ "$device" = cuda ]; then
    printf '%s\n' configs/paper2/{smoe_8,mhmoe_h2,mhmoe_h3}.json
  else
    echo "$work/fp32.json"
  fi
}

bench_configs() {
  if [ "$device" = cuda ]; then
    printf '%s\n' configs/paper2/{dense,smoe_8,mhmoe_h2,mhmoe_h3}.json configs/paper1/english/{dense,smoe_8,mhmoe_8}.json
  else
    echo "$work/fp32.json"
  fi
}

sanitize() {
  local tool=("$sanitizer" --tool "$1" --error-exitcode 1)
  on_device "${tool[@]}" "$folder/test_ops" --gtest_brief=1 &&
    in_device_memory "${tool[@]}" "$folder/test_cuda" --gtest_brief=1
}

machine() {
  if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap --format=csv
    "$nvcc" --version | tail -n 2
  else
    say "device emulated: numbers below are about correctness, never about speed"
  fi
  "$folder/mhmoe" --version
  cmake --version | head -n 1
  c++ --version | head -n 1
  say "commit $(git rev-parse HEAD 2>/dev/null || echo unknown)"
}

write_report() {
  local log
  {
    printf '# mhmoe on device %s\n\n%s\n\n```\n' "$device" "$(date -u '+%Y-%m-%d %H:%M UTC')"
    cat "$logs/machine.txt" 2>/dev/null || true
    printf '```\n\n%d passed, %d failed, %d skipped.\n\n' "$passed" "$failed" "$skipped"
    printf '| check | result | last line |\n| --- | --- | --- |\n%s' "$table"
    for log in "$logs"/bench_*.log; do
      [ ! -e "$log" ] || printf '\n```\n%s\n```\n' "$(cat "$log")"
    done
    printf '\nHow to read the floors: docs/gpu_performance.md\n'
  } >"$report"
}

# --- all of it ----------------------------------------------------------------------------------------------------

check_needs
mkdir -p "$logs"
rm -f "$logs"/*.log
use_ccache
step 60 "build" build
if [ "$failed" = 0 ]; then
  limited 1 machine >"$logs/machine.txt" 2>&1 || true
  step 30 "op tests" on_device "$folder/test_ops" --gtest_brief=1
  step 30 "tests of kernels against the CPU" in_device_memory "$folder/test_cuda" --gtest_brief=1
  step 30 "model tests" on_device "$folder/test_nn" --gtest_brief=1
  step 10 "golden tests" on_device "$folder/test_golden" --gtest_brief=1
  step 5 "text for training" prepare_text
  step 10 "training, fp32, against the CPU" compare_training fp32 1e-4
  step 10 "training, bf16, against the CPU" compare_training bf16 2e-2
  step 10 "training, bf16, with CUDA graphs, the same losses" train_variant graphs train.cuda_graphs=true
  step 10 "training, bf16, no waiting within a step" train_variant no_sync train.forbid_host_sync=true
  for tool in memcheck racecheck initcheck synccheck; do
    if [ "$device" = emulated ]; then
      skip "compute-sanitizer $tool" "the emulator checks these itself"
    elif [ -z "$sanitizer" ]; then
      skip "compute-sanitizer $tool" "compute-sanitizer is not installed (it comes with the CUDA Toolkit)"
    else
      step 120 "compute-sanitizer $tool" sanitize "$tool"
    fi
  done
  while read -r config; do step 30 "bench $config" bench "$config"; done < <(bench_configs)
  config=$(flipped_configs | tail -n 1)
  step 30 "bench $config, CUDA graphs" bench_graphs "$config"
  while read -r config; do
    for products in own_kernels strided_batches; do
      MHMOE_EXPERT_PRODUCTS=$products step 30 "bench $config, experts by $products" bench "$config"
    done
  done < <(flipped_configs)
fi
write_report
say "report: $report"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
