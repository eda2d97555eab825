//! The program `lambda-hat-mpi`; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    lambda_hat::cli::main()
}
