//! Galleries: chosen figures of the newest runs, copied out under clear names, with a Markdown page.
//!
//! Pictures are drawn anew from traces; what lies in `diagnostics/` may be old or cut short.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::figures::{self, RUN_FIGURES, TARGET_FIGURES};
use super::{FoundRun, FoundTarget, RunsRoot, Trouble};
use crate::plot::{self, Figure, FigureName};
use crate::store::{StoreError, write_out};

/// Characters of a part of a file's name that comes from a label.
const LONGEST_SLUG: usize = 60;

/// A figure in a format: `trace.png`, `llc_comparison.svg`; a name without an ending means PNG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plot {
    /// Which figure.
    pub name: FigureName,
    /// `png` or `svg`
    pub ending: &'static str,
}

impl Plot {
    /// A figure as PNG.
    pub const fn png(name: FigureName) -> Self {
        Self { name, ending: "png" }
    }

    /// Whether it shows one run (and else a target with its runs).
    pub fn is_of_run(self) -> bool {
        RUN_FIGURES.contains(&self.name)
    }

    fn bytes(self, figure: &Figure) -> Result<Vec<u8>, String> {
        match self.ending {
            "svg" => Ok(figure.svg().as_bytes().to_vec()),
            _ => figure.png().map_err(|e| e.to_string()),
        }
    }
}

impl FromStr for Plot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (stem, ending) = match text.rsplit_once('.') {
            None => (text, "png"),
            Some((stem, "png")) => (stem, "png"),
            Some((stem, "svg")) => (stem, "svg"),
            Some(_) => return Err("a figure ends in .png or .svg".into()),
        };
        let names = || RUN_FIGURES.iter().chain(&TARGET_FIGURES).copied();
        names().find(|name| name.stem() == stem).map(|name| Self { name, ending }).ok_or_else(|| {
            let known: Vec<&str> = names().map(FigureName::stem).collect();
            format!("there is no such figure; there is {}", known.join(", "))
        })
    }
}

/// A picture of a gallery.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Name of its file in the gallery's directory.
    pub file: String,
    /// Stem of the figure's name.
    pub plot: &'static str,
    /// Label of the target.
    pub target: String,
    /// Id of the target.
    pub target_id: String,
    /// The sampler, where the figure shows one run.
    pub sampler: Option<String>,
    /// Id of that run.
    pub run_id: Option<String>,
    /// What there is to see, for those who cannot.
    pub alt: String,
    /// One line below the picture.
    pub caption: String,
}

/// What became of a gallery.
#[derive(Clone, Debug, Default)]
pub struct Gallery {
    /// Its pictures, by target and then sampler.
    pub entries: Vec<Entry>,
    /// What was wrong.
    pub troubles: Vec<Trouble>,
}

/// One picture to be drawn.
struct Wanted<'a> {
    entry: Entry,
    plot: Plot,
    subject: Subject<'a>,
}

enum Subject<'a> {
    Run(&'a FoundRun),
    Target(&'a FoundTarget, Vec<&'a FoundRun>),
}

/// Draws `plots` of `runs` and of their targets into `outdir`, on `threads` threads. A figure that a run
/// has no data for is left out, and so is what cannot be read, which is told.
///
/// # Errors
/// [`StoreError`], where `outdir` cannot be written to.
pub fn draw(
    found: &RunsRoot,
    runs: &[&FoundRun],
    plots: &[Plot],
    outdir: &Path,
    threads: usize,
) -> Result<Gallery, StoreError> {
    let mut troubles = Vec::new();
    let wanted = wanted(found, runs, plots, &mut troubles);
    carry_out(wanted, troubles, outdir, threads)
}

/// Draws one figure of one run into `outdir`.
///
/// # Errors
/// As [`draw`].
pub fn draw_one(run: &FoundRun, plot: Plot, outdir: &Path) -> Result<Gallery, StoreError> {
    carry_out(vec![Wanted::of_run(run, plot, &mut Names::default())], Vec::new(), outdir, 1)
}

fn carry_out(
    wanted: Vec<Wanted>,
    troubles: Vec<Trouble>,
    outdir: &Path,
    threads: usize,
) -> Result<Gallery, StoreError> {
    let mut gallery = Gallery { entries: Vec::new(), troubles };
    let mut made: Vec<Made> = wanted.iter().map(|_| Ok(None)).collect();
    let next = AtomicUsize::new(0);
    let slots = Mutex::new(&mut made);
    let work = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(wanted) = wanted.get(index) else { break };
        let made = wanted.draw();
        slots.lock().unwrap_or_else(PoisonError::into_inner)[index] = made;
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(wanted.len()) {
            // Without more threads this one does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    for (wanted, made) in wanted.into_iter().zip(made) {
        match made {
            Ok(Some((bytes, troubles))) => {
                write_out(&outdir.join(&wanted.entry.file), &bytes)?;
                gallery.troubles.extend(troubles);
                gallery.entries.push(wanted.entry);
            }
            Ok(None) => {}
            Err(troubles) => gallery.troubles.extend(troubles),
        }
    }
    gallery.troubles.sort_by(|a, b| (&a.dir, &a.file).cmp(&(&b.dir, &b.file)));
    gallery.troubles.dedup();
    Ok(gallery)
}

/// The bytes of a picture with what was wrong on the way, or nothing where there is no data for it.
type Made = Result<Option<(Vec<u8>, Vec<Trouble>)>, Vec<Trouble>>;

impl<'a> Wanted<'a> {
    fn of_run(run: &'a FoundRun, plot: Plot, names: &mut Names) -> Self {
        let (label, sampler) = (&run.manifest.target, &run.manifest.sampler);
        let run_id = &run.manifest.run_id;
        let entry = Entry {
            file: names.unique(&[label, sampler, plot.name.stem()], run_id, plot.ending),
            plot: plot.name.stem(),
            target: label.clone(),
            target_id: run.manifest.target_id.clone(),
            sampler: Some(sampler.clone()),
            run_id: Some(run_id.clone()),
            alt: format!("{} of {sampler} on {label}", plot.name.what()),
            caption: caption(run),
        };
        Wanted { entry, plot, subject: Subject::Run(run) }
    }

    fn draw(&self) -> Made {
        let names = [self.plot.name];
        let (dir, (figures, mut troubles)) = match &self.subject {
            Subject::Run(run) => {
                (&run.dir, (figures::run_figures(run, &names).map_err(|t| vec![t])?, Vec::new()))
            }
            Subject::Target(target, runs) => (&target.dir, figures::target_figures(target, runs, &names)),
        };
        let Some(figure) = figures.first() else {
            return if troubles.is_empty() { Ok(None) } else { Err(troubles) };
        };
        match self.plot.bytes(figure) {
            Ok(bytes) => Ok(Some((bytes, troubles))),
            Err(what) => {
                let file = format!("{}.{}", self.plot.name.stem(), self.plot.ending);
                troubles.push(Trouble::new(dir, &file, format!("cannot be made ({what})")));
                Err(troubles)
            }
        }
    }
}

/// Every picture with a name of its own, by target and then by run.
fn wanted<'a>(
    found: &'a RunsRoot,
    runs: &[&'a FoundRun],
    plots: &[Plot],
    troubles: &mut Vec<Trouble>,
) -> Vec<Wanted<'a>> {
    let mut targets: Vec<&str> = Vec::new();
    for run in runs {
        troubles.extend(found.troubles_in(&run.dir).cloned());
        if !targets.contains(&run.manifest.target_id.as_str()) {
            targets.push(&run.manifest.target_id);
        }
    }
    let mut names = Names::default();
    let mut wanted = Vec::new();
    for target_id in targets {
        let here: Vec<&FoundRun> =
            runs.iter().copied().filter(|r| r.manifest.target_id == *target_id).collect();
        let label = here.first().map(|run| run.manifest.target.clone()).unwrap_or_default();
        for &plot in plots.iter().filter(|plot| !plot.is_of_run()) {
            let Some(target) = found.target(target_id) else {
                // Its meta.json is missing or damaged, which is among the tree's troubles.
                let dir = here.first().and_then(|run| run.dir.parent());
                troubles.extend(dir.into_iter().flat_map(|dir| found.troubles_in(dir)).cloned());
                continue;
            };
            let alt = format!("{} on {label}", plot.name.what());
            let entry = Entry {
                file: names.unique(&[&label, plot.name.stem()], target_id, plot.ending),
                plot: plot.name.stem(),
                target: label.clone(),
                target_id: target_id.to_owned(),
                sampler: None,
                run_id: None,
                caption: format!("{label}: {}", explained(plot.name)),
                alt,
            };
            wanted.push(Wanted { entry, plot, subject: Subject::Target(target, here.clone()) });
        }
        for run in &here {
            for &plot in plots.iter().filter(|plot| plot.is_of_run()) {
                wanted.push(Wanted::of_run(run, plot, &mut names));
            }
        }
    }
    wanted
}

/// A line below a target's figure.
fn explained(name: FigureName) -> &'static str {
    match name {
        FigureName::Comparison => "λ̂ of each sampler with its 95 % interval; hollow markers: verdict check",
        FigureName::Convergence => "mean llc so far against work and time; furthest left is cheapest",
        FigureName::Wnv => "MCSE² × cost of each sampler; lower is better",
        FigureName::LossCurve => "loss during training",
        FigureName::PredTrain => "predictions against the teacher's on training rows",
        FigureName::PredTest => "predictions against the teacher's on fresh rows",
        other => other.what(),
    }
}

/// `hmc on small/small/_null: λ̂ = 4.64 ± 0.07, R-hat 1.005, ok`
pub fn caption(run: &FoundRun) -> String {
    let mut text = format!("{} on {}: ", run.manifest.sampler, run.manifest.target);
    let Some(analysis) = &run.analysis else { return text + "its analysis.json cannot be read" };
    let said = match (analysis.llc_mean, analysis.llc_mcse) {
        (Some(mean), Some(mcse)) => write!(text, "λ̂ = {}", plot::with_error(mean, mcse)),
        (Some(mean), None) => write!(text, "λ̂ = {mean:.4}, error unknown"),
        _ => write!(text, "no estimate"),
    };
    let r_hat = match analysis.r_hat {
        Some(r_hat) => write!(text, ", R-hat {r_hat:.3}"),
        None => write!(text, ", R-hat undefined"),
    };
    // Text takes what it is given.
    let _ = said.and(r_hat).and(write!(text, ", {}", analysis.verdict));
    text
}

/// Names of files that are still free. Case does not tell them apart: it does not on some disks.
#[derive(Default)]
struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    /// The parts joined by `_`, and the beginning of `id` behind them where that is taken.
    fn unique(&mut self, parts: &[&str], id: &str, ending: &str) -> String {
        let stem = parts.iter().map(|part| slug(part)).collect::<Vec<_>>().join("_");
        let ids = [0, 8, 64].map(|digits| id.chars().take(digits).collect::<String>());
        let numbered = (2..).map(|n| format!("{id}_{n}"));
        for more in ids.into_iter().chain(numbered) {
            let name = match more.as_str() {
                "" => format!("{stem}.{ending}"),
                more => format!("{stem}_{}.{ending}", slug(more)),
            };
            if self.taken.insert(name.to_lowercase()) {
                return name;
            }
        }
        // The numbers do not end.
        stem
    }
}

/// Text as part of a file's name: ASCII letters, digits, `.`, `_` and `-`; the rest as one `-`.
pub fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() >= LONGEST_SLUG {
            break;
        }
        if c.is_ascii_alphanumeric() || c == '_' || (c == '.' && !out.is_empty()) {
            out.push(c);
        } else if !out.ends_with('-') && !out.is_empty() {
            out.push('-');
        }
    }
    let cut = out.trim_end_matches(['-', '.']).len();
    out.truncate(cut);
    if out.is_empty() { "unnamed".into() } else { out }
}

/// A Markdown page of a gallery, for the directory `from`; the pictures lie in `outdir`. A heading a target.
pub fn page(gallery: &Gallery, outdir: &Path, from: &Path) -> String {
    let folder = relative(outdir, from);
    let mut text = String::new();
    let mut before: Option<&str> = None;
    for entry in &gallery.entries {
        if before != Some(&entry.target_id) {
            let gap = if before.is_some() { "\n" } else { "" };
            text.push_str(&format!("{gap}### {}\n", escaped(&entry.target)));
            before = Some(&entry.target_id);
        }
        let link = folder.join(&entry.file);
        let (alt, caption) = (escaped(&entry.alt), escaped(&entry.caption));
        text.push_str(&format!("\n![{alt}]({})\n\n*{caption}*\n", encoded(&link)));
    }
    if gallery.entries.is_empty() {
        text.push_str("There are no figures.\n");
    }
    text
}

/// The way from the directory `from` to `to`; both are made absolute first.
fn relative(to: &Path, from: &Path) -> PathBuf {
    let whole = |path: &Path| {
        // Links on the way decide what `..` means, and a directory that is not there has none.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let there = path.ancestors().find_map(|a| Some((a.canonicalize().ok()?, path.strip_prefix(a).ok()?)));
        there.map_or_else(|| path.clone(), |(real, rest)| real.join(rest))
    };
    let (to, from) = (whole(to), whole(from));
    let shared = to.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

/// A path as a link has it: what is not a letter, digit, or one of `-._~/` by its bytes in hexadecimal.
fn encoded(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(byte.into())
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Text as Markdown that says just this: what has a meaning there is escaped, and it stays on one line.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&' | '~' | '$' | '!' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_plain_and_differ() {
        for (text, expected) in [
            ("small/small/_null", "small-small-_null"),
            ("../../etc/passwd", "etc-passwd"),
            ("λ = 3/2", "3-2"),
            ("", "unnamed"),
            (".hidden", "hidden"),
            ("dln [3,1,3]", "dln-3-1-3"),
        ] {
            assert_eq!(slug(text), expected);
        }
        assert!(slug(&"x".repeat(300)).len() <= LONGEST_SLUG);
        let mut names = Names::default();
        let id = "0123456789abcdef";
        let made =
            ["a/b", "a-b", "A-B", "a b"].map(|label| names.unique(&[label, "hmc", "trace"], id, "png"));
        assert_eq!(
            made,
            [
                "a-b_hmc_trace.png",
                "a-b_hmc_trace_01234567.png",
                "A-B_hmc_trace_0123456789abcdef.png",
                "a-b_hmc_trace_0123456789abcdef_2.png"
            ]
        );
    }

    #[test]
    fn links_lead_from_the_page_to_the_pictures() {
        for (to, from, expected) in [
            ("/no/a/img", "/no/a", "img"),
            ("/no/a/img", "/no/b/c", "../../a/img"),
            ("/no/a", "/no/a", ""),
            ("/no/a b/(x)#1%", "/no", "a%20b/%28x%29%231%25"),
            ("/no/λ", "/no", "%CE%BB"),
        ] {
            assert_eq!(encoded(&relative(Path::new(to), Path::new(from))), expected, "{to} from {from}");
        }
    }

    #[test]
    fn labels_stay_text_in_markdown() {
        assert_eq!(escaped("small/_null *x* [a](b)"), "small/\\_null \\*x\\* \\[a\\](b)");
        assert_eq!(escaped("<script>\n# x"), "\\<script\\> \\# x");
    }

    #[test]
    fn plots_are_named_with_or_without_an_ending() {
        assert_eq!("trace".parse(), Ok(Plot::png(FigureName::Trace)));
        assert_eq!("wnv.svg".parse(), Ok(Plot { name: FigureName::Wnv, ending: "svg" }));
        for wrong in ["trace.pdf", "traces", "", "contour"] {
            assert!(wrong.parse::<Plot>().is_err(), "{wrong}");
        }
    }
}
