//! Medians over rounds, peak memory, and the lines of the table.

use std::time::{Duration, Instant};

use lambda_hat::device::{Arith, Element, fma_peak};

/// Rounds that a median is of; odd.
const ROUNDS: usize = 11;
/// Least seconds of a round.
const ROUND: f64 = 0.1;

/// How long registers alone are at work for one measurement of them.
const SPIN: Duration = Duration::from_millis(700);

/// What one call did.
pub struct Work {
    pub items: f64,
    pub flops: f64,
}

/// Medians over the rounds of one row.
pub struct Rate {
    items: f64,
    flops: f64,
    /// Share of the core's FMA peak.
    share: f64,
}

/// Measures `call`. Every round is framed by two measurements of the core's peak, so that a
/// round that the machine was slow in is held against the peak of that moment.
pub fn rate<T: Element>(mut call: impl FnMut() -> Work) -> Rate {
    let peak = || fma_peak::<T>(Arith::current(), 3);
    call();
    let start = Instant::now();
    call();
    let calls = (ROUND / start.elapsed().as_secs_f64()).ceil().clamp(1.0, 1e6) as usize;
    let (mut items, mut flops, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = peak();
        let mut done = Work { items: 0.0, flops: 0.0 };
        let start = Instant::now();
        for _ in 0..calls {
            let work = call();
            done.items += work.items;
            done.flops += work.flops;
        }
        let seconds = start.elapsed().as_secs_f64();
        items.push(done.items / seconds);
        flops.push(done.flops / seconds);
        shares.push(done.flops / seconds / before.max(peak()));
    }
    Rate { items: median(items), flops: median(flops), share: median(shares) }
}

/// The middle one of an odd number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Measurements of the peak a second, by so many threads together.
pub fn spins(threads: usize) -> f64 {
    let spin = || {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < SPIN {
            fma_peak::<f64>(Arith::current(), 1);
            done += 1;
        }
        f64::from(done) / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(spin)).collect();
        running.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
    })
}

/// Peak resident memory in KiB of a process that still runs (`VmHWM` in proc(5)).
pub fn peak_memory(process: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// Name of the processor and number of cores at hand.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map(|l| l.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", name.unwrap_or("unknown processor"))
}

pub fn print_heading() {
    line("", "rate", "time", "GFLOP/s", "of peak", "memory");
    println!("{}", "─".repeat(100));
}

pub fn print_rate(title: &str, unit: &str, rate: &Rate) {
    line(
        title,
        &format!("{} {unit}", grouped(rate.items)),
        &time(1.0 / rate.items),
        &format!("{:.1}", rate.flops / 1e9),
        &format!("{:.0} %", 100.0 * rate.share),
        &memory(peak_memory("self")),
    );
}

pub fn print_time(title: &str, seconds: Option<f64>, kib: Option<f64>) {
    line(title, "", &seconds.map_or_else(String::new, time), "", "", &memory(kib));
}

/// A figure that is neither a rate nor a time.
pub fn print_figure(title: &str, figure: &str) {
    line(title, "", figure, "", "", "");
}

fn line(title: &str, rate: &str, time: &str, gflops: &str, share: &str, memory: &str) {
    println!("  {title:<39}{rate:>18}{time:>11}{gflops:>9}{share:>9}{memory:>12}");
}

fn memory(kib: Option<f64>) -> String {
    kib.map_or_else(String::new, |kib| format!("{:.1} MiB", kib / 1024.0))
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.2} µs", 1e6 * s),
        s if s < 1.0 => format!("{:.2} ms", 1e3 * s),
        s => format!("{s:.2} s"),
    }
}

/// Three or more digits, thousands apart.
fn grouped(x: f64) -> String {
    if x < 1000.0 {
        return format!("{x:.1}");
    }
    let digits = format!("{x:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}
