//! The sbatch script of a job.

use std::fmt::Write as _;
use std::time::Duration;

use super::quote::{directive, shell};
use crate::config::SlurmCard;

/// Seconds that other ranks may outlive the first that ends. Zero would be for ever, and a rank that was
/// killed would leave its job to the time limit; all ranks of a sweep that ends by itself end together.
const GRACE: u64 = 60;

/// What a job runs. No text in it may hold a line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Name in the queue.
    pub name: String,
    /// The program, by a path that every node has.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// The script: what the card asks for, the card's prologue as it stands, and the ranks started so that they
/// hear of the time limit and are queued again when they return 75.
///
/// Where the environment of the job names another program in `LAMBDA_HAT_PROGRAM`, that is started.
pub fn script(card: &SlurmCard, job: &Job) -> String {
    let mut text = "#!/bin/bash\n".to_owned();
    for option in directives(card, job) {
        let _ = writeln!(text, "#SBATCH {}", directive(&option));
    }
    text.push('\n');
    for line in &card.prologue {
        text.push_str(line);
        text.push('\n');
    }
    let srun = [
        format!("--mpi={}", card.mpi),
        // Since 22.05 a step does not take it over from the job.
        format!("--cpus-per-task={}", card.cpus_per_task),
        format!("--wait={GRACE}"),
        // A site may have it on; then the ranks that end after the first would turn its 75 into their 143.
        "--kill-on-bad-exit=0".to_owned(),
    ];
    let requeue = if card.requeue { "yes" } else { "no" };
    let _ = write!(
        text,
        "program=${{LAMBDA_HAT_PROGRAM:-{}}}\narguments=({})\nsrun_options=({})\nrequeue={requeue}\nmax_requeues={}\n",
        default_value(&job.program),
        words(&job.arguments),
        words(&srun),
        card.max_requeues,
    );
    text.push_str(include_str!("slurm.sh"));
    text
}

/// The word of a `${…:-word}`, where a brace would end it.
fn default_value(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn words(texts: &[String]) -> String {
    texts.iter().map(|t| shell(t)).collect::<Vec<_>>().join(" ")
}

/// The options of sbatch, in the order in which people look for them.
fn directives(card: &SlurmCard, job: &Job) -> Vec<String> {
    let mut options = vec![format!("--job-name={}", job.name)];
    for (name, value) in [
        ("partition", &card.partition),
        ("account", &card.account),
        ("qos", &card.qos),
        ("constraint", &card.constraint),
    ] {
        options.extend(value.iter().map(|value| format!("--{name}={value}")));
    }
    options.push(format!("--nodes={}", card.nodes));
    options.push(format!("--ntasks-per-node={}", card.ntasks_per_node));
    options.push(format!("--cpus-per-task={}", card.cpus_per_task));
    options.extend(card.mem.iter().map(|mem| format!("--mem={mem}")));
    if card.gpus_per_node > 0 {
        let kind = card.gpu_type.iter().map(|kind| format!("{kind}:")).collect::<String>();
        options.push(format!("--gpus-per-node={kind}{}", card.gpus_per_node));
    }
    options.push(format!("--time={}", time_limit(card.walltime)));
    options.push(format!("--signal=USR1@{}", card.signal_lead.as_secs()));
    options.push(if card.requeue { "--requeue" } else { "--no-requeue" }.to_owned());
    options.push("--open-mode=append".to_owned());
    options.extend(card.scheduler_options.iter().cloned());
    options
}

/// `[days-]hh:mm:ss`.
fn time_limit(limit: Duration) -> String {
    let seconds = limit.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}-{clock}") } else { clock }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_are_written_as_sbatch_reads_them() {
        for (seconds, text) in [(60, "00:01:00"), (14_400, "04:00:00"), (95_405, "1-02:30:05")] {
            assert_eq!(time_limit(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn bash_reads_the_program_and_its_substitute_as_they_are() {
        for program in ["/bin/x", "/it's a {dir}/$(x) \"y\"/z}"] {
            let text = format!("p=${{NOT_SET_HERE:-{}}}; printf %s \"$p\"", default_value(program));
            let ran = std::process::Command::new("bash").args(["-c", &text]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&ran.stdout), program);
        }
    }
}
