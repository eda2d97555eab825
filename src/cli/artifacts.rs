//! `artifacts`: looking after the store. Listing and bundles have files of their own.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::args::{ArtifactsArgs, ArtifactsCommand};
use super::{Quit, bundle, listing, start_log};
use crate::store::{Freed, Store, VerifyReport, size};
use crate::sweep::INTERNAL;

/// Lists, verifies or removes what the store holds.
pub fn run(args: ArtifactsArgs) -> Result<u8, Quit> {
    let (ArtifactsCommand::Ls { common, .. }
    | ArtifactsCommand::Show { common, .. }
    | ArtifactsCommand::Tb { common, .. }
    | ArtifactsCommand::Export { common, .. }
    | ArtifactsCommand::Import { common, .. }
    | ArtifactsCommand::Verify { common, .. }
    | ArtifactsCommand::Gc { common, .. }
    | ArtifactsCommand::Rm { common, .. }) = &args.command;
    start_log(common);
    let json = common.json;
    let root = common.root.clone().unwrap_or_else(|| PathBuf::from("."));
    // An import may begin a store.
    if !matches!(args.command, ArtifactsCommand::Import { .. }) && !root.join("store").is_dir() {
        let root = root.display();
        return Err(Quit::Usage(format!("{root} holds no store: name the directory of a sweep with --root")));
    }
    match args.command {
        ArtifactsCommand::Ls { experiment, .. } => {
            listing::list(&Store::open(&root)?, experiment.as_deref(), json)
        }
        ArtifactsCommand::Show { what, .. } => listing::show(&Store::open(&root)?, &what, json),
        ArtifactsCommand::Tb { experiment, .. } => bundle::boards(&Store::open(&root)?, &experiment, json),
        ArtifactsCommand::Export { experiment, out, .. } => {
            bundle::export(&Store::open(&root)?, &experiment, &out, json)
        }
        ArtifactsCommand::Import { file, .. } => bundle::import(&root, &file, json),
        ArtifactsCommand::Verify { repair: false, .. } => verify(&Store::open(&root)?, json),
        ArtifactsCommand::Verify { repair: true, .. } => repair(&Store::open_exclusive(&root)?, json),
        ArtifactsCommand::Gc { ttl_days, dry_run, .. } => {
            let ttl = Duration::from_secs(u64::from(ttl_days) * 86400);
            collect(&Store::open(&root)?, ttl, dry_run, json)
        }
        ArtifactsCommand::Rm { what, .. } => remove(&Store::open_exclusive(&root)?, &what, json),
    }
}

fn verify(store: &Store, as_json: bool) -> Result<u8, Quit> {
    let report = store.verify()?;
    if as_json {
        say!("{}", json!(report));
    } else {
        print_found(&report);
        for unit in &report.pending {
            say!("to be made again: {unit}");
        }
        let orphans = match report.orphans.len() {
            0 => "no orphans".to_owned(),
            n => format!("{n} that nothing names (`artifacts gc` removes them in time)"),
        };
        say!("{} objects checked, {orphans}", report.checked);
        if !report.is_sound() {
            say!(
                "run the sweep again: it makes what is damaged or missing anew, and nothing else \
                 (`{}` first takes back what copies in runs/ still have)",
                command(store, "verify --repair")
            );
        }
    }
    Ok(if report.is_sound() { 0 } else { 3 })
}

fn print_found(report: &VerifyReport) {
    for hash in &report.damaged {
        say!("damaged: object {hash} (now in store/quarantine)");
    }
    for (unit, name) in &report.missing {
        say!("missing: {name} of {unit}");
    }
    for bad in &report.bad_refs {
        let place = if bad.quarantined { " (now in store/quarantine)" } else { "" };
        say!("unreadable record: {}: {}{place}", bad.urn, bad.why);
    }
    for path in &report.foreign {
        say!("not of the store, left alone: {}", path.display());
    }
}

fn repair(store: &Store, as_json: bool) -> Result<u8, Quit> {
    let report = store.repair(&INTERNAL)?;
    let code = if report.is_sound() { 0 } else { 3 };
    if as_json {
        say!("{}", json!(report));
        return Ok(code);
    }
    print_found(&report.found);
    for hash in &report.healed {
        say!("healed: object {hash}, from its copy in runs/");
    }
    for unit in &report.marked {
        say!("marked to be made again: {unit}");
    }
    for dir in &report.laid_out {
        say!("laid out again: {}", dir.display());
    }
    if report.temporaries > 0 {
        say!("removed: {} half-written files of killed processes", report.temporaries);
    }
    let again = report.marked.len() + report.found.bad_refs.len();
    say!(
        "{} objects checked, {} healed, {again} units to make again",
        report.found.checked,
        report.healed.len()
    );
    if code != 0 {
        say!("records of another version are left: use the version that wrote them, or `artifacts rm` there");
    } else if again > 0 {
        say!("run the sweep again: it makes them anew, and nothing else");
    } else {
        say!("the store is sound");
    }
    Ok(code)
}

fn collect(store: &Store, ttl: Duration, dry_run: bool, as_json: bool) -> Result<u8, Quit> {
    let report = store.collect(ttl, dry_run, SystemTime::now())?;
    if as_json {
        say!("{}", json!(report));
        return Ok(0);
    }
    let would = if dry_run { "would remove" } else { "removed" };
    for (what, freed) in [
        ("objects that nothing names", report.objects),
        ("damaged files put aside", report.quarantined),
        ("half-written files", report.temporaries),
        ("files of checkpoints", report.checkpoints),
    ] {
        if freed.files > 0 {
            say!("{would}: {} {what} ({})", freed.files, size(freed.bytes));
        }
    }
    for other in &report.beside {
        say!("in use by {other}: what it may need is kept");
    }
    let Freed { files, bytes } = report.kept;
    if files > 0 {
        say!("kept as too young or in use: {files} more ({})", size(bytes));
    }
    let freed = if dry_run { "would be freed" } else { "freed" };
    say!("{} {freed}", size(report.bytes));
    Ok(0)
}

/// `lambda-hat-mpi artifacts … --root …`, to be copied.
fn command(store: &Store, what: &str) -> String {
    format!("lambda-hat-mpi artifacts {what} --root {}", store.root().display())
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
