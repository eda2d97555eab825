//! The job that an MPI launcher started (MPI 3.1; sections cited are of that standard).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use mpi::collective::CommunicatorCollectives;
use mpi::environment::{self, Universe};
use mpi::point_to_point::{Destination, MatchedReceiveVec, Source};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::{Rank, Tag, Threading, request};

use super::{Comm, CommError, expected_size};

/// Tag of a message's last piece.
const LAST: Tag = 1;
/// Tag of a piece that another one follows.
const MORE: Tag = 2;
/// Longest piece in bytes: counts in MPI are C `int`s.
const PIECE: usize = 1 << 30;

/// A rank of an MPI job, on a communicator of its own (§6.4.2, `MPI_Comm_dup`).
///
/// A message travels as pieces of at most 2³⁰ bytes; pieces of one sender never overtake each
/// other (§3.5), whatever their tags, because they are received with any tag.
pub struct MpiComm {
    messages: SimpleCommunicator,
    incoming: VecDeque<(usize, Vec<u8>)>,
    partial: HashMap<usize, Vec<u8>>,
    piece: usize,
    patience: Option<(Duration, u8)>,
    node: (usize, usize),
    // Last, so that communicators are freed before MPI_Finalize.
    _universe: Universe,
}

impl MpiComm {
    /// Initialises MPI at thread level `MPI_THREAD_FUNNELED`; every rank of the job must call it.
    /// Dropping the result finalises MPI, which waits for the other ranks to do the same.
    ///
    /// # Errors
    /// MPI was initialised before; it lacks thread support; or the launcher started more processes
    /// than MPI sees, as with an MPICH program under `srun --mpi=pmix`.
    pub fn init() -> Result<Self, CommError> {
        let (universe, granted) =
            mpi::initialize_with_threading(Threading::Funneled).ok_or(CommError::AlreadyInitialised)?;
        if granted < Threading::Funneled {
            return Err(CommError::Threading { granted: format!("{granted:?}") });
        }
        let world = universe.world();
        if let Some((variable, expected)) = expected_size(|name| std::env::var(name).ok())
            && count(world.size()) < expected
        {
            let (world, library) = (count(world.size()), library());
            return Err(CommError::Split { variable, expected, world, library });
        }
        let node = world.split_shared(world.rank());
        Ok(Self {
            messages: world.duplicate(),
            incoming: VecDeque::new(),
            partial: HashMap::new(),
            piece: PIECE,
            patience: None,
            node: (count(node.rank()), count(node.size())),
            _universe: universe,
        })
    }

    /// Cuts messages into pieces of `bytes` (1 to 2³⁰) from now on; any rank may choose its own.
    #[doc(hidden)]
    pub fn with_pieces_of(mut self, bytes: usize) -> Self {
        self.piece = bytes.clamp(1, PIECE);
        self
    }

    /// Takes in one piece if one has arrived. A piece that is announced but not yet here is waited
    /// for: its sender is inside [`send`](Comm::send) and drives the transfer.
    fn take_in(&mut self) -> bool {
        // §3.8.2: the matched probe takes the piece out of the queue, so that the size it tells
        // belongs to what is received next.
        let Some(announced) = self.messages.any_process().immediate_matched_probe() else {
            return false;
        };
        let (bytes, status) = announced.matched_receive_vec::<u8>();
        let from = count(status.source_rank());
        let message = match self.partial.remove(&from) {
            None => bytes,
            Some(mut start) => {
                start.extend_from_slice(&bytes);
                start
            }
        };
        if status.tag() == MORE {
            self.partial.insert(from, message);
        } else {
            self.incoming.push_back((from, message));
        }
        true
    }

    /// Sends one piece (§3.7.2, a standard-mode send), taking in what arrives until it is gone.
    fn send_piece(&mut self, to: Rank, bytes: &[u8], tag: Tag) {
        request::scope(|scope| {
            // The handle is short-lived on purpose: taking in needs `self`.
            let mut sending = {
                let process = self.messages.process_at_rank(to);
                process.immediate_send_with_tag(scope, bytes, tag)
            };
            let (mut pause, begun) = (Pause::default(), Instant::now());
            while let Err(still) = sending.test() {
                sending = still;
                self.give_up(to, begun);
                pause.unless(self.take_in());
            }
        });
    }
}

impl MpiComm {
    /// Ends the job where a receiver has taken nothing for too long.
    fn give_up(&mut self, to: Rank, begun: Instant) {
        if let Some((patience, code)) = self.patience
            && begun.elapsed() > patience
        {
            eprintln!(
                "error: rank {to} has taken no message for {} s: the job is ended; the same command goes on from what \
                 is saved",
                patience.as_secs_f64()
            );
            self.abort(i32::from(code));
        }
    }
}

impl Comm for MpiComm {
    fn set_patience(&mut self, patience: Option<Duration>, code: u8) {
        self.patience = patience.map(|patience| (patience, code));
    }

    fn rank(&self) -> usize {
        count(self.messages.rank())
    }

    fn size(&self) -> usize {
        count(self.messages.size())
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CommError> {
        let size = self.size();
        let receiver = Rank::try_from(to).ok().filter(|_| to < size);
        let receiver = receiver.ok_or(CommError::NoSuchRank { to, size })?;
        let mut rest = bytes;
        while rest.len() > self.piece {
            let (piece, after) = rest.split_at(self.piece);
            self.send_piece(receiver, piece, MORE);
            rest = after;
        }
        self.send_piece(receiver, rest, LAST);
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<(usize, Vec<u8>)>, CommError> {
        while self.incoming.is_empty() && self.take_in() {}
        Ok(self.incoming.pop_front())
    }

    fn barrier(&mut self) {
        let mut waiting = self.messages.immediate_barrier();
        let mut pause = Pause::default();
        while let Err(still) = waiting.test() {
            waiting = still;
            // A rank that is still sending to this one reaches the barrier only if it is received.
            pause.unless(self.take_in());
        }
    }

    fn abort(&mut self, code: i32) -> ! {
        self.messages.abort(code)
    }

    fn describe(&self) -> String {
        let ranks = if self.size() == 1 { "rank" } else { "ranks" };
        format!("{}, {} {ranks}", library(), self.size())
    }

    fn node_local(&self) -> (usize, usize) {
        self.node
    }
}

/// `MPI_Abort` on everything (§8.7), if MPI is up.
pub(super) fn abort_if_running(code: i32) {
    if environment::is_initialized() && !environment::is_finalized() {
        SimpleCommunicator::world().abort(code);
    }
}

/// A size or rank that MPI gave; it is never negative for the communicators used here.
fn count(x: Rank) -> usize {
    usize::try_from(x).unwrap_or(0)
}

/// Name and version of the MPI library.
fn library() -> String {
    environment::library_version().map_or_else(|_| "MPI".into(), |text| short_version(&text))
}

/// The part of `MPI_Get_library_version`'s text that people need: up to the first NUL byte, line
/// end or comma, without the word "Version:".
fn short_version(text: &str) -> String {
    let head = text.split(['\0', '\n', ',']).next().unwrap_or_default();
    let words = head.split_whitespace().filter(|word| !word.eq_ignore_ascii_case("version:"));
    let words = words.map(|word| match word.strip_prefix('v') {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => digits,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Waiting without holding a core: a few polls with a yield between them, then sleeps that double
/// from 10 µs to 1 ms.
#[derive(Default)]
struct Pause {
    idle: u32,
}

impl Pause {
    /// Starts over if something happened, else waits a little.
    fn unless(&mut self, happened: bool) {
        const YIELDS: u32 = 32;
        if happened {
            self.idle = 0;
        } else if self.idle < YIELDS {
            self.idle += 1;
            std::thread::yield_now();
        } else {
            let micros = (10u64 << (self.idle - YIELDS)).min(1000);
            self.idle = (self.idle + 1).min(YIELDS + 7);
            std::thread::sleep(Duration::from_micros(micros));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_versions_are_cut_to_what_people_need() {
        for (text, short) in [
            ("Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4\0", "Open MPI 4.1.4"),
            ("MPICH Version:      4.0.2\nMPICH Release date: Thu", "MPICH 4.0.2"),
            ("Intel(R) MPI Library 2021.9 for Linux* OS\n\0", "Intel(R) MPI Library 2021.9 for Linux* OS"),
            ("\0", ""),
        ] {
            assert_eq!(short_version(text), short);
        }
    }
}
