//! The kernels built as an ordinary program (`kernels/host`), in a process of its own: a device for tests, on machines
//! without one.
//!
//! `LAMBDA_HAT_HOST_KERNELS=PROGRAM` in the environment puts it in the place of a GPU; `PROGRAM,memory=BYTES` gives each
//! thread that much memory, `PROGRAM,fail=N` has the process's N-th launch fail. Runs on it are runs of their own, and
//! say so. What is asked travels over pipes; `kernels/host/place.cuh` is the other end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{DeviceError, DeviceInfo, Launch, Place};
use crate::device::SharedMemory;

/// Names the program, and what is to go wrong.
const VARIABLE: &str = "LAMBDA_HAT_HOST_KERNELS";
/// Memory of a thread's device where nothing else is said.
const MEMORY: usize = 1 << 30;

/// Launches of this process.
static LAUNCHES: AtomicU64 = AtomicU64::new(0);

/// The program of the kernels, and what is to go wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKernels {
    /// Made of `kernels/host/main.cpp`.
    pub program: PathBuf,
    /// Bytes that may be allocated at a time.
    pub memory: usize,
    /// Which launch of this process fails, from 1.
    pub fail: Option<u64>,
    /// Whether threads of a block run backwards.
    pub backwards: bool,
}

impl HostKernels {
    /// The program, with nothing to go wrong.
    pub fn new(program: PathBuf) -> Self {
        Self { program, memory: MEMORY, fail: None, backwards: false }
    }

    /// What the environment names, if it does.
    pub(super) fn of_environment() -> Result<Option<Self>, DeviceError> {
        match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => Self::parse(&text).map(Some),
            _ => Ok(None),
        }
    }

    fn parse(text: &str) -> Result<Self, DeviceError> {
        let mut words = text.split(',');
        let mut kernels = Self::new(words.next().unwrap_or_default().into());
        for word in words {
            let understood = match word.split_once('=') {
                Some(("memory", bytes)) => bytes.parse().map(|bytes| kernels.memory = bytes).is_ok(),
                Some(("fail", launch)) => launch.parse().map(|n| kernels.fail = Some(n)).is_ok(),
                _ => false,
            };
            if !understood {
                let reason = format!("{VARIABLE}: {word:?} is neither memory=BYTES nor fail=N");
                return Err(DeviceError::Failed { doing: "start", reason });
            }
        }
        Ok(kernels)
    }

    /// What it says of itself: memory as it is, all else as of an A100.
    pub(super) fn info(&self) -> DeviceInfo {
        DeviceInfo {
            name: "kernels built for the host".into(),
            memory: self.memory,
            capability: (8, 0),
            bus: "no device".into(),
            shared: SharedMemory::SM_80,
            kind: "host-kernels",
        }
    }

    /// Starts the program.
    pub(super) fn start(&self) -> Result<HostPlace, DeviceError> {
        let mut command = Command::new(&self.program);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let told = |e: io::Error| failed(&format!("start {}", self.program.display()), &e);
        let mut child = child.map_err(told)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(told(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(HostPlace {
            info: self.info(),
            kernels: self.clone(),
            pipes: RefCell::new(Pipes { input: BufWriter::new(input), output: BufReader::new(output) }),
            sizes: RefCell::default(),
            child,
        })
    }
}

fn failed(what: &str, e: &io::Error) -> DeviceError {
    DeviceError::Failed { doing: "answer", reason: format!("{what}: {e}") }
}

struct Pipes {
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// The program, running.
pub(super) struct HostPlace {
    info: DeviceInfo,
    kernels: HostKernels,
    pipes: RefCell<Pipes>,
    /// Bytes at each address.
    sizes: RefCell<BTreeMap<u64, usize>>,
    child: Child,
}

impl HostPlace {
    /// A request: the operation, the width of a number, the direction of threads, words of 8 bytes, bytes.
    fn ask(&self, operation: &str, double: bool, words: &[u64], bytes: &[&[u8]]) -> Result<(), DeviceError> {
        let mut name = [0; 16];
        name[..operation.len()].copy_from_slice(operation.as_bytes());
        let width: i32 = if double { 8 } else { 4 };
        let mut head = name.to_vec();
        head.extend(width.to_ne_bytes());
        head.extend(i32::from(self.kernels.backwards).to_ne_bytes());
        words.iter().for_each(|word| head.extend(word.to_ne_bytes()));
        let input = &mut self.pipes.borrow_mut().input;
        let mut parts = [&head[..]].into_iter().chain(bytes.iter().copied());
        parts.try_for_each(|part| input.write_all(part)).map_err(|e| failed(operation, &e))
    }

    fn answer(&self, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let Pipes { input, output } = &mut *self.pipes.borrow_mut();
        let read = input.flush().and_then(|()| output.read_exact(bytes));
        read.map_err(|e| failed("the program of the kernels has ended", &e))
    }
}

impl Place for HostPlace {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        let taken: usize = self.sizes.borrow().values().sum();
        if taken.saturating_add(bytes) > self.kernels.memory {
            return Err(DeviceError::OutOfMemory { bytes });
        }
        self.ask("allocate", false, &[bytes as u64], &[])?;
        let mut address = [0; 8];
        self.answer(&mut address)?;
        let address = u64::from_ne_bytes(address);
        if address == 0 {
            return Err(DeviceError::OutOfMemory { bytes });
        }
        self.sizes.borrow_mut().insert(address, bytes);
        Ok(address)
    }

    fn free(&self, address: u64) {
        // A program that has ended has given back everything.
        if self.sizes.borrow_mut().remove(&address).is_some() {
            let _ = self.ask("free", false, &[address], &[]);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.ask("write", false, &[address, bytes.len() as u64], &[bytes])
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.ask("read", false, &[address, bytes.len() as u64], &[])?;
        self.answer(bytes)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        launch.check()?;
        if self.kernels.fail == Some(1 + LAUNCHES.fetch_add(1, Ordering::Relaxed)) {
            return Err(DeviceError::Failed {
                doing: "launch a kernel",
                reason: "a failure on demand".into(),
            });
        }
        let mut name = [0; 32];
        name[..launch.kernel.name().len()].copy_from_slice(launch.kernel.name().as_bytes());
        let (x, y) = launch.grid;
        let words = [x, y, launch.threads, launch.shared_bytes].map(|n| n as u64);
        let mut bytes = vec![&name[..]];
        bytes.extend(launch.parameters.iter().map(|p| p.as_bytes()));
        self.ask("launch", launch.double, &words, &bytes)
    }
}

impl Drop for HostPlace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_nonsense_is_refused() {
        let plain = HostKernels::new("a/b".into());
        assert_eq!(HostKernels::parse("a/b"), Ok(plain.clone()));
        let with = HostKernels { memory: 7, fail: Some(3), ..plain };
        assert_eq!(HostKernels::parse("a/b,memory=7,fail=3"), Ok(with));
        assert!(HostKernels::parse("a/b,explode=1").is_err());
    }
}
