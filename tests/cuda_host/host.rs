//! The host program: built once for all tests, asked with requests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lambda_hat::num::Real;

/// Sources below `dir`, in order.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(dir).expect("a directory").flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        match path.extension().and_then(|e| e.to_str()) {
            None if path.is_dir() => sources(&path, found),
            Some("cpp" | "cuh") => found.push(path),
            _ => {}
        }
    }
}

/// The host program, under the sanitizers or not; `None` where there is no compiler.
///
/// It is named after what it is made of, so that tests in processes of their own build it once.
pub fn host(sanitized: bool) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    let Ok(version) = Command::new(&compiler).arg("--version").output() else {
        println!("skipped: no C++ compiler `{compiler}` here (scripts/bootstrap.sh --tests installs one)");
        return None;
    };
    let mut flags = vec!["-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"];
    if cfg!(target_arch = "x86_64") {
        flags.push("-march=native");
    }
    if sanitized {
        flags.extend(["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    } else {
        flags.push("-O2");
    }
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut files = Vec::new();
    sources(&kernels, &mut files);
    let mut hasher = DefaultHasher::new();
    (&compiler, &version.stdout, &flags).hash(&mut hasher);
    files.iter().for_each(|f| std::fs::read(f).expect("a source").hash(&mut hasher));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = directory.join(format!("kernels-{:016x}", hasher.finish()));
    if !program.exists() {
        let made = directory.join(format!("kernels-{}", std::process::id()));
        let mut command = Command::new(&compiler);
        command.args(&flags).arg("-o").arg(&made).arg(kernels.join("host/main.cpp"));
        let ran = command.output().expect("the compiler runs");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        std::fs::rename(made, &program).expect("renamed");
    }
    Some(program)
}

/// Numbers as the host program reads and writes them.
pub trait Wire: Real {
    const WIDTH: i32;
    fn put(values: &[Self], bytes: &mut Vec<u8>);
    fn take(bytes: &mut &[u8], count: usize) -> Vec<Self>;
}

macro_rules! wire {
    ($t:ty) => {
        impl Wire for $t {
            const WIDTH: i32 = size_of::<$t>() as i32;
            fn put(values: &[Self], bytes: &mut Vec<u8>) {
                values.iter().for_each(|v| bytes.extend(v.to_ne_bytes()));
            }
            fn take(bytes: &mut &[u8], count: usize) -> Vec<Self> {
                let (mine, rest) = bytes.split_at(count * size_of::<$t>());
                *bytes = rest;
                mine.as_chunks().0.iter().map(|b| <$t>::from_ne_bytes(*b)).collect()
            }
        }
    };
}

wire!(f32);
wire!(f64);

/// Requests, one after the other.
#[derive(Default)]
pub struct Requests(pub Vec<u8>);

impl Requests {
    pub fn begin<T: Wire>(&mut self, operation: &str, backwards: bool) {
        let mut name = [0; 16];
        name[..operation.len()].copy_from_slice(operation.as_bytes());
        self.0.extend(name);
        self.integers(&[T::WIDTH, i32::from(backwards)]);
    }

    pub fn integers(&mut self, values: &[i32]) {
        values.iter().for_each(|v| self.0.extend(v.to_ne_bytes()));
    }

    pub fn words(&mut self, values: &[u32]) {
        values.iter().for_each(|v| self.0.extend(v.to_ne_bytes()));
    }

    pub fn run(&self, program: &Path) -> Vec<u8> {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the host program starts");
        let mut input = child.stdin.take().expect("a pipe");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(&self.0));
            child.wait_with_output().expect("the host program ends")
        });
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub fn doubles(&mut self, values: &[f64]) {
        f64::put(values, &mut self.0);
    }

    /// Pointers that the host program fills in.
    pub fn pointers(&mut self, count: usize) {
        self.0.extend(std::iter::repeat_n(0, 8 * count));
    }
}

/// A number of 32 bits from an answer.
pub fn take_words(bytes: &mut &[u8], count: usize) -> Vec<u32> {
    let (mine, rest) = bytes.split_at(4 * count);
    *bytes = rest;
    mine.as_chunks().0.iter().map(|b| u32::from_ne_bytes(*b)).collect()
}
