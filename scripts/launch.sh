#!/bin/bash
# Runs a training command so that requests to stop reach its ranks as SIGUSR1, which leaves them the time to save:
# mpirun itself gives ranks two seconds after SIGTERM, SIGINT (Ctrl-C) or SIGHUP, and then kills them.
#   scripts/launch.sh mpirun -np 8 mhmoe train CONFIG
# usage: scripts/launch.sh [--requeue] COMMAND...
# The exit code is the command's: 75 if it was stopped and saved. A second SIGTERM or SIGINT is passed on as SIGTERM, which
# ends everything at once. --requeue: in a SLURM job that ends with 75, the job goes back into the queue, unless it was
# stopped by SIGTERM or SIGINT, that is by scancel or by hand. docs/slurm.md says what arrives when.
# shellcheck disable=SC2317,SC2086  # functions that only traps call; numbers
set -euo pipefail

readonly kRequeue=75 kUsage=64 kEndedByUsr1=138
readonly kAgainSeconds=5     # a signal that arrives while mpirun starts its processes is lost, so it is sent again
readonly kLookSeconds=10     # three looks in a row at ranks that nobody has looked after mean that mpirun hangs
readonly kSameMilliseconds=500  # launchers signal a process and then its group: within this time it is one request

usage() {
  echo "usage: scripts/launch.sh [--requeue] COMMAND..., for example: scripts/launch.sh mpirun -np 8 mhmoe train CONFIG" >&2
  exit $kUsage
}

requeue=no
if [ "${1-}" = --requeue ]; then
  requeue=yes
  shift
fi
case ${1-} in
  "" | -*) usage ;;
esac

child="" asking="" watching="" interrupted=no stopped_at="" by_hand=no

milliseconds() { echo $(($(date +%s%N) / 1000000)); }

keep_asking() {
  while kill -USR1 "$child" 2>/dev/null; do sleep $kAgainSeconds; done
}

# Whether all processes that the command started have ended, and it has not asked how.
left_alone() {
  local tasks pid state any=no
  tasks=$(cat /proc/"$child"/task/*/children 2>/dev/null) || return 1
  for pid in $tasks; do
    state=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null) || return 1
    [ "${state%% *}" = Z ] || return 1
    any=yes
  done
  [ $any = yes ]
}

# Open MPI 4.1 sometimes waits for ever for a lock of its own when a rank has died: nobody would ever know.
end_if_it_hangs() {
  local looks=0
  while sleep $kLookSeconds && kill -0 "$child" 2>/dev/null; do
    left_alone && looks=$((looks + 1)) || looks=0
    [ $looks -lt 3 ] && continue
    echo "error: ${1##*/} hangs though all that it started has ended: it is killed" >&2
    kill -KILL "$child"
    return
  done
}

ask() {
  interrupted=yes
  [ -n "$child" ] || return 0  # asked as soon as it is there
  if [ -z "$asking" ]; then
    keep_asking &
    asking=$!
    disown "$asking"  # its end is no news
  fi
}

ask_or_end() {
  local now
  now=$(milliseconds)
  if [ -n "$stopped_at" ] && [ $((now - stopped_at)) -gt $kSameMilliseconds ] && [ -n "$child" ]; then
    interrupted=yes
    kill -TERM "$child" 2>/dev/null || true
    return 0
  fi
  stopped_at=${stopped_at:-$now}
  by_hand=yes
  ask
}

trap ask USR1
trap ask_or_end TERM INT HUP

# A process group of its own, or Ctrl-C would reach mpirun too.
set -m
"$@" &
child=$!
end_if_it_hangs "$1" &
watching=$!
disown "$watching"
[ $interrupted = no ] || ask

code=0
while :; do
  interrupted=no
  wait "$child" && code=0 || code=$?
  [ $interrupted = yes ] || break
done
trap '' USR1 TERM INT HUP
kill -- "-$watching" 2>/dev/null || true
if [ -n "$asking" ]; then
  kill -- "-$asking" 2>/dev/null || true
  # Ended by the signal before it could note it: nothing was computed that a checkpoint does not have.
  [ $code != $kEndedByUsr1 ] || code=$kRequeue
fi

if [ $requeue = yes ] && [ $code = $kRequeue ] && [ $by_hand = no ] && [ -n "${SLURM_JOB_ID-}" ]; then
  echo "stopped and saved: job $SLURM_JOB_ID goes back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID" >&2 || echo "error: scontrol requeue failed; submit the job again" >&2
fi
exit $code
