// The part of the build script that feature `cuda` needs: the kernels as one fat binary, and a stand-in for the driver's
// library to link with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the fat binary holds: code for A100 and H100, and PTX that the driver compiles for later ones.
const GENERATE: [&str; 3] =
    ["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"];

pub fn build(out: &Path) {
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        stop(
            "feature `cuda` is for x86-64 only: kernels/driver/trampolines.S has that processor's instructions",
        );
    }
    for dir in ["kernels", "kernels/driver"] {
        for entry in fs::read_dir(dir).expect("a directory of the repository").flatten() {
            // The host program of the tests is no part of the build.
            if entry.path().is_file() {
                println!("cargo:rerun-if-changed={}", entry.path().display());
            }
        }
    }
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    kernels(out);
    driver(out);
}

/// A build error as cargo shows it.
fn stop(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(1);
}

/// nvcc of `CUDA_HOME`, of `scripts/bootstrap.sh --cuda`, or on the path.
fn nvcc() -> PathBuf {
    if let Some(home) = std::env::var_os("CUDA_HOME") {
        return Path::new(&home).join("bin/nvcc");
    }
    let fetched = Path::new(".cuda/home/bin/nvcc");
    if fetched.exists() { fetched.to_owned() } else { "nvcc".into() }
}

fn kernels(out: &Path) {
    let mut command = Command::new(nvcc());
    // Multiplications and additions are fused where the source says so, and nowhere else: two kernels of one source have
    // the same bits.
    command.args(["-std=c++17", "-O3", "-fmad=false", "-fatbin"]);
    for code in GENERATE {
        command.args(["-gencode", code]);
    }
    command.arg("-o").arg(out.join("kernels.fatbin")).arg("kernels/kernels.cu");
    match command.output() {
        Ok(ran) if ran.status.success() => {}
        Ok(ran) => stop(&format!(
            "nvcc cannot compile kernels/kernels.cu:\n{}",
            String::from_utf8_lossy(&ran.stderr)
        )),
        Err(e) => stop(&format!(
            "feature `cuda` needs nvcc, and `{}` does not run ({e}): set CUDA_HOME, or run scripts/bootstrap.sh --cuda",
            nvcc().display()
        )),
    }
}

/// libcuda.a, which `-lcuda` finds: see kernels/driver/trampolines.S.
fn driver(out: &Path) {
    let symbols = fs::read_to_string("kernels/driver/symbols.txt").expect("a file of the repository");
    let entries: String =
        symbols.lines().enumerate().map(|(i, name)| format!("entry {name}, {i}\n")).collect();
    let names: String = symbols.lines().map(|name| format!("\"{name}\",\n")).collect();
    fs::write(out.join("entries.inc"), entries).expect("cargo's directory takes files");
    fs::write(out.join("names.inc"), names).expect("cargo's directory takes files");
    cc::Build::new()
        .include(out)
        .file("kernels/driver/trampolines.S")
        .file("kernels/driver/resolve.c")
        .cargo_metadata(false)
        .compile("cuda");
    println!("cargo:rustc-link-search=native={}", out.display());
}
