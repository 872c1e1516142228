#!/usr/bin/env bash
# Packs what launch/gpu_check.sh needs on a machine that has a GPU and else little: no network, MPI, HDF5, yaml-cpp or
# spdlog, only a libc as new as this one's, python3 and, for the GPU, a driver with CUDA's libraries (or PyTorch's wheels).
#   launch/gpu_bundle.sh [--without-cuda]     writes build-bundle/switchyard-gpu and switchyard-gpu.tar.xz beside it
# The programs are built for any x86-64 processor with AVX2 and find their libraries beside them (DT_RPATH), so that the
# folder may lie anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."

cuda=ON programs=(switchyard kernel_bench cuda_tests)
if [ "${1:-}" = --without-cuda ]; then  # to try the bundle out
  cuda=OFF programs=(switchyard kernel_bench)
elif [ $# -gt 0 ]; then
  echo "usage: launch/gpu_bundle.sh [--without-cuda]" >&2
  exit 2
fi

launch/dependencies.sh tests bundle
build="build-bundle"
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Release -DSWITCHYARD_NATIVE=OFF -DSWITCHYARD_CUDA=$cuda \
  -DCMAKE_BUILD_RPATH="\$ORIGIN/../lib" -DCMAKE_EXE_LINKER_FLAGS=-Wl,--disable-new-dtags >/dev/null
cmake --build $build --target "${programs[@]}"

bundle=$build/switchyard-gpu
rm -rf $bundle
mkdir -p $bundle/{bin,lib,licenses,launch,benchmarks,configs,data/austen}
for program in "${programs[@]}"; do
  cp "$(find $build -maxdepth 2 -type f -name "$program")" $bundle/bin/
  strip $bundle/bin/"$program"
done

# libc's own parts and CUDA's come from the machine that it runs on.
theirs='^(linux-vdso|ld-linux|libc|libm|libdl|librt|libpthread|libresolv|libutil|libanl|libcu(da|dart|blas|blasLt)|libnccl)[.-]'
package_of() {  # of a file, which dpkg may know by its name from before /lib was a link to /usr/lib
  local path
  path=$(readlink -f "$1")
  { dpkg-query -S "$path" || dpkg-query -S "${path#/usr}"; } 2>/dev/null | head -n 1 | cut -d: -f1
}
ldd $bundle/bin/* | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u | while read -r name path; do
  [[ $name =~ $theirs ]] && continue
  cp -L "$path" $bundle/lib/"$name"
  package=$(package_of "$path") || { echo "gpu_bundle.sh: no package has $path: no licence goes with it" >&2; continue; }
  cp "/usr/share/doc/$package/copyright" "$bundle/licenses/$package.txt"
done

# A library with a DT_RUNPATH, as Open MPI's have, does not look where the program's DT_RPATH says.
cat >$build/rpath.cmake <<END
file(GLOB programs "$PWD/$bundle/bin/*")
file(GLOB libraries "$PWD/$bundle/lib/*")
foreach(file \${programs})
  file(RPATH_SET FILE \${file} NEW_RPATH "\$ORIGIN/../lib")
endforeach()
foreach(file \${libraries})
  file(RPATH_REMOVE FILE \${file})
endforeach()
END
cmake -P $build/rpath.cmake >/dev/null
if ldd $bundle/bin/* | awk '$2 == "=>" { print $1, $2, $3 }' | grep -vE "$theirs" | grep -vF "=> $PWD/$bundle/"; then
  echo "gpu_bundle.sh: the libraries above are not in the bundle" >&2
  exit 1
fi

[ -f data/austen/corpus.json ] || python3 launch/corpus.py austen --out data/austen
[ -f data/austen/train.idx ] || $build/switchyard tokenize data/austen/train.jsonl --out data/austen/train
cp data/austen/train.{bin,idx,json} $bundle/data/austen/
cp data/austen/LICENSES.md LICENSE $bundle/licenses/
cp configs/quickstart.yaml $bundle/configs/
cp benchmarks/*.py benchmarks/*.yaml $bundle/benchmarks/
cp launch/gpu_check.sh launch/gpu_report.py $bundle/launch/
printf '{"program": "%s", "cuda": "%s", "packed": "%s"}\n' "$($build/switchyard --version)" $cuda "$(date -u +%F)" \
  >$bundle/bundle.json

tar -C $build -c switchyard-gpu | xz -T0 >$build/switchyard-gpu.tar.xz.new
mv $build/switchyard-gpu.tar.xz.new $build/switchyard-gpu.tar.xz
size=$(stat -c %s $build/switchyard-gpu.tar.xz)
echo "$build/switchyard-gpu.tar.xz: $((size / 1000000)) MB, unpacked $(du -sm $bundle | cut -f1) MiB"
