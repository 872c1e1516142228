#!/usr/bin/env bash
# A rank that fails alone ends the whole job, soon and with an exit code that tells why, and the others name it.
# Arguments: the program, the way to fail, mpirun with its options up to the number of ranks.
set -uo pipefail
program=$1
way=$2
shift 2

hang=7  # communication
silent="rank 1 does not answer: it is stopped, dead, or busy outside of collectives"
ranks=3
case $way in  # exit code; the ranks that speak; what each says, or somebody where none does
  abort | leave) want=5 speakers="1" says="rank 1 fails on purpose" ;;
  kill) want=137 speakers="" says="rank 1 with PID" ;;  # mpirun sees it first
  stop | spin | started) want=$hang speakers="0 2" says=$silent ;;
  stop_behind) want=$hang speakers="0 2 3" says=$silent ranks=4 ;;
  call) want=$hang speakers="0 2" says="rank 1 calls broadcast(root 1) of i64 (1) where ranks 0 and 2 call all_reduce(sum) of f32 (3)" ;;
  shape) want=$hang speakers="0 1 2" says="rank 1 calls all_reduce(sum) of f32 (5000) where ranks 0 and 2 call all_reduce(sum) of f32 (3)" ;;
  small_shape) want=$hang speakers="0 1 2" says="rank 1 calls all_reduce(sum) of f32 (1) where ranks 0 and 2 call all_reduce(sum) of f32 (3)" ;;
  group) want=$hang speakers="0 1 2" says="rank 1 " ;;
  return) want=$hang speakers="0 2" says="rank 1 calls the end of the job where ranks 0 and 2 call all_reduce(sum) of f32 (3)" ;;
  late) want=0 speakers="" says="" ;;
esac

begin=$SECONDS
output=$(timeout 30 "$@" "$ranks" "$program" "$way" 2>&1)
code=$?
seconds=$((SECONDS - begin))
fails=""
[ $code = $want ] || fails="the exit code is not $want"
[ $seconds -le 15 ] || fails="too late"
[[ $output == *"$says"* ]] || fails="nobody says: $says"
for rank in $speakers; do
  [[ $output == *"<rank $rank> $says"* ]] || fails="rank $rank does not say: $says"
done
if [ -n "$fails" ]; then
  echo "$fails; exit code $code after $seconds s:"
  echo "$output"
  exit 1
fi
