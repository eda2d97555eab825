//! Meeting the other ranks at the start of a sweep and parting from them at its end.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::Options;
use crate::comm::Comm;
use crate::device::Arith;
use crate::sweep::execute::host_name;
use crate::sweep::fault::{self, Count};
use crate::sweep::ranks::RankPlace;
use crate::sweep::unit::{ToManager, ToWorker};
use crate::sweep::worker::Backoff;
use crate::sweep::{MANAGER, SweepError};

/// How long ranks may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// Sends every other rank the same.
pub(super) fn send_all(comm: &mut dyn Comm, message: &ToWorker) -> Result<(), SweepError> {
    let bytes = postcard::to_stdvec(message)?;
    for rank in 1..comm.size() {
        fault::count(Count::Message);
        comm.send(rank, &bytes)?;
    }
    Ok(())
}

/// Sends one rank a message.
pub(super) fn send(comm: &mut dyn Comm, rank: usize, message: &ToWorker) -> Result<(), SweepError> {
    fault::count(Count::Message);
    Ok(comm.send(rank, &postcard::to_stdvec(message)?)?)
}

/// Waits for every rank, fixes the arithmetic, and returns what each rank got, in order. Where `on_device`, chains will
/// run on a device: every rank must have one of the same arithmetic.
pub(super) fn meet_ranks(
    comm: &mut dyn Comm,
    options: &Options,
    on_device: bool,
) -> Result<Vec<RankPlace>, SweepError> {
    let own = options.device.as_ref().map(|device| (device.info().to_string(), device.info().arithmetic()));
    let (device, expected) = own.filter(|_| on_device).unzip();
    let place = RankPlace::new(MANAGER, host_name(), comm.node_local().0, options.slots);
    let mut ranks = vec![place.with_device(device)];
    let mut other_device = None;
    let mut common = Arith::best();
    let mut pause = Backoff::new();
    let (_quiet, nothing) = channel::<()>();
    while ranks.len() < comm.size() {
        match comm.poll()? {
            Some((rank, bytes)) => {
                match postcard::from_bytes(&bytes)? {
                    ToManager::Up { arith, slots, host, node_rank, device } => {
                        log::debug!("rank {rank} on {host} is there and has {arith}");
                        common = common.min(arith.parse()?);
                        let (device, has) = device.filter(|_| on_device).unzip();
                        if has != expected {
                            other_device.get_or_insert((rank, host.clone(), has));
                        }
                        ranks.push(RankPlace::new(rank, host, node_rank, slots).with_device(device));
                    }
                    // It is obeyed once the sweep has begun.
                    ToManager::Signal { signal } => options.signal.store(signal, Ordering::Relaxed),
                    _ => {}
                }
            }
            None => {
                pause.wait(&nothing);
            }
        }
    }
    if let (Some((rank, host, has)), Some(expected)) = (other_device, expected) {
        return Err(SweepError::Device { rank, host, has: has.unwrap_or_else(|| "none".into()), expected });
    }
    let arith = match options.arith {
        Some(asked) if asked > common => return Err(SweepError::Arith { asked, common }),
        Some(asked) => asked,
        None => common,
    };
    arith.set_current()?;
    let every = options.checkpoint_every.as_millis() as u64;
    let dir = options.checkpoint_dir.clone();
    send_all(comm, &ToWorker::Start { arith: arith.name().to_owned(), every, dir })?;
    ranks.sort_unstable();
    let alone = ranks.len() == 1;
    for place in &mut ranks {
        place.arithmetic = arith.name();
        if alone {
            // Several are named where the plan is.
            log::info!("{place}");
        }
    }
    Ok(ranks)
}

/// Waits, for a while, until every rank that was told to stop has said goodbye; whether some has not: it
/// would be waited for without end.
pub fn part(comm: &mut dyn Comm) -> Result<bool, SweepError> {
    let silent = (1..comm.size()).collect();
    hear_goodbyes(comm, silent)
}

fn hear_goodbyes(comm: &mut dyn Comm, mut silent: BTreeSet<usize>) -> Result<bool, SweepError> {
    let until = Instant::now() + GOODBYE;
    let mut pause = Backoff::new();
    let (_quiet, nothing) = channel::<()>();
    while !silent.is_empty() && Instant::now() < until {
        match comm.poll()? {
            Some((rank, bytes)) => {
                if let ToManager::Bye = postcard::from_bytes(&bytes)? {
                    silent.remove(&rank);
                }
            }
            None => {
                pause.wait(&nothing);
            }
        }
    }
    Ok(!silent.is_empty())
}

/// Sends the other ranks home without work: they report, and are told to stop. Whether some does not
/// answer.
pub fn dismiss(comm: &mut dyn Comm) -> Result<bool, SweepError> {
    let stop = postcard::to_stdvec(&ToWorker::Stop)?;
    let mut pause = Backoff::new();
    let (_quiet, nothing) = channel::<()>();
    let mut expected: BTreeSet<usize> = (1..comm.size()).collect();
    let mut silent = expected.clone();
    while !expected.is_empty() {
        match comm.poll()? {
            Some((rank, bytes)) => match postcard::from_bytes(&bytes)? {
                ToManager::Up { .. } => {
                    comm.send(rank, &stop)?;
                    expected.remove(&rank);
                }
                ToManager::Bye => {
                    silent.remove(&rank);
                }
                _ => {}
            },
            None => {
                pause.wait(&nothing);
            }
        }
    }
    hear_goodbyes(comm, silent)
}
