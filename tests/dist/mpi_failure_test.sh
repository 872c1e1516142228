#!/usr/bin/env bash
# A rank that fails alone ends the whole job, quickly and with its own exit code. Arguments: mpirun with its options,
# the program, and how it fails.
set -uo pipefail
begin=$SECONDS
output=$(timeout 30 "$@" 2>&1)
code=$?
seconds=$((SECONDS - begin))
if [[ $code != 5 || $seconds -gt 15 || $output != *"rank 1 fails on purpose"* ]]; then
  echo "exit code $code (wanted 5: numeric) after $seconds s:"
  echo "$output"
  exit 1
fi
