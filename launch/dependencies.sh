#!/usr/bin/env bash
# Installs with apt what this machine lacks of what building and the quickstart need. Run by the other scripts.
#   launch/dependencies.sh [tests] [bundle]    also what the tests need, and launch/gpu_bundle.sh
# Without apt it names the packages and leaves the rest to the build, which says what it does not find.
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
for further in "$@"; do
  case $further in
    tests) packages+=(libgtest-dev libboost-context-dev python3-h5py) ;;
    bundle) packages+=(xz-utils) ;;
    *) echo "usage: launch/dependencies.sh [tests] [bundle]" >&2; exit 2 ;;
  esac
done

if ! command -v apt-get >/dev/null; then
  echo "There is no apt-get here, so nothing is installed. In Debian 12 what is needed is called: ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null; then
    printf 'Packages are missing, and sudo is not there to install them. As root:\n  %s\n' \
      "apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  root=(sudo)
fi
echo "Installing: ${missing[*]}"
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
