//! CPU time and memory of a process, from `/proc`.

use std::fs;

/// User plus system time of a process (`self` or a number), in seconds; the kernel counts it in 10 ms steps.
pub(crate) fn cpu_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: f64 = [11, 12].iter().map(|field| fields[*field].parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// The most memory that a process has had resident, in MiB.
pub(crate) fn peak_rss_mib(process: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
}

/// Runs `work` and returns how many of `count` it did per CPU-second of this process.
pub(crate) fn per_cpu_second(count: usize, work: impl FnOnce()) -> f64 {
    let before = cpu_seconds("self");
    work();
    count as f64 / (cpu_seconds("self") - before).max(0.01)
}
