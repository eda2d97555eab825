//! Signals that ask a sweep to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// Exit code of a second Ctrl-C: 128 + SIGINT, as shells have it.
const AT_ONCE: i32 = 130;

/// From now on SIGTERM, SIGINT and SIGUSR1 put their number into what is returned; a second SIGINT ends
/// the process at once. (Files are renamed into place when they are whole, so none is left half.)
pub fn listen() -> io::Result<Arc<AtomicUsize>> {
    let signal = Arc::new(AtomicUsize::new(0));
    let again = Arc::new(AtomicBool::new(false));
    // In this order: the first SIGINT finds the flag down, the second finds it up.
    flag::register_conditional_shutdown(SIGINT, AT_ONCE, Arc::clone(&again))?;
    flag::register(SIGINT, again)?;
    for number in [SIGTERM, SIGINT, SIGUSR1] {
        flag::register_usize(number, Arc::clone(&signal), number as usize)?;
    }
    Ok(signal)
}
