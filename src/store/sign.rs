//! Signs of life: what the holder of a lock writes about itself, and keeps up to date.
//!
//! Everyone who has a root open keeps an entry `store/locks/root-<host>-<pid>-<n>.lock` and writes
//! the time into it every [`INTERVAL`]. Messages name the holder and its last sign of life. Where the
//! file system has no locks, an entry is all there is: it counts until its process is known to be
//! gone (same host), or until it has been silent for [`SILENCE`].

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::disk;

/// Time between two signs of life.
const INTERVAL: Duration = Duration::from_secs(5);
/// Seconds of silence after which a holder counts as gone where nothing better can be known. Some
/// parallel file systems show a change to other nodes only after a minute.
pub(super) const SILENCE: u64 = 120;

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a lock's file says of its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sign {
    /// Process and host, where the file could be read.
    pub(super) holder: Option<(u32, String)>,
    /// Does it hold the root alone?
    pub(super) alone: bool,
    /// When it took the lock, in seconds since 1970.
    pub(super) since: Option<u64>,
    /// When it was last heard of.
    pub(super) beat: Option<u64>,
    /// Of a unit's lock: the holder's entry for the root, whose signs of life count.
    pub(super) entry: Option<String>,
}

impl Sign {
    /// This process's, now.
    pub(super) fn own(alone: bool, now: SystemTime) -> Self {
        let now = seconds(now);
        let holder = Some((std::process::id(), disk::host()));
        Self { holder, alone, since: Some(now), beat: Some(now), entry: None }
    }

    /// As text of a length that does not change while a holder lives, so that it is overwritten in
    /// one write.
    fn text(&self) -> String {
        let (pid, host) = self.holder.clone().unwrap_or_default();
        let mut text = format!("process {pid} on {host}\n");
        if let Some(entry) = &self.entry {
            return text + &format!("entry {entry}\n");
        }
        let mode = if self.alone { "alone" } else { "shared" };
        text += &format!("mode {mode}\n");
        for (name, value) in [("since", self.since), ("beat", self.beat)] {
            text += &format!("{name} {:020}\n", value.unwrap_or(0));
        }
        text
    }

    /// Writes it into its file.
    pub(super) fn write(&self, file: &File) -> std::io::Result<()> {
        disk::sign(file, self.text().as_bytes())
    }

    /// What the file at `path` says. A file that is not signed yet was heard of when it was made.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        let about = fs::metadata(path)?;
        let mut sign = Self::parse(&String::from_utf8_lossy(&fs::read(path)?));
        if sign.beat.is_none() && sign.entry.is_none() {
            sign.beat = about.modified().ok().map(seconds);
        }
        Ok(sign)
    }

    fn parse(text: &str) -> Self {
        let mut sign = Self::default();
        for line in text.lines() {
            let Some((word, rest)) = line.split_once(' ') else { continue };
            match word {
                "process" => {
                    let parts = rest.split_once(" on ");
                    sign.holder = parts.and_then(|(pid, host)| Some((pid.parse().ok()?, host.to_owned())));
                }
                "mode" => sign.alone = rest == "alone",
                "since" => sign.since = rest.parse().ok(),
                "beat" => sign.beat = rest.parse().ok(),
                // It becomes part of a path.
                "entry" => {
                    sign.entry = super::check_letters(rest, super::COMPONENT).ok().map(|()| rest.into())
                }
                _ => {}
            }
        }
        sign
    }

    /// Is its holder certainly gone, or silent for so long that it counts as gone?
    pub(super) fn is_stale(&self, now: SystemTime, runs: impl Fn(u32) -> bool) -> bool {
        let dead = self.holder.as_ref().is_some_and(|(pid, host)| *host == disk::host() && !runs(*pid));
        dead || self.silence(now).is_some_and(|silence| silence > SILENCE)
    }

    /// Seconds since the holder was heard of.
    fn silence(&self, now: SystemTime) -> Option<u64> {
        self.beat.map(|beat| seconds(now).saturating_sub(beat))
    }

    /// For messages: `process 12 on node7 (last sign of life 3 s ago)`.
    pub(super) fn describe(&self, now: SystemTime) -> String {
        let holder = match &self.holder {
            Some((pid, host)) => format!("process {pid} on {host}"),
            None => "another process".into(),
        };
        match self.silence(now) {
            Some(silence) => format!("{holder} (last sign of life {silence} s ago)"),
            None => holder,
        }
    }
}

/// Keeps a sign up to date until dropped.
#[derive(Debug)]
pub(super) struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    /// Starts it. Where no thread can be had, there is no sign of life: locks hold without it, and
    /// where there are none, others are warned before they take over.
    pub(super) fn start(sign: Sign, file: Arc<File>, path: &Path) -> Self {
        let (stop, stopped) = channel();
        let path = path.to_path_buf();
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if !beat(&sign, &file, &path, SystemTime::now()) {
                    log::error!(
                        "{}: another job has taken over, because this one stood still for too long; end one of \
                         the two (they write the same results, but do the work twice)",
                        path.display()
                    );
                    break;
                }
            }
        });
        if let Err(e) = &thread {
            log::warn!("no thread for signs of life ({e}): this job's locks may look abandoned");
        }
        Self { stop: Some(stop), thread: thread.ok() }
    }
}

/// One sign of life; `false` if the file is not this holder's any more. A disk that refuses it (full, or
/// gone for a while) gets the next one.
pub(super) fn beat(sign: &Sign, file: &File, path: &Path, now: SystemTime) -> bool {
    let sign = Sign { beat: Some(seconds(now)), ..sign.clone() };
    if let Err(e) = sign.write(file) {
        log::debug!("{}: no sign of life: {e}", path.display());
    }
    disk::is_at(file, path) || path.try_exists().is_err()
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn signs_come_back_and_beats_replace_them_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root-x-1-0.lock");
        let file = disk::create_new(&path, 0o644).unwrap();
        let sign = Sign::own(true, at(1_000_000));
        sign.write(&file).unwrap();
        assert_eq!(Sign::read(&path).unwrap(), sign);
        assert!(beat(&sign, &file, &path, at(1_000_060)));
        let read = Sign::read(&path).unwrap();
        assert_eq!(read, Sign { beat: Some(1_000_060), ..sign.clone() });
        let text = read.describe(at(1_000_063));
        let us = format!("process {} on {}", std::process::id(), disk::host());
        assert_eq!(text, format!("{us} (last sign of life 3 s ago)"));
        let unit =
            Sign { alone: false, since: None, beat: None, entry: Some("root-x-1-0.lock".into()), ..read };
        assert_eq!(Sign::parse(&unit.text()), unit);
        // What the version before this wrote, and what is no sign.
        assert_eq!(Sign::parse("process 12 on node7").describe(at(5)), "process 12 on node7");
        assert_eq!(Sign::parse("\0\0entry ../../x\nprocess x on\n"), Sign::default());
        assert_eq!(Sign::parse("entry ../x").entry, None);
    }

    #[test]
    fn a_holder_is_gone_when_its_process_is_or_after_two_minutes_of_silence() {
        let here = Sign::own(false, at(1000));
        let there = Sign { holder: Some((1, "elsewhere".into())), ..here.clone() };
        let unsigned = Sign { holder: None, ..here.clone() };
        for (sign, now, runs, stale) in [
            (&here, 1000, true, false),
            (&here, 1000, false, true),
            (&there, 1000, false, false),
            (&there, 1000 + SILENCE, false, false),
            (&there, 1001 + SILENCE, true, true),
            (&here, 1001 + SILENCE, true, true),
            // A clock that is behind.
            (&there, 10, true, false),
            (&unsigned, 1000, false, false),
            (&unsigned, 1001 + SILENCE, false, true),
        ] {
            assert_eq!(sign.is_stale(at(now), |_| runs), stale, "{sign:?} at {now}");
        }
    }
}
