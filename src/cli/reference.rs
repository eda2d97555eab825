//! The command-line reference of the documentation, made from the definition of the command line.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::Quit;
use super::args::{Cli, ReferenceArgs, ReferenceOf};

/// Exit codes and what they mean, of every command.
pub(super) const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "All done. Verdicts `check` included, unless `--strict` is given."),
    (
        "1",
        "Some runs failed, or with `--strict` a verdict is `check`. Of `artifacts import`: what it holds contradicts \
         the store. Of the diagnose commands: a run lacks something.",
    ),
    ("2", "Bad usage or configuration; nothing was run."),
    ("3", "The environment: no MPI, disk full or read-only, store damaged or locked."),
    ("75", "Stopped on the way by a signal or a time limit; the same command goes on."),
];

/// Environment variables that the program reads.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("LAMBDA_HAT_HOME", "Where store, runs, results and logs live, when `--root` is not given."),
    ("LAMBDA_HAT_EXPERIMENT", "Name of the experiment, when `--experiment` is not given."),
    (
        "SLURM_JOB_END_TIME",
        "When the job ends (seconds since 1970; SLURM sets it); `run` stops 10 s before. `--time-limit` wins.",
    ),
    (
        "OMPI_COMM_WORLD_SIZE, PMI_SIZE, PMIX_RANK, SLURM_STEP_NUM_TASKS",
        "What launchers set (the last counts from 2 on); MPI is initialised where they do, unless `--local` is given.",
    ),
];

const HEAD: &str = "\
# Command-line reference

Every command, option, default, environment variable and exit code, for those who look one up. Made from the definition
that the program parses its command line with; `UPDATE_EXPECT=1 cargo test --release --test documents` writes it anew,
and fails without `UPDATE_EXPECT` where it is stale. Manual pages (`lambda-hat-mpi man`) and completions
(`lambda-hat-mpi completions`) are made from the same definition.

Every command has `-h` (short help) and `--help`.
";

/// Prints a page of the documentation.
pub fn run(args: &ReferenceArgs) -> Result<u8, Quit> {
    let page = match args.of {
        ReferenceOf::Cli => cli_reference(Cli::command()),
        ReferenceOf::Configuration => crate::config::configuration_reference(),
    };
    say!("{}", page.trim_end());
    Ok(0)
}

/// `docs/reference/cli.md`.
fn cli_reference(mut command: Command) -> String {
    command.build();
    let mut page = HEAD.to_owned();
    page.push_str("\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    table(&mut page, EXIT_CODES);
    page.push_str("\n## Environment variables\n\n| variable | meaning |\n|---|---|\n");
    table(&mut page, VARIABLES);
    section(&mut page, &command, "");
    page
}

fn table(page: &mut String, rows: &[(&str, &str)]) {
    for (name, meaning) in rows {
        let _ = writeln!(page, "| `{name}` | {meaning} |");
    }
}

fn section(page: &mut String, command: &Command, above: &str) {
    let name = format!("{above}{}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about());
    let about = about.map(|text| cell(&text.to_string())).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage =
        usage.trim_start_matches("Usage:").trim().lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let _ = write!(page, "\n## {name}\n\n{about}\n\n```text\n{usage}\n```\n");
    let shown = |arg: &&Arg| {
        !arg.is_hide_set()
            && !matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong)
    };
    let args: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if !args.is_empty() {
        page.push_str("\n| option | default | meaning |\n|---|---|---|\n");
    }
    for arg in args {
        row(page, arg);
    }
    for below in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        section(page, below, &format!("{name} "));
    }
}

fn row(page: &mut String, arg: &Arg) {
    let values: Vec<String> = match arg.get_value_names() {
        Some(names) if arg.get_action().takes_values() => {
            names.iter().map(|n| if arg.is_positional() { n.to_string() } else { format!(" {n}") }).collect()
        }
        _ => Vec::new(),
    };
    let mut names = Vec::new();
    if let Some(short) = arg.get_short() {
        names.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        names.push(format!("--{long}"));
    }
    let option = format!("{}{}", names.join(", "), values.concat());
    let help = arg.get_help().map(|text| cell(&text.to_string())).unwrap_or_default();
    // `… [default: words]` is how the help texts say what no value of clap's can.
    let (mut help, told) = match help.rsplit_once(" [default: ") {
        Some((help, words)) if words.ends_with(']') => {
            (help.to_owned(), words.trim_end_matches(']').to_owned())
        }
        _ => (help, String::new()),
    };
    let choices: Vec<String> =
        arg.get_possible_values().iter().map(|v| format!("`{}`", v.get_name())).collect();
    if arg.get_action().takes_values() && !choices.is_empty() {
        let _ = write!(help, ". One of {}", choices.join(", "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(help, ". Environment: `{}`", variable.to_string_lossy());
    }
    let given: Vec<String> =
        arg.get_default_values().iter().map(|v| format!("`{}`", v.to_string_lossy())).collect();
    let default = match (arg.get_action(), arg.is_required_set()) {
        (_, true) => "must be given".to_owned(),
        (ArgAction::SetTrue | ArgAction::Count, _) => "off".to_owned(),
        (ArgAction::Version, _) => String::new(),
        _ if !given.is_empty() => given.join(", "),
        _ if told.is_empty() => "none".to_owned(),
        _ => told,
    };
    let _ = writeln!(page, "| `{option}` | {default} | {help} |");
}

/// Text that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}
