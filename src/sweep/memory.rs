//! Whether there is memory for a unit before it begins: a refusal with advice instead of a process that
//! the system kills.

use std::fs;

use super::unit::Failure;
use crate::store::size;

/// Less is not worth asking the system for.
const LARGE: u64 = 64 << 20;

/// Refuses what needs more bytes than are free; where that cannot be told, nothing is refused.
pub fn check(what: &str, needed: u64) -> Result<(), Failure> {
    if needed < LARGE {
        return Ok(());
    }
    match free() {
        Some(free) if needed > free => Err(Failure::by_surroundings(format!(
            "{what} needs about {} of memory and {} are free on {}: ask for fewer draws, or fewer slots a machine \
             (--workers, or ntasks_per_node of the card)",
            size(needed),
            size(free),
            super::execute::host_name(),
        ))),
        _ => Ok(()),
    }
}

/// Bytes that this process may still take: of the machine, of its control group, of its address space.
fn free() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| of_machine(&text));
    let group = read("/proc/self/cgroup").and_then(|text| {
        let dir = format!("/sys/fs/cgroup{}", text.lines().find_map(|line| line.strip_prefix("0::"))?);
        of_group(&read(&format!("{dir}/memory.max"))?, &read(&format!("{dir}/memory.current"))?)
    });
    let space = read("/proc/self/limits").and_then(|text| {
        let pages: u64 = read("/proc/self/statm")?.split_whitespace().next()?.parse().ok()?;
        of_address_space(&text, pages * rustix::param::page_size() as u64)
    });
    [machine, group, space].into_iter().flatten().min()
}

/// `MemAvailable` of /proc/meminfo (proc(5)), in bytes.
fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

/// What a control group of version 2 leaves; `max` is no limit.
fn of_group(max: &str, current: &str) -> Option<u64> {
    let max: u64 = max.trim().parse().ok()?;
    Some(max.saturating_sub(current.trim().parse().ok()?))
}

/// What `ulimit -v` leaves (`Max address space` of /proc/self/limits).
fn of_address_space(limits: &str, taken: u64) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_read_from_the_system() {
        let meminfo = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(of_machine(meminfo), Some(20_480_000_000));
        assert_eq!(of_machine("MemFree: 1 kB\n"), None);
        assert_eq!(of_group("1000\n", "400\n"), Some(600));
        assert_eq!(of_group("max\n", "400\n"), None);
        let limits =
            "Limit Soft Hard Units\nMax address space         5000000              unlimited  bytes\n";
        assert_eq!(of_address_space(limits, 1_000_000), Some(4_000_000));
        let unlimited = "Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(of_address_space(unlimited, 1), None);
    }

    #[test]
    fn what_fits_on_no_machine_is_refused_with_advice() {
        assert!(check("a chain", 1).is_ok());
        let refused = check("a chain", u64::MAX / 2).unwrap_err();
        assert!(!refused.settled && refused.reason.contains("--workers"), "{refused:?}");
    }
}
