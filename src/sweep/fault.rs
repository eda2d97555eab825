//! Faults on demand, for tests of what a sweep withstands; without `LAMBDA_HAT_FAULT` in the environment
//! nothing happens.
//!
//! - `write:N`, `message:N`: the process dies (as by SIGKILL, nothing is flushed) at its N-th job of the
//!   writer or N-th message;
//! - `panic:PART:K`, `hang:PART:K`: units whose part of a run is PART (`chain-1`, `warmup`, …) panic or
//!   never answer in their first K attempts;
//! - `slow:PART:MS`: such units sleep for MS milliseconds before they begin.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Jobs of rank 0's writer, twice each: before and after.
    Write,
    /// Messages that this process sent.
    Message,
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Die { at: Count, count: u64 },
    Panic { part: String, attempts: u32 },
    Hang { part: String, attempts: u32 },
    Slow { part: String, milliseconds: u32 },
}

fn parse(text: &str) -> Option<Fault> {
    let mut words = text.split(':');
    let (kind, first, second) = (words.next()?, words.next()?, words.next());
    let unit = || Some((first.to_owned(), second?.parse().ok()?));
    match kind {
        "write" => Some(Fault::Die { at: Count::Write, count: first.parse().ok()? }),
        "message" => Some(Fault::Die { at: Count::Message, count: first.parse().ok()? }),
        "panic" => unit().map(|(part, attempts)| Fault::Panic { part, attempts }),
        "slow" => unit().map(|(part, milliseconds)| Fault::Slow { part, milliseconds }),
        "hang" => unit().map(|(part, attempts)| Fault::Hang { part, attempts }),
        _ => None,
    }
}

fn wanted() -> Option<&'static Fault> {
    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
    FAULT.get_or_init(|| parse(&std::env::var("LAMBDA_HAT_FAULT").ok()?)).as_ref()
}

/// Whether `LAMBDA_HAT_FAULT` is absent, empty, or one of the above.
pub fn is_understood() -> bool {
    std::env::var("LAMBDA_HAT_FAULT").map_or(true, |text| text.is_empty() || parse(&text).is_some())
}

/// Counts one, and dies where that was the one.
pub fn count(what: Count) {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    if let Some(Fault::Die { at, count }) = wanted()
        && *at == what
        && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        std::process::abort();
    }
}

/// What is to befall a unit that begins its `attempt`-th attempt, counted from 0.
pub fn befall(part: &str, attempt: u32) {
    match wanted() {
        Some(Fault::Panic { part: p, attempts }) if p == part && attempt < *attempts => {
            panic!("a panic on demand in {part}")
        }
        Some(Fault::Hang { part: p, attempts }) if p == part && attempt < *attempts => loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        Some(Fault::Slow { part: p, milliseconds }) if p == part => {
            std::thread::sleep(std::time::Duration::from_millis(u64::from(*milliseconds)));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_nonsense_is_none() {
        assert_eq!(parse("write:7"), Some(Fault::Die { at: Count::Write, count: 7 }));
        assert_eq!(parse("panic:chain-1:2"), Some(Fault::Panic { part: "chain-1".into(), attempts: 2 }));
        assert_eq!(parse("slow:control:5"), Some(Fault::Slow { part: "control".into(), milliseconds: 5 }));
        for bad in ["", "write", "write:x", "hang:warmup", "explode:1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
