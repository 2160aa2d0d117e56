#!/bin/bash
# Who may include whom. Prints every violation and exits 1 if there is one.
#   core <- device <- ops <- nn <- train <- cli; comm stands beside ops, data and plan beside train;
#   cpu and cuda (with kernels) implement the interfaces of device and ops, and see only core, device and ops.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A may_include=(
  [core]="core"
  [device]="core device"
  [ops]="core device ops"
  [comm]="core device ops comm"
  [cpu]="core device ops cpu"
  [cuda]="core device ops cuda kernels"
  [kernels]="core device ops cuda kernels"
  [nn]="core device ops comm nn"
  [data]="core data"
  [train]="core device ops comm nn data train"
  [plan]="core device ops comm nn data train plan"
  [cli]="core device ops comm nn data train plan cpu cli"
)
violations=0
report() {
  echo "$1"
  violations=$((violations + 1))
}

sources() { find "$@" -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null | sort; }
existing() { for path in "$@"; do [ ! -e "$path" ] || echo "$path"; done; }
mapfile -t roots < <(existing src kernels tests)

# Project headers are included as "folder/name.h" from src/ (kernels also include their own by bare name).
for folder in "${!may_include[@]}"; do
  path=src/$folder
  [ "$folder" != kernels ] || path=kernels
  [ -d "$path" ] || continue
  while IFS=: read -r file line text; do
    included=${text#*\"}
    included=${included%%/*}
    [[ " ${may_include[$folder]} " == *" $included "* ]] ||
      report "$file:$line: $folder must not include ${text#*#include }; it may see: ${may_include[$folder]}"
  done < <(sources "$path" | xargs -r grep -HnE '^[[:space:]]*#[[:space:]]*include "[a-z_]+/' || true)
done

# only_in PATTERN REASON PATH-PREFIX...: the pattern occurs only under the given paths.
only_in() {
  local pattern=$1 reason=$2 allowed
  shift 2
  while IFS=: read -r file line text; do
    allowed=no
    for prefix in "$@"; do [[ $file != "$prefix"* ]] || allowed=yes; done
    [ $allowed = yes ] || report "$file:$line: $reason (only in: $*)"
  done < <(sources "${roots[@]}" | xargs -r grep -HnE "$pattern" || true)
}
include='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]'
only_in "$include(cuda|cublas|cudnn|nccl)[a-zA-Z0-9_]*\.h" "CUDA's and NCCL's headers stay in the CUDA backend" \
  kernels/ src/cuda/ tests/emulator/ tests/cuda/
only_in "$include(mpi)\.h" "mpi.h stays behind the communicator" src/comm/ tests/emulator/ tests/cuda/nccl/
only_in "$include(omp)\.h|#[[:space:]]*pragma omp (parallel|for|task|section|single)" \
  "parallel regions are opened by core/parallel_for alone" src/core/parallel_for tests/emulator/

mapfile -t json < <(sources "${roots[@]}" | xargs -r grep -lE "${include}nlohmann/" || true)
[ "${#json[@]}" -le 3 ] || report "nlohmann/json is included in ${#json[@]} files, at most 3 may: ${json[*]}"
for file in "${json[@]}"; do
  [[ $file == *.cc ]] || report "$file: nlohmann/json is slow to compile and belongs in .cc files only"
done

while IFS=: read -r file line _; do
  report "$file:$line: launch kernels through launch(), not <<<>>>"
done < <(sources "${roots[@]}" | grep -v '^tests/emulator/' | xargs -r grep -HnF '<<<' || true)

[ $violations = 0 ] || exit 1
