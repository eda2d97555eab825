#!/bin/bash
#SBATCH --job-name=tiny
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --gpus-per-node=h200:8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

export OMPI_MCA_mpi_yield_when_idle=1
program=${LAMBDA_HAT_PROGRAM:-'/bin/lambda-hat-mpi'}
arguments=(run /repository/tests/data/sweep/tiny.yaml --root /root/of/it --workers 12)
srun_options=(--mpi=pmix --cpus-per-task=12 --wait=60 --kill-on-bad-exit=0)
requeue=yes
max_requeues=100

# What follows looks at exit codes itself, whatever the lines above asked of the shell.
set +e +u

# SLURM before 23.02 does not tell a job when it ends.
if [ -z "${SLURM_JOB_END_TIME:-}" ]; then
  SLURM_JOB_END_TIME=$(date -d "$(SLURM_TIME_FORMAT=standard squeue -h -j "$SLURM_JOB_ID" -o %e)" +%s) && export SLURM_JOB_END_TIME
fi

# USR1 before the time limit reaches the ranks alone; where it reaches this shell instead (a site's own
# settings, scancel --batch), it is passed on. TERM reaches both: this shell need only outlive it.
step=
signalled=no
pass_on() {
  signalled=yes
  if [ -n "$step" ]; then kill -USR1 "$step" 2>/dev/null; fi
}
trap pass_on USR1
trap 'signalled=yes' TERM

srun "${srun_options[@]}" "$program" "${arguments[@]}" &
step=$!

# A signal ends `wait`, not the step.
code=127
while :; do
  signalled=no
  wait "$step"
  ended=$?
  # 127: it was waited for before.
  [ "$ended" = 127 ] || code=$ended
  [ "$signalled" = yes ] || break
done

say() { printf 'job %s: %s\n' "$SLURM_JOB_ID" "$*"; }

# 75: interrupted, and the same command does the rest.
[ "$code" = 75 ] || exit "$code"
restarts=${SLURM_RESTART_COUNT:-0}
state=$(squeue -h -j "$SLURM_JOB_ID" -o %T)
if [ "$requeue" != yes ]; then
  say "interrupted; what is done is kept: submit it again to do the rest"
elif [ "$state" != RUNNING ] && [ "$(date +%s)" -lt "${SLURM_JOB_END_TIME:-0}" ]; then
  # Ended before its time: a cancelled job that queued itself again could never be cancelled, and one that SLURM
  # preempts is SLURM's to requeue.
  say "cancelled or preempted; what is done is kept: submit it again to do the rest"
elif [ "$restarts" -ge "$max_requeues" ]; then
  say "interrupted once more after $max_requeues requeues, the most that its card allows; what is done is kept:" \
    "is the walltime long enough to get anywhere?"
else
  say "interrupted; queues itself again, requeue $((restarts + 1))"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit 75
