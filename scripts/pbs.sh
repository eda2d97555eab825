#!/bin/bash
# A sweep as a job of PBS (OpenPBS, PBS Pro):
#
#   qsub -v FILE=/abs/experiments.yaml,OPTIONS="--root /abs/dir" scripts/pbs.sh
#
# A minute and a half before its time limit the job checkpoints, and queues itself again (`-r y`, qrerun).
# More cores: qsub -l select=4:ncpus=32:mpiprocs=32 -l walltime=04:00:00 …
#PBS -N lambda-hat
#PBS -l select=1:ncpus=16:mpiprocs=16
#PBS -l walltime=04:00:00
#PBS -r y
#PBS -j oe

cd "${PBS_O_WORKDIR:-.}" || exit 3
program=${LAMBDA_HAT_PROGRAM:-target/release/lambda-hat-mpi}
[ -n "${FILE:-}" ] || { echo "name the experiment file: qsub -v FILE=/abs/experiments.yaml $0" >&2; exit 2; }

# module load openmpi

# PBS says how long a job may run (PBS_WALLTIME, seconds) where it is new enough; else its server does.
limit=${PBS_WALLTIME:-}
if [ -z "$limit" ]; then
  clock=$(qstat -f "$PBS_JOBID" | sed -n 's/^ *Resource_List.walltime = //p')
  limit=$(awk -F: '{ for (i = 1; i <= NF; i++) s = 60 * s + $i; print s + 0 }' <<<"$clock")
fi
lead=90
[ "$limit" -ge $((4 * lead)) ] || lead=$((limit / 4))

# mpirun hands USR1 on to the ranks, and their 75 (interrupted, can go on) comes back. What PBS itself sends at
# the limit, TERM, would leave them one second. Without a limit, `timeout 0` never fires.
[ "$limit" -gt 0 ] && stop=$((limit - lead)) || stop=0
# Words of OPTIONS are options: it is split on purpose.
# shellcheck disable=SC2086
timeout --foreground --preserve-status --signal=USR1 "$stop" mpirun "$program" run "$FILE" ${OPTIONS:-}
code=$?

# A job that gets nowhere must end: PBS counts how often it ran (run_count), MOST says how often it may.
if [ "$code" = 75 ]; then
  runs=$(qstat -f "$PBS_JOBID" 2>/dev/null | sed -n 's/^ *run_count = //p')
  if [ "${runs:-1}" -ge "${MOST:-100}" ]; then
    echo "interrupted after $runs runs: submit it again to do the rest" >&2
  else
    echo "interrupted; queues itself again"
    qrerun "$PBS_JOBID" || echo "qrerun refused: submit the job again to do the rest" >&2
  fi
fi
exit "$code"
