//! `man` and `completions`: manual pages and shell completions, made from the definition of the command line.

use std::io::Write as _;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::Quit;
use super::args::{Cli, CompletionsArgs, ManArgs};
use super::reference::{EXIT_CODES, VARIABLES};
use crate::store::write_out;

/// The program's name, as it is called.
const PROGRAM: &str = "lambda-hat-mpi";

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs) -> Result<u8, Quit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), PROGRAM, &mut text);
    if args.shell == clap_complete::Shell::Bash {
        // clap_complete 4.6 spells the hyphens of the program's name in one way where it sets the command, and in
        // another where it asks for it, so that nothing below a command would be completed.
        let name = PROGRAM.replace('-', "__");
        let other = PROGRAM.replace('-', "__subcmd__");
        text =
            String::from_utf8_lossy(&text).replace(&format!("{other}__"), &format!("{name}__")).into_bytes();
    }
    print(&text);
    Ok(0)
}

/// Prints the main manual page, or writes one a command below a directory.
pub fn man(args: &ManArgs) -> Result<u8, Quit> {
    let Some(dir) = &args.outdir else {
        print(&page(&command())?);
        return Ok(0);
    };
    write_pages(&command(), dir)?;
    Ok(0)
}

fn command() -> clap::Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// A page of the command and of each below it, those that are hidden left out.
fn write_pages(command: &clap::Command, dir: &Path) -> Result<(), Quit> {
    let name = Man::new(command.clone()).get_filename();
    write_out(&dir.join(&name), &page(command)?)?;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_pages(below, dir)?;
    }
    Ok(())
}

/// A manual page in roff.
fn page(command: &clap::Command) -> Result<Vec<u8>, Quit> {
    let mut text = Vec::new();
    let man = Man::new(command.clone()).manual("lambda-hat-mpi");
    man.render(&mut text).map_err(|e| Quit::Environment(format!("cannot make the manual page: {e}")))?;
    let rows = |title: &str, rows: &[(&str, &str)]| {
        let rows = rows.iter().map(|(name, what)| format!(".TP\n{}\n{}\n", roff(name), roff(what)));
        format!(".SH \"{title}\"\n{}", rows.collect::<String>())
    };
    text.extend(rows("EXIT STATUS", EXIT_CODES).bytes());
    text.extend(rows("ENVIRONMENT", VARIABLES).bytes());
    Ok(text)
}

/// Plain text in roff: backslashes, hyphens and leading dots mean themselves.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// A reader that has gone away (`| head`) is no error.
fn print(text: &[u8]) {
    let _ = std::io::stdout().write_all(text);
}
