#!/usr/bin/env bash
# Installs what lambda-hat-mpi needs and this machine lacks. Safe to run again: what is there is left alone.
#
#   scripts/bootstrap.sh           what building and running needs
#   scripts/bootstrap.sh --tests   also what the tests need: the Python environment that reads our files, and a
#                                  SLURM that is started for a test and ended after it
#   scripts/bootstrap.sh --cuda    also the compiler of the GPU kernels (feature `cuda`), into .cuda/
#
# Debian 12 and Ubuntu 22.04 or later. Rust comes from https://rustup.rs and is not installed here.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=no
cuda=no
case "${1:-}" in
  "") ;;
  --tests) tests=yes ;;
  --cuda) cuda=yes ;;
  *) echo "usage: scripts/bootstrap.sh [--tests | --cuda]" >&2; exit 2 ;;
esac

say() { printf 'bootstrap: %s\n' "$*"; }

command -v cargo >/dev/null || { say "Rust is missing: install it from https://rustup.rs, then run this again" >&2; exit 3; }

# package            why
packages=(
  "gcc:C compiler and linker"
  "pkg-config:finds the libraries below"
  "libopenmpi-dev:MPI headers and library (crate mpi)"
  "openmpi-bin:mpirun"
  "libclang-dev:reads the MPI headers at build time (crate mpi, bindgen)"
  "libhdf5-dev:HDF5 and NetCDF-4 files (crate hdf5)"
  "libopenblas-pthread-dev:QR and singular values of exact targets (crate ndarray-linalg)"
)
if [ "$tests" = yes ] && ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
  packages+=("python3:reads our files in the tests" "python3-venv:its environment")
fi
if [ "$cuda" = yes ] && ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
  packages+=("python3-venv:fetches the compiler of the GPU kernels")
fi
# The kernels also compile as plain C++: in the tests, and as nvcc's host side.
if [ "$tests$cuda" != nono ]; then
  packages+=("g++:C++ compiler, for the GPU kernels and their tests on the host")
fi
# Ubuntu has no such package (its chromium is a snap): the test of the report is skipped there, and says so.
if [ "$tests" = yes ] && ! command -v chromium-headless-shell chromium google-chrome chrome >/dev/null \
  && apt-cache show chromium-headless-shell >/dev/null 2>&1; then
  packages+=("chromium-headless-shell:shows the report in its test (about 100 MB to fetch)")
fi

missing=()
for entry in "${packages[@]}"; do
  name=${entry%%:*}
  if ! dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed'; then
    say "needs $name: ${entry#*:}"
    missing+=("$name")
  fi
done

if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    say "no apt-get here: install the packages above in this system's own way" >&2
    exit 3
  fi
  as_root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { say "as root: apt-get install ${missing[*]}" >&2; exit 3; }
    as_root=(sudo)
  fi
  export DEBIAN_FRONTEND=noninteractive
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  say "installed ${missing[*]}"
fi

if [ "$tests" = yes ]; then
  stamp=.venv/.requirements
  if ! cmp -s tests/python/requirements.txt "$stamp" 2>/dev/null; then
    say "makes .venv (about 930 MB) with numpy, h5py, ArviZ, pandas, polars, TensorBoard: what our users open our files with"
    rm -rf .venv
    python3 -m venv .venv
    .venv/bin/python -m pip install -q --disable-pip-version-check -r tests/python/requirements.txt
    cp tests/python/requirements.txt "$stamp"
  fi
  # Where there is none to be had the tests that need it are skipped, and say so.
  scripts/slurm-single-node.sh install || { [ $? = 77 ] && say "no SLURM: its tests will be skipped"; }
fi

if [ "$cuda" = yes ]; then
  compiler="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-runtime==13.0.* nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.*"
  if [ "$compiler" != "$(cat .cuda/.packages 2>/dev/null)" ]; then
    say "makes .cuda (about 300 MB) with NVIDIA's compiler 13.0"
    rm -rf .cuda
    python3 -m venv .cuda/venv
    # shellcheck disable=SC2086
    .cuda/venv/bin/python -m pip install -q --disable-pip-version-check --no-deps $compiler
    ln -s "$(cd .cuda && echo venv/lib/python3.*/site-packages/nvidia/cu13)" .cuda/home
    echo "$compiler" >.cuda/.packages
  fi
fi
say "everything needed is here"
