#!/bin/sh
# usage: record_ptxas.sh FOLDER COMPILER ARGS...   (CMake's compiler launcher)
# Runs the compiler; what `-Xptxas -v` says goes to FOLDER/SOURCE.txt, demangled, everything else to standard error.
folder=$1
shift
for argument; do
  case $argument in *.cu) source=$(basename "$argument") ;; esac
done
mkdir -p "$folder"
log=$(mktemp "$folder/log.XXXXXX")
"$@" 2>"$log"
status=$?
if [ -n "$source" ]; then
  { echo "== $source"; grep -E '^ptxas info|bytes stack frame' "$log" | c++filt; } >"$folder/$source.txt"
fi
grep -vE '^ptxas info|bytes stack frame' "$log" >&2
rm -f "$log"
exit $status
