#!/usr/bin/env bash
# Runs switchyard on several ranks of this machine:   launch/local.sh RANKS ARGUMENTS...
# SIGUSR1 to mpirun saves and stops every rank; SIGINT and SIGTERM leave them ten seconds for the same.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: launch/local.sh RANKS train CONFIG [section.key=value ...]" >&2; exit 2; }

ranks=$1
shift
program=${SWITCHYARD:-$(dirname "$0")/../build/switchyard}

# A rank a core where there are enough; the kernel's shared-memory copy is often forbidden in containers.
binding=(--bind-to core)
[ "$ranks" -gt "$(nproc)" ] && binding=(--bind-to none --oversubscribe)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
exec mpirun --quiet -n "$ranks" "${binding[@]}" --mca btl_vader_single_copy_mechanism none \
  --mca odls_base_sigkill_timeout 10 "$program" "$@"
