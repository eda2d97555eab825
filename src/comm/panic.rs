//! Panics in a job of several ranks.
//!
//! A panic that unwinds out of `main` runs into `MPI_Finalize`, which waits for the other ranks,
//! which wait for messages: the job hangs instead of failing. So a panic ends the job at once,
//! except inside [`catch_panic`], where a work unit's panic is that unit's failure.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Exit code of a job that a panic ended (the one that Rust gives a panic in `main`).
pub const PANIC_CODE: i32 = 101;

thread_local! {
    /// Does this thread run inside [`catch_panic`]?
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
    /// Where the last caught panic of this thread happened, and how it came to be there.
    static PLACE: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

/// From now on a panic of any thread, outside [`catch_panic`], prints its message and ends the
/// whole job with [`PANIC_CODE`]. Calling it again changes nothing.
pub fn abort_on_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CAUGHT.get() {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                PLACE.set(Some((place, Backtrace::force_capture().to_string())));
            } else {
                print(info);
                end_job(PANIC_CODE);
            }
        }));
    });
}

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// What it said, and where.
    pub message: String,
    /// How it came to be there.
    pub backtrace: String,
}

/// Runs `work`; a panic inside it comes back as its message and place instead of ending the job.
///
/// It covers this thread only: a thread that `work` starts needs its own.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    let outer = CAUGHT.replace(true);
    PLACE.set(None);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic without a message".into());
        match PLACE.take() {
            Some((place, backtrace)) => Panic { message: format!("{text} (at {place})"), backtrace },
            None => Panic { message: text, backtrace: String::new() },
        }
    })
}

/// Ends every process of the job. `MPI_Abort` may be called here by another thread than the one
/// that `MPI_THREAD_FUNNELED` names: the job is being torn down, and nothing gentler is certain to
/// reach the other ranks.
fn end_job(code: i32) -> ! {
    #[cfg(feature = "mpi")]
    super::mpi_comm::abort_if_running(code);
    std::process::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_comes_back_as_text_and_leaves_the_thread_as_it_was() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        let text = catch_panic(|| -> () { panic!("step {} is negative", -1) }).unwrap_err().message;
        assert!(text.starts_with("step -1 is negative"), "{text}");
        let text = catch_panic(|| -> () { panic!("plain") }).unwrap_err().message;
        assert!(text.starts_with("plain"), "{text}");
        assert!(!CAUGHT.get());
        let inner = catch_panic(|| {
            catch_panic(|| -> () { panic!("inner") }).unwrap_err();
            CAUGHT.get()
        });
        assert_eq!(inner, Ok(true), "an inner catch must not end the outer one");
    }
}
