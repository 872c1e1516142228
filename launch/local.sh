#!/usr/bin/env bash
# Runs switchyard on several ranks of this machine:   launch/local.sh RANKS ARGUMENTS...
# SIGUSR1, SIGTERM and Ctrl-C save and stop every rank (exit code 75); SIGUSR2 saves and goes on. To mpirun itself only
# SIGUSR1 and SIGUSR2 do that: it answers the others by killing the ranks a second later.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: launch/local.sh RANKS train CONFIG [section.key=value ...]" >&2; exit 2; }

ranks=$1
shift
program=${SWITCHYARD:-$(dirname "$0")/../build/switchyard}

# A rank a core where there are enough; the kernel's shared-memory copy is often forbidden in containers.
binding=(--bind-to core)
[ "$ranks" -gt "$(nproc)" ] && binding=(--bind-to none --oversubscribe)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun --quiet -n "$ranks" "${binding[@]}" --mca btl_vader_single_copy_mechanism none "$program" "$@" &
mpirun=$!
trap 'kill -USR1 $mpirun' INT TERM USR1
trap 'kill -USR2 $mpirun' USR2
status=0
wait $mpirun || status=$?
while kill -0 $mpirun 2>/dev/null; do  # the wait ended with a signal, not with the job
  status=0
  wait $mpirun || status=$?
done
exit $status
