#!/usr/bin/env bash
# Checks and measures the CUDA backend on this machine's GPU, and writes docs/gpu.md from what it finds.
#   launch/gpu_check.sh [--bundle DIR] [--out DIR] [--stages "tests kernels ..."]
# --bundle  use the programs that launch/gpu_bundle.sh packed (by itself where this script lies in a bundle), else build,
#           with the packages that launch/dependencies.sh installs
# --out     where logs and results go: build/gpu, or results in the bundle, where the page is then gpu.md among them
# --stages  some of: tests memcheck racecheck train parity kernels model pytorch (all)
# A stage that fails does not keep the others from running. Exit codes: 0 all passed, or were left out for a tool that is
# not here; 1 something failed; 2 no GPU, or a mistake in the command line.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
all_stages="tests memcheck racecheck train parity kernels model pytorch"
stages=$all_stages bundle='' out=''
[ -f "$root/bundle.json" ] && bundle=$root
train_steps=${TRAIN_STEPS:-200} sanitizer_seconds=${SANITIZER_SECONDS:-1500}

stop() { echo "gpu_check.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || stop "$1 wants a value; see the head of this file"
  case $1 in
    --bundle)
      [ -f "$2/bundle.json" ] || stop "$2 is no bundle"
      bundle=$(cd "$2" && pwd) ;;
    --out) out=$2 ;;
    --stages) stages=$2 ;;
    *) stop "unknown argument $1; see the head of this file" ;;
  esac
  shift 2
done
for name in $stages; do
  [[ " $all_stages " == *" $name "* ]] || stop "no stage is called $name; there are: $all_stages"
done

PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader --id=0 2>/dev/null | head -n 1) || gpu=''
[ -n "$gpu" ] || stop "no NVIDIA GPU here: nvidia-smi finds none. The same kernels are tested without one by launch/test.sh."
python3 -c 'import argparse, datetime, json, pathlib, platform' 2>/dev/null ||
  stop "python3 with its standard library is missing (Debian's python3-minimal is not enough); the report is written with it"

home=${bundle:-$root}
out=${out:-$([ -n "$bundle" ] && echo "$bundle/results" || echo "$root/build/gpu")}
mkdir -p "$out" || stop "cannot make $out"
out=$(cd "$out" && pwd)
cd "$home" || exit 2

# ---------------------------------------------------------------------------------------------------- programs

build() {
  cmake -S . -B build -G Ninja -DSWITCHYARD_CUDA=ON && cmake --build build --target switchyard cuda_tests kernel_bench
}

# CUDA's libraries are not in a bundle: links them from wherever this machine has them, a Python with PyTorch included.
link_libraries() {
  local missing places library found
  missing=$(ldd "$bin"/* 2>/dev/null | awk '/not found/ { print $1 }' | sort -u)
  [ -n "$missing" ] || return 0
  places=$(python3 -c 'import glob, sys
for path in filter(None, sys.path): print(*glob.glob(path + "/nvidia/*/lib"), sep="\n")')
  for library in $missing; do
    found=''
    for place in /usr/local/cuda*/lib64 /usr/local/cuda*/lib /usr/local/cuda*/targets/*/lib /usr/local/nvidia/lib* $places; do
      [ -e "$place/$library" ] && found=$place/$library && break
    done
    [ -n "$found" ] || { echo "gpu_check.sh: $library is nowhere on this machine: install CUDA or PyTorch" >&2; return 1; }
    ln -sf "$found" "$bundle/lib/$library" || return 1
    echo "using $found"
  done
}

if [ -n "$bundle" ]; then
  bin=$bundle/bin cuda_tests=$bundle/bin/cuda_tests page=$out/gpu.md
  link_libraries || exit 1
else
  launch/dependencies.sh tests || echo "gpu_check.sh: building with what is here" >&2
  bin=$root/build cuda_tests=$root/build/tests/cuda_tests page=$root/docs/gpu.md
  build || { echo "gpu_check.sh: the build failed" >&2; exit 1; }
fi

# ---------------------------------------------------------------------------------------------------- stages

leave_out() { echo "left out: $*"; return 77; }  # as the last command of a stage

tests() { "$cuda_tests" --gtest_brief=1; }

sanitizer() {
  command -v compute-sanitizer >/dev/null || { leave_out "no compute-sanitizer here"; return; }
  timeout "$sanitizer_seconds" compute-sanitizer --error-exitcode 1 "$@" "$cuda_tests" --gtest_brief=1
}
memcheck() { sanitizer --tool memcheck; }
racecheck() { sanitizer --tool racecheck --racecheck-report all; }

corpus() {  # only ever missing outside a bundle
  [ -f data/austen/train.idx ] && return
  python3 launch/corpus.py austen --out data/austen && "$bin/switchyard" tokenize data/austen/train.jsonl --out data/austen/train
}
train() {
  corpus || return
  local device precision
  for precision in fp32 bf16; do
    for device in cpu cuda; do
      rm -rf "$out/train/$device-$precision"
      echo "$train_steps steps on $device in $precision"
      "$bin/switchyard" train configs/quickstart.yaml run.dir="$out/train/$device-$precision" run.device=$device \
        run.precision=$precision parallel.expert=1 train.steps="$train_steps" train.eval_every=0 checkpoint.every=0 \
        'data.valid=[]' --progress none || return
      rm -rf "$out/train/$device-$precision/checkpoints"
    done
  done
  python3 launch/gpu_report.py losses "$out"
}

has_pytorch() { python3 -c "import torch, yaml, numpy, h5py; assert torch.cuda.is_available()" 2>/dev/null; }
parity() {
  has_pytorch || { leave_out "no PyTorch for GPUs with numpy, h5py and yaml here"; return; }
  python3 benchmarks/parity.py --device cuda --switchyard "$bin/switchyard"
}

kernels() { "$bin/kernel_bench" --device cuda --out "$out/kernels.json"; }

model() {
  "$bin/switchyard" bench benchmarks/g1.yaml --json >"$out/model.json.new" || { rm "$out/model.json.new"; return 1; }
  mv "$out/model.json.new" "$out/model.json"
  python3 -c 'import json, sys
m = json.load(open(sys.argv[1]))
print("%.0f tokens/s, %.0f TFLOP/s" % (m["tokens_per_second"], m["model_flops_per_second"] / 1e12))' "$out/model.json"
}
pytorch() {
  has_pytorch || { leave_out "no PyTorch for GPUs with numpy, h5py and yaml here"; return; }
  python3 benchmarks/speed.py --device cuda --config benchmarks/g1.yaml --switchyard "$bin/switchyard" --no-parity \
    --rounds 20 --warmup 8 --out "$out/speed.json"
}

failed=''
declare -A result_of=([train]=losses [kernels]=kernels [model]=model [pytorch]=speed)
for name in $stages; do
  printf '\n\033[1m%s\033[0m\n' "$name"
  rm -f "$out/${result_of[$name]:-none}.json"  # an earlier run's: the page must not show it for this one's
  SECONDS=0
  "$name" 2>&1 | tee "$out/$name.log"
  case ${PIPESTATUS[0]} in
    0) result=passed ;;
    77) result='left out' ;;
    124) result=failed failed="$failed $name"; echo "stopped after $SECONDS s" | tee -a "$out/$name.log" ;;
    *) result=failed failed="$failed $name" ;;
  esac
  python3 - "$name" "$result" "$SECONDS" "$out/$name.log" "$home/" >>"$out/stages.jsonl" <<'END'
import json, re, sys
name, result, seconds, log, home = sys.argv[1:]
lines = [line.strip().replace(home, "") for line in open(log, errors="replace") if line.strip()]
wrong = [line for line in lines if result == "failed" and re.search("error|fail|stopped after", line, re.I)]
last = (wrong or lines or [""])[-1]
note = last[:160] if result != "passed" or name in ("tests", "memcheck", "racecheck", "parity") else ""
print(json.dumps({"stage": name, "status": result, "seconds": int(seconds), "note": note.replace("|", "/")}))
END
done

# ---------------------------------------------------------------------------------------------------- report

python3 - "$gpu" "$("$bin/switchyard" --version)" >"$out/run.json" <<'END'
import datetime, json, os, platform, subprocess, sys
def first(*command):
    try:
        return subprocess.run(command, text=True, capture_output=True, timeout=120).stdout.strip().split("\n")[0]
    except (OSError, subprocess.TimeoutExpired):
        return ""
processor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
query = first("nvidia-smi", "--query-gpu=memory.total,driver_version", "--format=csv,noheader", "--id=0")
print(json.dumps({"gpu": sys.argv[1], "GPU_memory_and_driver": query, "program": sys.argv[2],
                  "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
                  "processor": f"{processor}, {len(os.sched_getaffinity(0))} cores", "system": platform.platform(),
                  "PyTorch": first("python3", "-c", "import torch; print(torch.__version__)")}, indent=1))
END
python3 launch/gpu_report.py page "$out" "$page" || failed="$failed page"

[ -z "$failed" ] || { echo "gpu_check.sh: failed:$failed" >&2; exit 1; }
echo "gpu_check.sh: all passed"
