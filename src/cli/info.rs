//! `info` and `schema`: what this program is and reads.

use super::Quit;
use crate::config;
use crate::device::Arith;

/// Prints the JSON Schema of experiment files.
pub fn schema() -> Result<u8, Quit> {
    let text =
        serde_json::to_string_pretty(&config::json_schema()).map_err(|e| Quit::Environment(e.to_string()))?;
    say!("{text}");
    Ok(0)
}

/// Prints version, arithmetic and libraries.
pub fn info() -> Result<u8, Quit> {
    say!("lambda-hat-mpi {}", crate::VERSION);
    say!("commit         {}", crate::GIT_SHA);
    let names: Vec<&str> = Arith::ALL.into_iter().filter(|a| a.is_available()).map(Arith::name).collect();
    say!("arithmetic     {} (this processor: {})", Arith::best(), names.join(", "));
    say!("MPI            {}", if cfg!(feature = "mpi") { "built in" } else { "not built in (feature mpi)" });
    say!("samplers       {}", config::sampler_names().collect::<Vec<_>>().join(", "));
    Ok(0)
}
