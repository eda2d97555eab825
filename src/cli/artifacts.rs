//! `artifacts`: looking after the store.

use std::path::PathBuf;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::json;

use super::args::{ArtifactsArgs, ArtifactsCommand};
use super::table::{note, printable, table, unbroken};
use super::{Quit, start_log};
use crate::store::{Status, Store};

/// Lists, verifies or removes what the store holds.
pub fn run(args: ArtifactsArgs) -> Result<u8, Quit> {
    let (ArtifactsCommand::Ls(common)
    | ArtifactsCommand::Verify(common)
    | ArtifactsCommand::Rm { common, .. }) = &args.command;
    start_log(common);
    let json = common.json;
    let root = common.root.clone().unwrap_or_else(|| PathBuf::from("."));
    if !root.join("store").is_dir() {
        let root = root.display();
        return Err(Quit::Usage(format!("{root} holds no store: name the directory of a sweep with --root")));
    }
    match args.command {
        ArtifactsCommand::Ls(_) => list(&Store::open(&root)?, json),
        ArtifactsCommand::Verify(_) => verify(&Store::open(&root)?, json),
        ArtifactsCommand::Rm { what, .. } => remove(&Store::open_exclusive(&root)?, &what, json),
    }
}

fn list(store: &Store, as_json: bool) -> Result<u8, Quit> {
    let rows = store.list()?;
    if as_json {
        say!("{}", json!(rows));
        return Ok(0);
    }
    let mut shown =
        table(&[("kind", Left), ("directory", Left), ("status", Left), ("when", Left), ("bytes", Right)]);
    unbroken(&mut shown, 1);
    let mut notes = Vec::new();
    for row in rows {
        let dir = row.dir.map_or_else(|| row.id.short(12), |d| d.display().to_string());
        let short = printable(dir.strip_prefix("runs/targets/").unwrap_or(&dir));
        let status = match row.status {
            Status::Done => "done",
            Status::Failed { reason, .. } => {
                notes.push(format!("{} {short} failed: {reason}", row.kind));
                "failed"
            }
        };
        shown.add_row([row.kind, short, status.to_owned(), to_the_minute(&row.when), row.bytes.to_string()]);
    }
    say!("{shown}");
    for text in notes {
        say!("{}", note(&text));
    }
    Ok(0)
}

/// `2026-01-02T03:04:05Z` as `2026-01-02 03:04`.
fn to_the_minute(when: &str) -> String {
    match (when.get(..10), when.get(11..16)) {
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => printable(when),
    }
}

fn verify(store: &Store, as_json: bool) -> Result<u8, Quit> {
    let report = store.verify()?;
    if as_json {
        say!("{}", json!(report));
    } else {
        for hash in &report.damaged {
            say!("damaged: object {hash} (now in store/quarantine)");
        }
        for (unit, name) in &report.missing {
            say!("missing: {name} of {unit}");
        }
        for bad in &report.bad_refs {
            say!("unreadable record: {}: {}", bad.urn, bad.why);
        }
        say!("{} objects checked, {} orphans", report.checked, report.orphans.len());
        if !report.is_sound() {
            say!("run the sweep again: it makes what is damaged or missing anew, and nothing else");
        }
    }
    Ok(if report.is_sound() { 0 } else { 3 })
}

fn remove(store: &Store, what: &[String], as_json: bool) -> Result<u8, Quit> {
    for name in what {
        let removed = store.remove(name)?;
        if as_json {
            say!("{}", json!(removed));
        } else {
            say!(
                "removed {} ({} objects, {} bytes)",
                removed.units.join(", "),
                removed.objects.len(),
                removed.bytes
            );
        }
    }
    Ok(0)
}
