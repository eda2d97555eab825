#!/usr/bin/env bash
# A SLURM of one node for tests: a controller, a node and their munge, with configuration, keys, ports and
# state of their own below one directory. An installed SLURM is neither read nor changed.
#
#   eval "$(scripts/slurm-single-node.sh up [CPUS])"    starts it (8 CPUs are pretended) and sets SLURM_CONF
#   scripts/slurm-single-node.sh down                   ends it and its jobs, and removes the directory
#   scripts/slurm-single-node.sh install                installs slurm-wlm and munge, where they are not (apt-get, root)
#
# `up` installs too, unless LAMBDA_HAT_SLURM_INSTALL=no. Exit code 77: SLURM cannot be had here; 3: it does not start.
set -euo pipefail

home=${LAMBDA_HAT_SLURM_DIR:-/tmp/lambda-hat-slurm-$(id -u)}
conf=$home/slurm.conf
ctld_port=${LAMBDA_HAT_SLURM_PORT:-26817}
PATH=$PATH:/usr/sbin:/sbin

say() { printf 'slurm-single-node: %s\n' "$*" >&2; }
skip() { say "$*"; exit 77; }
fail() { say "$*"; exit 3; }

running() { [ -s "$home/$1.pid" ] && kill -0 "$(cat "$home/$1.pid")" 2>/dev/null; }

install_packages() {
  command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && return
  [ "${LAMBDA_HAT_SLURM_INSTALL:-yes}" = yes ] || skip "no SLURM here: scripts/bootstrap.sh --tests installs it"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || skip "as root: apt-get install --no-install-recommends slurm-wlm munge"
    as_root=(sudo)
  fi
  command -v apt-get >/dev/null || skip "no apt-get here: install SLURM (slurmctld, slurmd) and munge in this system's own way"
  say "installs slurm-wlm and munge"
  local log apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get)
  log=$({ "${apt[@]}" update -qq && "${apt[@]}" install -y -qq --no-install-recommends slurm-wlm munge; } 2>&1) ||
    skip "slurm-wlm and munge cannot be installed: $(tail -n 1 <<<"$log")"
}

configure() {
  local host mem
  host=$(hostname -s)
  mem=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
  cat >"$conf" <<CONF
ClusterName=lambda-hat
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$((ctld_port + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
CredType=cred/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
# Neither cgroups nor an accounting database.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# More CPUs than the machine has.
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
# Its PMIx keeps files in /tmp by the number of job and step: other SLURMs of this machine have others.
FirstJobId=$ctld_port
JobRequeue=1
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=$1 Boards=1 SocketsPerBoard=1 CoresPerSocket=$1 ThreadsPerCore=1 RealMemory=$mem State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
}

up() {
  local cpus=$1 tries=0
  install_packages
  mkdir -p "$home/state" "$home/spool"
  chmod 755 "$home"
  if ! running munged; then
    (umask 077 && head -c 1024 /dev/urandom >"$home/munge.key")
    # --force: below /tmp, whose permissions munge would rather not have.
    munged --force --key-file="$home/munge.key" --socket="$home/munge.socket" --pid-file="$home/munged.pid" \
      --log-file="$home/munged.log" --seed-file="$home/munge.seed" 2>>"$home/munged.err" ||
      fail "munged does not start: $(tail -n 1 "$home/munged.err")"
  fi
  running slurmctld || configure "$cpus"
  export SLURM_CONF=$conf
  running slurmctld || slurmctld -c -f "$conf" || fail "slurmctld does not start: see $home/slurmctld.log"
  running slurmd || slurmd -f "$conf" || fail "slurmd does not start: see $home/slurmd.log"
  until sinfo -h -o %T 2>/dev/null | grep -qE '^(idle|mixed|allocated)$'; do
    tries=$((tries + 1))
    [ $tries -le 100 ] || fail "the node does not come up: see $home/slurmctld.log and $home/slurmd.log"
    sleep 0.1
  done
  printf 'export SLURM_CONF=%q\n' "$conf"
}

down() {
  local name pid
  if running slurmctld; then
    SLURM_CONF=$conf scancel --quiet --signal=KILL --full --user="$(id -un)" 2>/dev/null || true
  fi
  for name in slurmd slurmctld munged; do
    running "$name" || continue
    pid=$(cat "$home/$name.pid")
    kill "$pid"
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  done
  # Nothing but a directory that `up` made.
  [ ! -f "$conf" ] || rm -rf "$home"
}

case "${1:-}" in
  up) up "${2:-8}" ;;
  down) down ;;
  install) install_packages ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
