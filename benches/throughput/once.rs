//! One round of a row for another program to read: what `make bench-compare` alternates with.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use lambda_hat::device::Element;
use lambda_hat::target::Potential;

use super::case::Shape;
use super::inner::with_loop;
use super::measure::Work;

/// Prints the seconds an item of one round of at least `least` seconds. With several threads each
/// runs the loop for itself, as worker slots do; the figure is of all their items together. One
/// thread alone is measured in processor time, which other programs on its core do not lengthen.
pub fn round<T: Element>(what: &str, shape: &Shape, threads: usize, least: f64) {
    let barrier = Barrier::new(threads);
    let rates: Vec<f64> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| rate::<T>(what, shape, &barrier, threads == 1, least)))
            .collect();
        all.into_iter().map(|one| one.join().expect("a loop that ends")).collect()
    });
    println!("{:e}", 1.0 / rates.iter().sum::<f64>());
}

/// Items a second of this thread, counted in whole calls from a moment when all threads are ready.
fn rate<T: Element>(what: &str, shape: &Shape, barrier: &Barrier, alone: bool, least: f64) -> f64 {
    let mut rate = 0.0;
    with_loop::<T>(what, shape, &mut |call| {
        call();
        barrier.wait();
        let before = if alone { processor_time() } else { None };
        let (start, mut items) = (Instant::now(), 0.0);
        let mut seconds = 0.0;
        // Small calls are timed in groups: reading the clock costs as much as a tenth of a gradient.
        let mut group = 1;
        while seconds < least {
            for _ in 0..group {
                let Work { items: done, .. } = call();
                items += done;
            }
            seconds = start.elapsed().as_secs_f64();
            if seconds < 0.01 {
                group *= 2;
            }
        }
        let used = before.and_then(|before| Some(processor_time()? - before));
        rate = items / used.unwrap_or(seconds);
    });
    rate
}

/// Seconds that this thread has been on a core, to a tick of the system's clock (proc(5), schedstat).
fn processor_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(|nanoseconds: f64| 1e-9 * nanoseconds)
}

/// Writes `x`, `y` and `w` of a shape as files of little-endian f64, row-major, and prints what the
/// loss and its gradient's length are there, so that the reader can see that it computes the same.
pub fn data(shape: &Shape, to: &Path) -> Result<(), String> {
    for (name, values) in ["x", "y", "w"].into_iter().zip(shape.numbers::<f64>()) {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let path = to.join(format!("{}.{name}", shape.name));
        fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let (potential, w) = shape.case::<f64>();
    let mut grad = vec![0.0; w.len()];
    let loss = potential.loss_grad(&w, &mut grad, &mut vec![0.0; potential.scratch_len()]);
    let length = grad.iter().map(|g| g * g).sum::<f64>().sqrt();
    println!("{loss:e} {length:e}");
    Ok(())
}
