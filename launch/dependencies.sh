#!/usr/bin/env bash
# Installs with apt what building, testing and the quickstart need and this machine lacks. Run by the other scripts.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config git ca-certificates python3
  libopenmpi-dev openmpi-bin      # ranks
  libdnnl-dev                     # matrix products on the CPU
  libhdf5-dev hdf5-tools          # checkpoints
  libssl-dev                      # SHA-256
  libyaml-cpp-dev libcli11-dev libspdlog-dev nlohmann-json3-dev
  python3-yaml                    # experiments
)
[ "${1:-}" = tests ] && packages+=(libgtest-dev libboost-context-dev python3-h5py)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "These packages are missing and sudo is not there: ${missing[*]}" >&2; exit 1; }
  root=(sudo)
fi
echo "Installing: ${missing[*]}"
"${root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
