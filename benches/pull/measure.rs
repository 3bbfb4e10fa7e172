//! What the kernel says of processes and sockets.

use std::fs;
use std::io;

use crate::Result;

/// CPU seconds, user and system, of a process and its children so far.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let ticks: u64 = family(pid)?.into_iter().map(ticks).sum::<Result<u64>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The most memory that a process and its children had resident, in bytes.
pub(crate) fn peak_resident(pid: u32) -> Result<u64> {
    family(pid)?.into_iter().map(peak).sum()
}

/// Memory that the kernel has for all TCP sockets of the machine, in bytes.
pub(crate) fn socket_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let pages: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP:")?.split_once(" mem "))
        .and_then(|(_, pages)| pages.trim().parse().ok())
        .ok_or("/proc/net/sockstat does not tell TCP's memory")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// A process and those that it started.
fn family(pid: u32) -> io::Result<Vec<u32>> {
    let mut family = vec![pid];
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may have ended since.
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace();
        family.extend(children.filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(family)
}

fn ticks(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have spaces: the state, and eleven fields later user and system time.
    let (_, behind) = text.rsplit_once(") ").ok_or("/proc/…/stat has no name")?;
    let times = behind.split(' ').skip(11).take(2);
    let times = times
        .map(str::parse::<u64>)
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(times.iter().sum())
}

fn peak(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse().ok())
        .ok_or("/proc/…/status has no VmHWM")?;
    Ok(kib * 1024)
}
