//! Records which commit the program was built from; with feature `cuda`, compiles the kernels.

#[cfg(feature = "cuda")]
#[path = "kernels/build.rs"]
mod kernels;

use std::process::Command;

fn main() {
    #[cfg(feature = "cuda")]
    kernels::build(&std::path::PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs");
    // A file that is not there would count as changed every time.
    if std::path::Path::new(".git/packed-refs").exists() {
        println!("cargo:rerun-if-changed=.git/packed-refs");
    }
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let sha = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    println!("cargo:rustc-env=LAMBDA_HAT_GIT_SHA={sha}{}", if dirty { "+changes" } else { "" });
}
