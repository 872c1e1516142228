#!/usr/bin/env bash
# Fails when a folder includes one that is not below it. One line per folder: name, then what it may include.
set -euo pipefail
cd "$(dirname "$0")/../src"
status=0
while read -r folder allowed; do
  [ -d "$folder" ] || continue
  while IFS=: read -r file line text; do
    target=$(sed -E 's/.*"([a-z_]+)\/.*/\1/' <<<"$text")
    [[ " $folder $allowed " == *" $target "* ]] && continue
    echo "src/$file:$line: $folder must not include $target"
    status=1
  done < <(grep -rnE '^#include "[a-z_]+/' "$folder" --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh')
done <<'RULES'
tensor
files      tensor
autograd   tensor
dist       tensor autograd
optim      tensor autograd dist
data       tensor files autograd dist
checkpoint tensor files autograd dist
layers     tensor autograd dist
moe        tensor autograd dist layers
model      tensor autograd dist layers moe
train      tensor files autograd dist optim data checkpoint layers moe model
app        tensor files autograd dist optim data checkpoint layers moe model train
RULES

# Each third-party header has one home.
while read -r header homes; do
  while IFS=: read -r file line _; do
    for home in $homes; do [[ "$file" == $home ]] && continue 2; done
    echo "src/$file:$line: <$header> belongs in $homes"
    status=1
  done < <(grep -rnE "^#include <$header" . --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh' | sed 's|^\./||')
done <<'HOMES'
mpi.h       dist/mpi/*
nccl.h      dist/nccl_group.cpp
openssl/    files/sha256.cpp
hdf5.h      checkpoint/hdf5_file.cpp
dnnl        tensor/cpu/*
yaml-cpp/   train/*
CLI/        app/*
cuda        tensor/cuda/*
HOMES
exit $status
