#!/usr/bin/env bash
# From a bare Debian 12 to a trained Mixture-of-Experts language model: installs, builds, fetches Jane Austen's novels,
# tokenises them and trains configs/quickstart.yaml on two ranks. Run it again and it goes on where it stopped.
#   launch/quickstart.sh [section.key=value ...]     overrides of the configuration
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

step "1/4  Packages and build"
launch/dependencies.sh
options=()
if ! nvidia-smi -L >/dev/null 2>&1; then
  [ -f build/CMakeCache.txt ] || options=(-DSWITCHYARD_CUDA=OFF)  # the GPU's kernels take minutes to build
elif [ -z "${CUDACXX:-}" ] && ! command -v nvcc >/dev/null; then
  echo "warning: there is a GPU, but no nvcc on PATH, so this build is for the CPU alone (README, GPUs)" >&2
fi
cmake -S . -B build -G Ninja "${options[@]}" >build-cmake.log 2>&1 || { cat build-cmake.log; exit 1; }
mv build-cmake.log build/cmake.log
cmake --build build --target switchyard

step "2/4  Corpus: Jane Austen's six novels, Persuasion held out"
python3 launch/corpus.py austen --out data/austen

step "3/4  Tokens"
for split in train valid; do
  if [ -f data/austen/$split.idx ] && [ data/austen/$split.idx -nt data/austen/$split.jsonl ]; then
    echo "data/austen/$split.bin is there"
  else
    build/switchyard tokenize data/austen/$split.jsonl --out data/austen/$split
  fi
done

step "4/4  Training on two ranks (configs/quickstart.yaml)"
progress=lines
[ -t 1 ] && progress=live
ranks=2
SECONDS=0
status=0
launch/local.sh configs/quickstart.yaml -n $ranks --progress $progress "$@" || status=$?
if [ $status = 75 ]; then
  printf '\nStopped and saved. Run launch/quickstart.sh again to go on.\n'
  exit 75
fi
[ $status = 0 ] || exit $status

run=$(build/switchyard config configs/quickstart.yaml "$@" | sed -n 's/^  dir: //p' | head -n 1)
step "Held-out loss on the whole of Persuasion"
launch/local.sh eval "$run" -n $ranks

step "What it writes when it goes on from \"She had\""
launch/local.sh generate "$run" -n $ranks --prompt "She had" --tokens 300 --temperature 0.7

cat <<END

Next:
  build/switchyard inspect $run                  what the checkpoint holds
  build/switchyard generate $run --prompt "Mr. Darcy"
  launch/local.sh configs/quickstart.yaml -n 2 run.dir=runs/top1 router.kind=switch
END
