use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

#[cfg(target_arch = "x86_64")]
use super::machine;

/// The instruction set a process computes with.
///
/// Rank 0 fixes it before planning as the best that every rank has; manifests carry its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arith {
    /// Whatever the compiler's baseline offers. Without hardware FMA this is slow.
    Generic,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F.
    Avx512,
}

/// A name that is no arithmetic.
#[derive(Debug, thiserror::Error)]
#[error("unknown arithmetic '{0}': expected cpu-generic, cpu-avx2 or cpu-avx512")]
pub struct UnknownArith(String);

impl Arith {
    /// All of them, plainest first.
    pub const ALL: [Arith; 3] = [Arith::Generic, Arith::Avx2, Arith::Avx512];

    /// The fastest this processor has.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|a| a.is_available()).unwrap_or(Arith::Generic)
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            match self {
                Arith::Generic => true,
                Arith::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
                Arith::Avx512 => Arith::Avx2.is_available() && is_x86_feature_detected!("avx512f"),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Arith::Generic
        }
    }

    /// The name in manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Arith::Generic => "cpu-generic",
            Arith::Avx2 => "cpu-avx2",
            Arith::Avx512 => "cpu-avx512",
        }
    }

    /// The arithmetic of this process: what [`set_current`](Arith::set_current) chose, else the best.
    pub fn current() -> Self {
        match CURRENT.load(Ordering::Relaxed) {
            0 => Self::best(),
            code => Self::ALL[usize::from(code) - 1],
        }
    }

    /// Fixes the arithmetic of this process. One that the processor lacks is refused.
    pub fn set_current(self) -> Result<(), UnknownArith> {
        if !self.is_available() {
            return Err(UnknownArith(format!("{self} (this processor does not have it)")));
        }
        CURRENT.store(self as u8 + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Runs `f` compiled for this instruction set.
    ///
    /// Everything that `f` calls and that is to profit must be `#[inline(always)]`, as must `f`
    /// itself. An instruction set that the processor lacks is a bug of the caller and panics.
    #[inline(always)]
    pub fn run<R>(self, f: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        {
            match self {
                Arith::Generic => f(),
                Arith::Avx2 => machine::with_avx2(f),
                Arith::Avx512 => machine::with_avx512(f),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            f()
        }
    }
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

impl fmt::Display for Arith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arith {
    type Err = UnknownArith;

    fn from_str(s: &str) -> Result<Self, UnknownArith> {
        Self::ALL.into_iter().find(|a| a.name() == s).ok_or_else(|| UnknownArith(s.to_owned()))
    }
}
