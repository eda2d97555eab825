#!/usr/bin/env bash
# What ptxas says of each kernel: registers, shared memory, spills to local memory, as a Markdown table.
# Ends with 1 where a kernel spills. Needs nvcc: CUDA_HOME, or scripts/bootstrap.sh --cuda, or the path.
set -euo pipefail
cd "$(dirname "$0")/.."

nvcc=nvcc
if [ -n "${CUDA_HOME:-}" ]; then nvcc=$CUDA_HOME/bin/nvcc; elif [ -x .cuda/home/bin/nvcc ]; then nvcc=.cuda/home/bin/nvcc; fi
command -v "$nvcc" >/dev/null || { echo "cuda-table: no nvcc: run scripts/bootstrap.sh --cuda or set CUDA_HOME" >&2; exit 3; }

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

echo "# Kernels as ptxas compiles them"
echo
echo "Date: $(date -u +%Y-%m-%d). Command: \`make cuda-table\`. Compiler: nvcc $("$nvcc" --version | sed -n 's/.*release .*, V//p'), \`-O3 -fmad=false\`."
echo "No GPU is needed for it. Shared memory of the network kernels is chosen at launch (docs/gpu.md); below is what is fixed."
echo "The stack and spills are local memory, in bytes a thread."
echo
echo "| kernel | processor | registers | shared memory | stack | spill stores | spill loads |"
echo "|---|---|---|---|---|---|---|"
for arch in 80 90; do
  "$nvcc" -std=c++17 -O3 -fmad=false -gencode "arch=compute_$arch,code=sm_$arch" -cubin -Xptxas -v -o "$out/$arch.cubin" kernels/kernels.cu 2>"$out/$arch.log" \
    || { cat "$out/$arch.log" >&2; exit 1; }
  awk -v arch="sm_$arch" '
    /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
    /bytes stack frame/ { stack = $1; stores = $5; loads = $9 }
    /Used [0-9]+ registers/ {
      registers = $0; sub(/.*Used /, "", registers); sub(/ registers.*/, "", registers)
      shared = 0
      if (match($0, /[0-9]+ bytes smem/)) { shared = substr($0, RSTART, RLENGTH); sub(/ bytes smem/, "", shared) }
      printf "| `%s` | %s | %s | %s | %s | %s | %s |\n", name, arch, registers, shared, stack, stores, loads
    }' "$out/$arch.log" | sort >"$out/$arch.table"
  cat "$out/$arch.table"
done
if cat "$out"/*.table | awk -F'|' '$7 + $8 > 0 { found = 1 } END { exit !found }'; then
  echo "cuda-table: a kernel spills registers to local memory" >&2
  exit 1
fi
