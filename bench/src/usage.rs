//! CPU time and memory of this and of other processes.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// User plus system time of this process, all threads, in seconds.
pub(crate) fn own_cpu_seconds() -> f64 {
    let at = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(at.tv_sec.unsigned_abs(), at.tv_nsec as u32).as_secs_f64()
}

/// User plus system time of a process, in seconds; the kernel tells it in steps of 10 ms.
pub(crate) fn cpu_seconds(pid: &str) -> f64 {
    seconds_of_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap())
}

/// The CPU seconds of each thread of this process whose name begins with `name`.
pub(crate) fn thread_cpu_seconds(name: &str) -> Vec<f64> {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let named = threads.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(name)));
    named.filter_map(|path| fs::read_to_string(path.join("stat")).ok()).map(|stat| seconds_of_stat(&stat)).collect()
}

fn seconds_of_stat(stat: &str) -> f64 {
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    [11, 12].iter().map(|field| fields[*field].parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// The most memory that a process (`self` or a number) has had resident, in MiB.
pub(crate) fn peak_rss_mib(pid: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1_024.0
}

/// Runs `work` and returns how many of `count` it did per CPU-second of this process.
pub(crate) fn per_cpu_second(count: u64, work: impl FnOnce()) -> f64 {
    let before = own_cpu_seconds();
    work();
    count as f64 / (own_cpu_seconds() - before)
}

/// Waits until the threads of this process have come to rest: until then they still work on what they were given.
pub(crate) fn rest() {
    at_rest(Duration::from_millis(100), own_cpu_seconds);
}

/// The same of another process.
pub(crate) fn settle(pid: &str) {
    at_rest(Duration::from_millis(400), || cpu_seconds(pid));
}

fn at_rest(look: Duration, spent: impl Fn() -> f64) {
    let mut quiet = 0;
    while quiet < 3 {
        let before = spent();
        std::thread::sleep(look);
        // Clients that keep connections alive are never quite still.
        quiet = if spent() - before < 0.05 * look.as_secs_f64() { quiet + 1 } else { 0 };
    }
}
