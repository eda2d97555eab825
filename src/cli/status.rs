//! `status`: how a sweep stands, from any terminal that sees its root.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::CellAlignment::{Left, Right};

use super::args::StatusArgs;
use super::table::{name, note, seconds, table};
use super::{Quit, start_log};
use crate::sweep::{SlotStatus, Status, status_path};

/// Time between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(2);
/// A running sweep writes every second; one that has not for so long is stopped or gone.
const SILENT: f64 = 15.0;
/// A sweep that was silent for so long is gone, and no longer watched.
const GONE: f64 = 60.0;
/// Idle slots and busy ones are listed up to so many lines.
const LINES: usize = 40;

/// Prints the status of one sweep, again and again with `--watch`.
pub fn run(args: &StatusArgs) -> Result<u8, Quit> {
    start_log(&args.common);
    let root = args.common.root.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = match &args.experiment {
        Some(name) => root.join(status_path(name).map_err(|e| Quit::Usage(e.to_string()))?),
        None => newest(&root).ok_or_else(|| nothing(&root.join("results")))?,
    };
    loop {
        let text = std::fs::read_to_string(&path).map_err(|_| nothing(&path))?;
        let status = read(&text)
            .map_err(|e| Quit::Environment(format!("{}: {e}; is it of this version?", path.display())))?;
        if args.common.json {
            say!("{}", text.trim_end());
        } else {
            if args.watch && std::io::stdout().is_terminal() {
                // Clears the screen and goes to its top.
                say!("\u{1b}[2J\u{1b}[H");
            }
            print(&status);
        }
        if !args.watch || status.state != "running" {
            return Ok(0);
        }
        if now() - status.updated > GONE {
            return Ok(3);
        }
        std::thread::sleep(EVERY);
    }
}

fn nothing(path: &Path) -> Quit {
    Quit::Usage(format!(
        "{} holds no status of a sweep: name the directory of a sweep with --root; one that is young has none yet",
        path.display()
    ))
}

fn read(text: &str) -> Result<Status, serde_json::Error> {
    serde_json::from_str(text)
}

/// The status file that was written last, of those that are such.
fn newest(root: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(root.join("results")).ok()?.flatten().map(|entry| entry.path());
    files
        .filter(|path| path.to_string_lossy().ends_with(".status.json"))
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| read(&text).is_ok()))
        .max_by_key(|path| path.metadata().and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn print(status: &Status) {
    let age = (now() - status.updated).max(0.0);
    let running = status.state == "running";
    let took = status.updated - status.begun;
    say!(
        "{}: {}, {} on {} (process {})",
        name(&status.experiment),
        name(&status.state),
        seconds(took),
        name(&status.host),
        status.pid
    );
    let left = match (running, status.left) {
        (true, Some(left)) => format!("; about {} left", seconds(left)),
        _ => String::new(),
    };
    say!(
        "units: {} of {} ended; runs: {} of {} on disk, {} failed{left}",
        status.ended,
        status.units,
        status.runs_done,
        status.runs,
        status.runs_failed
    );
    if running && age > SILENT {
        say!(
            "{}",
            note(&format!(
                "no sign for {}: the job is gone, or its disk is slow; the same command goes on from what is saved",
                seconds(age)
            ))
        );
    }
    if !running {
        return;
    }
    let mut shown = table(&[
        ("rank", Right),
        ("slot", Right),
        ("works on", Left),
        ("since", Right),
        ("of about", Right),
        ("saved", Right),
        ("busy", Right),
    ]);
    for slot in status.slots.iter().take(LINES) {
        shown.add_row(row(slot));
    }
    say!("{shown}");
    if status.slots.len() > LINES {
        say!("  and {} slots more (--json has them all)", status.slots.len() - LINES);
    }
}

fn row(slot: &SlotStatus) -> [String; 7] {
    let or_dash = |s: Option<f64>| s.map_or_else(|| "–".to_owned(), seconds);
    let unit = match (&slot.unit, slot.lost) {
        (_, true) => "does not answer".to_owned(),
        (Some(unit), _) => name(unit),
        (None, _) => "–".to_owned(),
    };
    let since = slot.unit.as_ref().map(|_| slot.since);
    let saved = slot.saved.map_or_else(|| "–".to_owned(), |s| format!("{} ago", seconds(s)));
    [
        slot.rank.to_string(),
        slot.index.to_string(),
        unit,
        or_dash(since),
        or_dash(slot.expected),
        saved,
        format!("{:.0} %", 100.0 * slot.utilisation),
    ]
}
