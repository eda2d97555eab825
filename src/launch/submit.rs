//! Handing a script to sbatch.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::LaunchError;

/// Submits a script from the current directory and returns the job's id.
///
/// # Errors
/// There is no sbatch, or it refuses the job; nothing is submitted then.
pub fn submit(script: &str) -> Result<String, LaunchError> {
    let mut sbatch = Command::new("sbatch")
        .arg("--parsable")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LaunchError::NoSbatch)?;
    if let Some(mut stdin) = sbatch.stdin.take() {
        // An sbatch that does not read to the end says why itself.
        let _ = stdin.write_all(script.as_bytes());
    }
    let ended = sbatch.wait_with_output().map_err(LaunchError::NoSbatch)?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        let said: Vec<&str> = said.lines().map(|l| l.trim_start_matches("sbatch: error: ")).collect();
        return Err(LaunchError::Refused(said.join("; ")));
    }
    job_id(&String::from_utf8_lossy(&ended.stdout))
}

/// The id in `sbatch --parsable`'s `id` or `id;cluster`.
fn job_id(answer: &str) -> Result<String, LaunchError> {
    let id = answer.trim().split(';').next().unwrap_or_default();
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(LaunchError::NoId(answer.trim().to_owned()));
    }
    Ok(id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers() {
        assert_eq!(job_id("17\n").ok().as_deref(), Some("17"));
        assert_eq!(job_id("17;main\n").ok().as_deref(), Some("17"));
        assert!(job_id("").is_err() && job_id("sbatch: 17").is_err());
    }
}
