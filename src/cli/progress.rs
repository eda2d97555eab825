//! What a user sees while a sweep runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::{name, number, printable, seconds, with_error};
use crate::sweep::{Observer, Plan, Progress, RankPlace, RunState};

/// One line a finished target or run, and on a terminal a bar with the time left; on standard
/// error, so that tables can be piped.
pub struct Display {
    bar: ProgressBar,
    quiet: bool,
    runs_done: usize,
    targets_done: usize,
    /// Runs join on the way: how many there will be nobody knows.
    grows: bool,
}

impl Display {
    /// A display that says nothing when `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { bar: ProgressBar::hidden(), quiet, runs_done: 0, targets_done: 0, grows: false }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, line: &str) {
        if self.quiet {
            return;
        }
        let line = printable(line);
        if self.bar.is_hidden() {
            complain!("{line}");
        } else {
            self.bar.println(&line);
        }
    }

    fn count_target(&mut self) {
        if self.targets_done == 0 {
            self.say("building");
        }
        self.targets_done += 1;
    }

    fn place(count: usize, total: usize) -> String {
        let width = total.to_string().len();
        format!("[{count:>width$}/{total}]")
    }

    fn run_place(&self, total: usize) -> String {
        if self.grows { format!("[{:>3}]", self.runs_done) } else { Self::place(self.runs_done, total) }
    }

    fn target_name(plan: &Plan, index: usize) -> String {
        format!("tgt_{}", plan.targets[index].id.short(12))
    }
}

/// The first names, and how many more there are.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|whose| name(whose)).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Ranks that the start of a sweep names one by one.
const RANKS_SHOWN: usize = 16;

impl Observer for Display {
    fn progress(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Planned { plan, units, ranks, grows } => {
                let (targets, runs) = (plan.targets.len(), plan.runs.len());
                self.grows = *grows;
                if *units == 0 && !grows {
                    self.say(&format!(
                        "{}: {targets} targets, {runs} runs, all done before: 0 units executed",
                        plan.name
                    ));
                    return;
                }
                if *grows {
                    let built = match units {
                        0 => "built before".to_owned(),
                        n => format!("{n} of them to build"),
                    };
                    self.say(&format!(
                        "{}: {targets} targets, {built}; runs join as the search wants them",
                        plan.name
                    ));
                } else {
                    self.say(&format!("{}: {targets} targets, {runs} runs, {units} units to do", plan.name));
                }
                if self.quiet {
                    return;
                }
                let told = |place: &&RankPlace| ranks.len() > 1 || place.has_device();
                for place in ranks.iter().take(RANKS_SHOWN).filter(told) {
                    self.say(&format!("  {place}"));
                }
                let on_device = plan.runs.iter().filter(|run| run.device.is_some()).count();
                if on_device > 0 {
                    self.say(&format!(
                        "  chains of {on_device} of {runs} runs on the device; the rest on the CPU"
                    ));
                }
                for (why, whose) in &plan.stays {
                    self.say(&format!("  on the CPU: {}: {why}", few(whose)));
                }
                if ranks.len() > RANKS_SHOWN {
                    let more = ranks.len() - RANKS_SHOWN;
                    self.say(&format!("  and {more} ranks more: a run's timing.json names those it ran on"));
                }
                self.bar.set_length(*units as u64);
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template(match grows {
                    true => "{spinner} {pos} units done, {elapsed} gone",
                    false => "{bar:30} {pos}/{len} units, {elapsed} gone, {eta} left",
                });
                self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                self.bar.enable_steady_tick(Duration::from_millis(200));
            }
            Progress::Unit { done, total } => {
                self.bar.set_length(*total as u64);
                self.bar.set_position(*done as u64);
            }
            Progress::Target { plan, index, seconds: s } => {
                self.count_target();
                let place = Self::place(self.targets_done, plan.targets.len());
                let (target, label) = (Self::target_name(plan, *index), name(&plan.targets[*index].label));
                self.say(&format!("{place} target {target} {label} built in {}", seconds(*s)));
            }
            Progress::TargetFailed { plan, index, failure } => {
                self.count_target();
                let place = Self::place(self.targets_done, plan.targets.len());
                self.say(&format!(
                    "{place} target {} FAILED: {}",
                    Self::target_name(plan, *index),
                    failure.reason
                ));
            }
            Progress::Run { plan, index, report } => {
                if self.runs_done == 0 {
                    self.say("sampling");
                }
                self.runs_done += 1;
                let run = &plan.runs[*index];
                let place = self.run_place(plan.runs.len());
                let (sampler, name) = (plan.sampler_name(*index), Self::target_name(plan, run.target));
                match &report.state {
                    RunState::Done(a) => {
                        let llc = with_error(a.llc_mean.unwrap_or(f64::NAN), a.llc_mcse.unwrap_or(f64::NAN));
                        let r_hat = a.r_hat.map_or("–".to_owned(), |r| format!("{r:.2}"));
                        let fge = number(a.fge_warmup + a.fge_sampling);
                        let time = seconds(report.seconds);
                        self.say(&format!(
                            "{place} {sampler} {name} llc {llc} R-hat {r_hat} {} ({fge} FGE, {time})",
                            a.verdict
                        ));
                    }
                    RunState::Cut(why) => self.say(&format!("{place} {sampler} {name} {why}")),
                    RunState::Failed(failure) => {
                        self.say(&format!("{place} {sampler} {name} FAILED: {}", failure.reason))
                    }
                }
            }
        }
    }
}
