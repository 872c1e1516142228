#!/bin/sh
# Makes a virtual environment with PyTorch from PyPI: benchmarks/setup.sh [DIRECTORY, build/pytorch]
# PyPI's Linux build of PyTorch does not load without the CUDA libraries that it depends on, so this downloads
# 2.5 GB and takes 5.5 GB on disk. PyTorch's own index has a much smaller build for CPUs, where it can be reached:
#   PIP_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_EXTRA_INDEX_URL=https://pypi.org/simple benchmarks/setup.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
directory=${1:-$here/../build/pytorch}

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "setup.sh: PyTorch wants Python 3.11 or newer; name one with PYTHON=..." >&2; exit 2; }
"$python" -c 'import ensurepip' 2>/dev/null ||
  { echo "setup.sh: this Python cannot make virtual environments: apt-get install python3-venv" >&2; exit 2; }
"$python" -m venv "$directory"
"$directory/bin/pip" install --quiet --requirement "$here/requirements.txt"
"$directory/bin/python" -c 'import torch; print("PyTorch", torch.__version__, "in", __import__("sys").prefix)'
