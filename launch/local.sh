#!/usr/bin/env bash
# Runs a job of several ranks on this machine, with mpirun.
#   launch/local.sh CONFIG [-n RANKS] [--restarts N] [section.key=value ...]   trains
#   launch/local.sh eval|generate|bench|layouts|upcycle|analyze|record ... [-n RANKS]   the program's other commands
# -n          how many ranks; else one a GPU, and on a machine without GPUs one a NUMA node; analyze has one
# --restarts  starts training again, at most N times, where SIGUSR1 stopped it or a rank was lost; it resumes
# Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 let training save and stop with exit code 75: the same command resumes. Ctrl-C once
# more ends it at once. SIGUSR2 saves and goes on. The program is build/switchyard, or what SWITCHYARD names.
# docs/running.md says more.
set -euo pipefail

stop() { printf 'local.sh: %s\n' "$1" >&2; exit 2; }

ranks='' restarts=0 arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit ;;
    -n | --restarts)
      [[ ${2:-} =~ ^[1-9][0-9]{0,4}$ ]] || stop "$1 wants a number from 1 to 99999, not '${2:-}'"
      if [ "$1" = -n ]; then ranks=$2; else restarts=$2; fi
      shift ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
[ ${#arguments[@]} -gt 0 ] || stop "which configuration?  launch/local.sh CONFIG [-n RANKS] [section.key=value ...]"
case ${arguments[0]} in
  train | eval | generate | bench | layouts | upcycle | analyze | record) ;;
  *) arguments=(train "${arguments[@]}") ;;
esac

root=$(cd "$(dirname "$0")/.." && pwd)
program=${SWITCHYARD:-$root/build/switchyard}
[ -x "$program" ] || stop "$program is not there. To build it:
  cd $root && launch/dependencies.sh && cmake --preset release && cmake --build --preset release --target switchyard"
command -v mpirun >/dev/null || stop "mpirun is not there. To install it:  apt-get install openmpi-bin"

gpus() {
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -cve '^$' -e '^-' || true  # an empty list and -1 hide all
  else
    nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true
  fi
}
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)  # nproc would take those for cores
all_cores=$(getconf _NPROCESSORS_ONLN)
if [ -z "$ranks" ] && [ "${arguments[0]}" = analyze ]; then
  ranks=1
elif [ -z "$ranks" ]; then
  ranks=$(gpus)
  [ "$ranks" -gt 0 ] || [ "$cores" -lt "$all_cores" ] || ranks=$(lscpu -p=NODE | grep -v '^#' | sort -u | wc -l)
  [ "$ranks" -gt 0 ] || ranks=1
fi

# Each rank gets its share of the cores, side by side. mpirun would bind past an affinity mask (taskset, a container's):
# there, and where ranks have to share cores, nothing is bound, and the program divides the threads.
binding=(--use-hwthread-cpus)
if [ "$ranks" -gt "$cores" ]; then
  binding+=(--bind-to none --oversubscribe)
elif [ "$cores" -lt "$all_cores" ]; then
  binding+=(--bind-to none)
else
  binding+=(--map-by "slot:PE=$((cores / ranks))" --bind-to hwthread)
fi
# What runs here anyone may run as root without mpirun, and containers know no other user. The kernel's copy between
# processes is often forbidden in containers.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
launch=(mpirun --quiet -n "$ranks" "${binding[@]}" --mca btl_vader_single_copy_mechanism none "$program" "${arguments[@]}")

# mpirun answers SIGINT and SIGTERM by killing the ranks a second later, so it has a session of its own, which Ctrl-C does
# not reach, and hears SIGUSR1. It drops what comes before its ranks are there: training is asked every second.
job='' asked='' leaving='' now=''
forward() {
  [ -n "$job" ] || return 0
  if [ -n "$now" ]; then
    kill -TERM "$job" || true
  else
    while kill -USR1 "$job"; do sleep 1; done >/dev/null 2>&1 &
  fi
}
hear() {
  if [ "${arguments[0]}" != train ] || { [ "$1" = INT ] && [ -n "$leaving" ]; }; then now=$1; fi
  [ "$1" = USR1 ] || leaving=yes
  if [ "$1" = INT ] && [ -z "$now" ] && [ -t 2 ]; then
    printf '\nSaving after this step; Ctrl-C once more ends it at once.\n' >&2
  fi
  if [ -z "$asked" ] || [ -n "$now" ]; then forward; fi
  asked=yes
}
trap 'hear INT' INT
trap 'hear TERM' TERM HUP
trap 'hear USR1' USR1
trap '[ -z "$job" ] || kill -USR2 "$job" || true' USR2

again() {
  [ -z "$leaving" ] && [ $run -lt "$restarts" ] && { [ $status = 75 ] || [ $status = 7 ] || [ $status -gt 128 ]; }
}
for ((run = 0; ; run++)); do
  job='' asked='' status=0
  setsid "${launch[@]}" &
  job=$!
  [ -z "$asked$leaving" ] || forward  # heard before there was a job
  wait $job || status=$?
  while kill -0 $job 2>/dev/null; do  # a signal ended the wait, not the job
    status=0
    wait $job || status=$?
  done
  # A rank that does not listen to SIGUSR1 yet, which is the first thing it does, ends by it: there is nothing to save.
  [ -z "$asked" ] || [ $status != 138 ] || status=75
  [ -z "$now" ] || [ $status = 0 ] || [ $status = 75 ] || exit $((128 + $(kill -l "$now")))
  again || exit $status
  printf 'local.sh: exit code %s: starting again, %s of %s\n' $status $((run + 1)) "$restarts" >&2
done
