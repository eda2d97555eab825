#!/usr/bin/env bash
# A sweep on machines without a batch system, over ssh:
#
#   scripts/mpirun-hostfile.sh HOSTFILE experiments.yaml [options of lambda-hat-mpi run]
#
# HOSTFILE has a line a machine: `node1 slots=16`. Every machine needs the program at the same path (here
# target/release/lambda-hat-mpi, or LAMBDA_HAT_PROGRAM); only the machine that this is started on, which must be
# the first of the file, needs the experiment and its store. To stop so that the same command goes on later:
# kill -USR1 of this script's mpirun. Exit code: the program's (75: interrupted, can go on).
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
hosts=$1
file=$2
shift 2
[ -r "$hosts" ] || { echo "$hosts: no such hostfile" >&2; exit 2; }
program=${LAMBDA_HAT_PROGRAM:-$(cd "$(dirname "$0")/.." && pwd)/target/release/lambda-hat-mpi}

# Ranks that wait leave their core to those that compute.
export OMPI_MCA_mpi_yield_when_idle=1
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# Where there is no ssh, only this machine can be meant.
command -v ssh >/dev/null || export OMPI_MCA_plm_rsh_agent=/bin/false

forward=()
for name in LAMBDA_HAT_HOME LAMBDA_HAT_EXPERIMENT; do
  [ -z "${!name:-}" ] || forward+=(-x "$name")
done
exec mpirun --hostfile "$hosts" "${forward[@]}" "$program" run "$file" "$@"
