//! Profile cards: YAML that says what one machine offers, or what a job asks a cluster for.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::error::{ConfigErrors, Fault, Place, Report, nearest};
use super::keys::{EXPERIMENT, LOCAL_CARD, SLURM_CARD};
use super::preset::read_bounded;
use super::section::Section;
use super::table::{Kind, Table, check_map};
use super::tree::{self, Value};

/// Seconds before the time limit at which ranks are told to stop, where neither card nor limit says less.
const LEAD: u64 = 120;
/// Of a short walltime, at most this part is given up to stopping.
const LEAD_PART: u64 = 4;

/// What is to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A GPU for what can run on one, where there is one; else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU for what can run on one; without one, nothing.
    Cuda,
}

/// A device by a name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is none of auto, cpu and cuda")]
pub struct UnknownDevice(String);

impl Device {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Cpu, Self::Cuda];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        Self::ALL
            .into_iter()
            .find(|device| device.name() == text)
            .ok_or_else(|| UnknownDevice(text.to_owned()))
    }
}

/// What one process may use of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCard {
    /// Worker slots; `None`: as many as cores.
    pub workers: Option<usize>,
    /// What is to compute.
    pub device: Device,
}

/// What a job asks a SLURM cluster for. No text in it holds a line end, but for `prologue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlurmCard {
    /// `--partition`.
    pub partition: Option<String>,
    /// `--account`.
    pub account: Option<String>,
    /// `--qos`.
    pub qos: Option<String>,
    /// `--constraint`.
    pub constraint: Option<String>,
    /// `--nodes`, ≥ 1.
    pub nodes: u64,
    /// Ranks a node, ≥ 1.
    pub ntasks_per_node: u64,
    /// Cores a rank, ≥ 1.
    pub cpus_per_task: u64,
    /// Worker slots a rank, ≥ 1.
    pub workers: u64,
    /// Memory a node, as sbatch reads it.
    pub mem: Option<String>,
    /// GPUs a node; 0 asks for none.
    pub gpus_per_node: u64,
    /// Their type.
    pub gpu_type: Option<String>,
    /// The time limit, whole seconds, ≥ 60.
    pub walltime: Duration,
    /// How long before it the ranks are told to stop; shorter than it.
    pub signal_lead: Duration,
    /// Whether an interrupted job queues itself again.
    pub requeue: bool,
    /// How often.
    pub max_requeues: u64,
    /// `srun --mpi`.
    pub mpi: String,
    /// Options of sbatch, each `--name` or `--name=value`.
    pub scheduler_options: Vec<String>,
    /// Shell lines.
    pub prologue: Vec<String>,
}

/// Does a `--set KEY=VALUE` that may mean card or experiment mean the card? A key of neither goes to the
/// one that has a similar key, which then says so.
pub fn is_card_setting(set: &str) -> bool {
    let name = set.split(['=', '.', '[']).next().unwrap_or_default().trim();
    if SLURM_CARD.key(name).is_some() || EXPERIMENT.key(name).is_some() {
        return SLURM_CARD.key(name).is_some();
    }
    let names = [&SLURM_CARD, &EXPERIMENT].into_iter().flat_map(|table| table.keys.iter().map(|k| k.name));
    nearest(name, names).is_none_or(|near| SLURM_CARD.key(near).is_some())
}

/// Reads the card of a machine.
///
/// # Errors
/// Everything that is wrong with it, as [`load`](super::load).
pub fn load_local_card(path: &Path) -> Result<LocalCard, ConfigErrors> {
    read(path, &[], &LOCAL_CARD, |section, _| {
        Some(LocalCard {
            workers: section.auto_size("workers").unwrap_or_default(),
            device: section.text("device").and_then(|name| name.parse().ok()).unwrap_or_default(),
        })
    })
}

/// Reads the card of a cluster, `set` (`key=value` each) put in before anything is checked.
///
/// # Errors
/// Everything that is wrong with it, as [`load`](super::load).
pub fn load_slurm_card(path: &Path, set: &[String]) -> Result<SlurmCard, ConfigErrors> {
    read(path, set, &SLURM_CARD, slurm_card)
}

fn read<T>(
    path: &Path,
    set: &[String],
    table: &'static Table,
    resolve: impl Fn(&Section, &Report) -> Option<T>,
) -> Result<T, ConfigErrors> {
    let report = Report::default();
    let file = path.display().to_string();
    let card = match read_bounded(path).map(|text| tree::parse(&text, &file.as_str().into())) {
        Ok(Ok(mut root)) => {
            tree::expand(&mut root, "", &report);
            for set in set {
                super::set::apply(&mut root, set, &report);
            }
            match &root.value {
                Value::Map(_) | Value::Null => {
                    check_map(table, root.entries(), "", &report);
                    let mut section = Section::new(table, &root.place, "", &report);
                    section.add(root.entries(), "", true);
                    resolve(&section, &report)
                }
                other => {
                    let (expected, found) = (Kind::Map(table).to_string(), other.to_string());
                    report.add(&root.place, "", Fault::Unexpected { expected, found });
                    None
                }
            }
        }
        Ok(Err(error)) => {
            report.add(&error.place, error.key, error.fault);
            None
        }
        Err(error) => {
            report.add(&Place::File(file.into()), "", Fault::Unreadable(error.to_string()));
            None
        }
    };
    match card {
        Some(card) if report.is_empty() => Ok(card),
        _ => {
            debug_assert!(!report.is_empty(), "a value was refused without a reason");
            Err(report.into_errors())
        }
    }
}

fn slurm_card(section: &Section, report: &Report) -> Option<SlurmCard> {
    let places = places(section);
    let walltime = checked(section, report, "walltime", parse_walltime);
    let signal_lead = walltime.and_then(|walltime| signal_lead(section, walltime));
    if section.int("gpus_per_node") == Some(0) {
        section.refuse_idle(&["gpu_type"], "without gpus_per_node");
    }
    if section.bool("requeue") == Some(false) {
        section.refuse_idle(&["max_requeues"], "with requeue: false");
    }
    let mem = section.has("mem").then(|| checked(section, report, "mem", parse_memory)).flatten();
    let scheduler_options = options(section, report);
    let text = |name: &str| section.has(name).then(|| section.line(name)).flatten();
    let (ntasks_per_node, cpus_per_task) = places?;
    Some(SlurmCard {
        partition: text("partition"),
        account: text("account"),
        qos: text("qos"),
        constraint: text("constraint"),
        nodes: section.int("nodes")?,
        ntasks_per_node,
        cpus_per_task,
        workers: section.int("workers").unwrap_or(cpus_per_task),
        mem,
        gpus_per_node: section.int("gpus_per_node")?,
        gpu_type: text("gpu_type"),
        walltime: Duration::from_secs(walltime?),
        signal_lead: Duration::from_secs(signal_lead?),
        requeue: section.bool("requeue")?,
        max_requeues: section.int("max_requeues")?,
        mpi: section.line("mpi")?,
        scheduler_options,
        prologue: section.lines("prologue"),
    })
}

/// Ranks a node and cores a rank. `cores_per_node` is their product.
fn places(section: &Section) -> Option<(u64, u64)> {
    let (tasks, cpus) = (section.int("ntasks_per_node"), section.int("cpus_per_task"));
    let Some(cores) = section.int("cores_per_node") else {
        return Some((tasks.unwrap_or(1), cpus.unwrap_or(1)));
    };
    let split = match (tasks, cpus) {
        (None, None) => (cores, 1),
        (Some(tasks), None) => (tasks, cores / tasks),
        (None, Some(cpus)) => (cores / cpus, cpus),
        (Some(tasks), Some(cpus)) => (tasks, cpus),
    };
    if split.0.checked_mul(split.1) != Some(cores) {
        let text = "is not a multiple of the others: write ntasks_per_node and cpus_per_task in its place";
        section.conflict("cores_per_node", text);
        return None;
    }
    Some(split)
}

fn signal_lead(section: &Section, walltime: u64) -> Option<u64> {
    let Some(lead) = section.int("signal_lead") else {
        return Some(LEAD.min(walltime / LEAD_PART));
    };
    if lead >= walltime {
        let text = format!(
            "is {lead} s, but the walltime is {walltime} s: the job would be told to stop as it starts; make it \
             shorter, or leave it away"
        );
        section.conflict("signal_lead", text);
        return None;
    }
    Some(lead)
}

/// A line that `parse` reads; what it cannot read is reported with what was expected.
fn checked<T>(
    section: &Section,
    report: &Report,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = section.line(name)?;
    let parsed = parse(&text);
    if let (None, Some(given)) = (&parsed, section.given(name)) {
        let expected = section.expected(name);
        let found = given.node.value.to_string();
        report.add(&given.node.place, given.path, Fault::Unexpected { expected, found });
    }
    parsed
}

/// Seconds of a time limit as sbatch writes it: minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s. At least one
/// minute, the resolution of SLURM.
fn parse_walltime(text: &str) -> Option<u64> {
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (Some(digits(days)?), clock),
        None => (None, text),
    };
    let parts: Vec<u64> = clock.split(':').map(digits).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match (days, &parts[..]) {
        (None, &[m]) => (0, m, 0),
        (None, &[m, s]) => (0, m, s),
        (_, &[h, m, s]) => (h, m, s),
        (Some(_), &[h]) => (h, 0, 0),
        (Some(_), &[h, m]) => (h, m, 0),
        _ => return None,
    };
    let total = days.unwrap_or(0) * 86_400 + hours * 3600 + minutes * 60 + seconds;
    (60..=LONGEST).contains(&total).then_some(total)
}

/// Ten years: a bound that only typing errors exceed.
const LONGEST: u64 = 10 * 366 * 86_400;

/// A number of at most nine digits, with nothing else.
fn digits(text: &str) -> Option<u64> {
    let plain = (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Memory as sbatch reads it.
fn parse_memory(text: &str) -> Option<String> {
    let number = text.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(text);
    digits(number).map(|_| text.to_owned())
}

/// What the script says itself, and the key that decides it.
const OWN: [(&str, &str); 15] = [
    ("partition", "partition"),
    ("account", "account"),
    ("qos", "qos"),
    ("constraint", "constraint"),
    ("nodes", "nodes"),
    ("ntasks", "ntasks_per_node"),
    ("ntasks-per-node", "ntasks_per_node"),
    ("cpus-per-task", "cpus_per_task"),
    ("mem", "mem"),
    ("gpus-per-node", "gpus_per_node"),
    ("time", "walltime"),
    ("signal", "signal_lead"),
    ("requeue", "requeue"),
    ("no-requeue", "requeue"),
    ("open-mode", "requeue"),
];

/// `scheduler_options`, each `--name` or `--name=value`; older cards begin them with `#SBATCH`.
fn options(section: &Section, report: &Report) -> Vec<String> {
    let Some(given) = section.given("scheduler_options") else { return Vec::new() };
    let mut options = Vec::new();
    for (i, text) in section.lines("scheduler_options").into_iter().enumerate() {
        let option = text.strip_prefix("#SBATCH").unwrap_or(&text).trim();
        let name = option.split('=').next().unwrap_or_default();
        let name = name.strip_prefix("--").unwrap_or_default();
        let place = match &given.node.value {
            Value::List(items) => &items[i].place,
            _ => &given.node.place,
        };
        let path = format!("{}[{i}]", given.path);
        let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain {
            let expected = "an option of sbatch such as --exclude=node7".to_owned();
            let found = Value::Text(text.clone()).to_string();
            report.add(place, path, Fault::Unexpected { expected, found });
        } else if let Some((_, key)) = OWN.iter().find(|(own, _)| *own == name) {
            let fault = Fault::Conflict(format!("the script says --{name} itself: set the key {key}"));
            report.add(place, path, fault);
        } else {
            options.push(option.to_owned());
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(text: &str, set: &[&str]) -> Result<SlurmCard, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("card.yaml"), text).unwrap();
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        let shown = format!("{}/", dir.path().display());
        load_slurm_card(&dir.path().join("card.yaml"), &set).map_err(|e| e.to_string().replace(&shown, ""))
    }

    #[test]
    fn walltimes_are_those_of_sbatch() {
        for (text, seconds) in [
            ("90", Some(5400)),
            ("1:30", Some(90)),
            ("04:00:00", Some(14_400)),
            ("2-0", Some(172_800)),
            ("1-2:30", Some(95_400)),
            ("1-02:30:05", Some(95_405)),
            ("0", None),
            ("00:00:30", None),
            ("1:2:3:4", None),
            ("-1", None),
            ("+5", None),
            ("1-", None),
            ("4h", None),
            ("99999999999999999999", None),
            ("999999999-0", None),
            ("UNLIMITED", None),
        ] {
            assert_eq!(parse_walltime(text), seconds, "{text}");
        }
    }

    #[test]
    fn older_names_mean_the_newer_keys() {
        let old = card(
            "{nodes_per_block: 3, cores_per_node: 8, mem_per_node: 64G, max_workers: 2, walltime: 60}",
            &[],
        )
        .unwrap();
        assert_eq!((old.nodes, old.ntasks_per_node, old.cpus_per_task, old.workers), (3, 8, 1, 2));
        assert_eq!(old.mem.as_deref(), Some("64G"));
        for (more, split) in [
            ("ntasks_per_node: 2", Ok((2, 4))),
            ("cpus_per_task: 4", Ok((2, 4))),
            ("ntasks_per_node: 2, cpus_per_task: 4", Ok((2, 4))),
            ("ntasks_per_node: 3", Err("not a multiple")),
            ("ntasks_per_node: 2, cpus_per_task: 2", Err("not a multiple")),
            ("ntasks_per_node: 16", Err("not a multiple")),
        ] {
            match (card(&format!("{{cores_per_node: 8, walltime: 60, {more}}}"), &[]), split) {
                (Ok(card), Ok(split)) => {
                    assert_eq!((card.ntasks_per_node, card.cpus_per_task), split);
                    assert_eq!(card.workers, card.cpus_per_task);
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (other, _) => panic!("{more}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_signal_leaves_a_short_job_most_of_its_time() {
        let lead = |text: &str| card(text, &[]).map(|c| c.signal_lead.as_secs());
        assert_eq!(lead("walltime: 04:00:00"), Ok(120));
        assert_eq!(lead("walltime: 1"), Ok(15));
        assert_eq!(lead("{walltime: 1, signal_lead: 50}"), Ok(50));
        assert!(lead("{walltime: 1, signal_lead: 60}").unwrap_err().contains("leave it away"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, set, expected) in [
            ("waltime: 60\n", &[][..], "card.yaml:1:1: waltime: unknown key; did you mean walltime?"),
            ("nodes: 1\n", &[], "card.yaml:1:1: walltime: missing; expected a time limit"),
            ("walltime: 4h\n", &[], "card.yaml:1:11: walltime: expected a time limit"),
            ("walltime: 60\nmem: 64 GB\n", &[], "card.yaml:2:6: mem: expected memory"),
            (
                "walltime: 60\naccount: \"a\\nb\"\n",
                &[],
                "card.yaml:2:10: account: expected the name of an account, on one line, found the text \"a\\nb\"",
            ),
            ("walltime: 60\nqos: |\n  a\n  b\n", &[], "qos: expected"),
            ("walltime: 60\nprologue: \"a\\0b\"\n", &[], "prologue: expected"),
            (
                "walltime: 60\nscheduler_options: [--exclusive, \"--x=a\\n#SBATCH -p b\"]\n",
                &[],
                "card.yaml:2:34: scheduler_options[1]: expected",
            ),
            (
                "walltime: 60\nscheduler_options: [--exclusive, -x node1]\n",
                &[],
                "card.yaml:2:34: scheduler_options[1]: expected an option of sbatch",
            ),
            ("walltime: 60\nscheduler_options: [--time=5]\n", &[], "set the key walltime"),
            (
                "walltime: 60\ngpu_type: a100\n",
                &[],
                "card.yaml:2:11: gpu_type: has no effect without gpus_per_node",
            ),
            ("walltime: 60\n", &["nodes=0"], "--set nodes=0: nodes: expected a whole number from 1"),
            ("walltime: 60\n", &["waltime=5"], "did you mean walltime?"),
            ("walltime: 60\n", &["account=\"a\\nb\""], "on one line"),
            ("- walltime\n", &[], "card.yaml:1:1: expected a mapping with keys partition"),
            ("walltime: [1\n", &[], "not valid YAML"),
        ] {
            let error = card(text, set).expect_err(text);
            assert!(error.contains(expected), "{error}\nfor {text}");
        }
        assert!(card("walltime: 60", &["walltime=04:00:00"]).is_ok_and(|c| c.walltime.as_secs() == 14_400));
    }

    #[test]
    fn a_setting_goes_where_its_key_is() {
        for (set, card) in [
            ("walltime=1", true),
            ("waltime=1", true),
            ("nodes_per_block=2", true),
            ("posterior.gamma=2", false),
            ("samplers[0].seed=1", false),
            ("postrior.gamma=2", false),
            ("zzz=1", true),
        ] {
            assert_eq!(is_card_setting(set), card, "{set}");
        }
    }
}
