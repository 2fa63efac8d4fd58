//! Which files to make one, and which to let go. Pure: the archiver acts.

use schemas::Millis;

use super::day::{day_of, day_start};
use super::manifest::{ArchiveFile, Garbage, Manifest};

/// So many files of a like size become one.
const FAN_IN: usize = 8;
/// A file that was made of others has at most so many rows.
const FILE_ROWS: u64 = 1_000_000;
/// And at most so many bytes, unless it is of one file.
const FILE_BYTES: u64 = 128 << 20;
/// Files of a day to which nothing was added for so long, by the log clock, become as few as they can.
const QUIET_MS: i64 = 36 * 3_600_000;

/// Replaced files lie there so long, for readers that have begun.
pub(super) const GARBAGE_MS: i64 = 3_600_000;
/// A file that nobody knows is removed when it is so old: whoever wrote it has not committed it and will not.
pub(super) const UNKNOWN_MS: i64 = 24 * 3_600_000;

/// The next files to make one: neighbours of one day, at least two.
///
/// Of files that grow by eights each row is rewritten once for each size; a day that is quiet is made whole.
pub(super) fn to_compact(manifest: &Manifest) -> Option<Vec<ArchiveFile>> {
    let clock = manifest.head.clock?;
    manifest.files.chunk_by(|a, b| a.day == b.day).find_map(|files| {
        let is_quiet = files.iter().all(|file| file.append_time.1.plus(QUIET_MS) < clock);
        if is_quiet {
            return run(files, u32::MAX, 2, usize::MAX);
        }
        let mut sizes: Vec<u32> = files.iter().map(size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes.into_iter().find_map(|size| run(files, size, FAN_IN, FAN_IN))
    })
}

/// A power of eight of its rows.
fn size(file: &ArchiveFile) -> u32 {
    file.rows.max(1).ilog2() / 3
}

/// The first neighbours no larger than a size, from `least` to `most` of them, that fit in one file.
fn run(files: &[ArchiveFile], largest: u32, least: usize, most: usize) -> Option<Vec<ArchiveFile>> {
    let mut found: Vec<ArchiveFile> = Vec::new();
    for file in files {
        let (rows, bytes) = found.iter().fold((file.rows, file.bytes), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
        let fits = size(file) <= largest && rows <= FILE_ROWS && bytes <= FILE_BYTES;
        if !fits {
            if found.len() >= least {
                return Some(found);
            }
            found.clear();
            if size(file) > largest {
                continue;
            }
        }
        found.push(file.clone());
        if found.len() >= most {
            return Some(found);
        }
    }
    (found.len() >= least).then_some(found)
}

/// Files whose day and append times are all older than the retention, by the log clock; none for 0.
pub(super) fn expired(manifest: &Manifest, retention_ms: i64) -> Vec<ArchiveFile> {
    let Some(clock) = manifest.head.clock.filter(|_| retention_ms > 0) else { return Vec::new() };
    let keep_from = day_start(day_of(clock.plus(-retention_ms)));
    let is_old = |file: &&ArchiveFile| day_start(file.day.saturating_add(1)) <= keep_from && file.append_time.1 < keep_from;
    manifest.files.iter().filter(is_old).cloned().collect()
}

/// Replaced files that no reader has open any more.
pub(super) fn unused(garbage: &[Garbage], now: Millis) -> Vec<Garbage> {
    garbage.iter().filter(|one| one.since.plus(GARBAGE_MS) <= now).cloned().collect()
}

#[cfg(test)]
mod tests {
    use schemas::Offset;

    use super::super::manifest::ArchiveHead;
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn file(day: i32, from: u64, rows: u64) -> ArchiveFile {
        let at = day_start(day);
        ArchiveFile {
            day,
            from: Offset(from),
            to: Offset(from + 1),
            hash: format!("{from:016x}"),
            rows,
            events: rows,
            bytes: rows,
            ts: None,
            append_time: (at, at),
        }
    }

    fn manifest(clock: i64, files: Vec<ArchiveFile>) -> Manifest {
        Manifest { head: ArchiveHead { clock: Some(Millis(clock)), ..ArchiveHead::default() }, files }
    }

    fn froms(files: Option<Vec<ArchiveFile>>) -> Vec<u64> {
        files.into_iter().flatten().map(|file| file.from.0).collect()
    }

    #[test]
    fn eight_neighbours_of_a_size_become_one_and_large_ones_are_left() {
        let small = |n| (0..n).map(|from| file(0, from, 100)).collect::<Vec<_>>();
        assert_eq!(to_compact(&manifest(0, small(7))), None);
        assert_eq!(froms(to_compact(&manifest(0, small(9)))), (0..8).collect::<Vec<_>>());
        let mut mixed = vec![file(0, 0, 100_000)];
        mixed.extend((1..9).map(|from| file(0, from, 100)));
        assert_eq!(froms(to_compact(&manifest(0, mixed))), (1..9).collect::<Vec<_>>());
        let full: Vec<_> = (0..20).map(|from| file(0, from, 900_000)).collect();
        assert_eq!(to_compact(&manifest(0, full)), None);
        let days: Vec<_> = (0..20).map(|day| file(day, 0, 10)).collect();
        assert_eq!(to_compact(&manifest(0, days)), None, "a file holds one day");
    }

    #[test]
    fn a_quiet_day_becomes_as_few_files_as_it_can() {
        let files = vec![file(0, 0, 400_000), file(0, 1, 10), file(0, 2, 700_000), file(0, 3, 5)];
        assert_eq!(to_compact(&manifest(DAY_MS, files.clone())), None);
        assert_eq!(froms(to_compact(&manifest(2 * DAY_MS, files))), [0, 1]);
        assert_eq!(to_compact(&manifest(9 * DAY_MS, vec![file(0, 0, 1)])), None);
    }

    #[test]
    fn an_old_day_goes_and_an_import_of_an_old_day_stays_as_long() {
        let mut imported = file(0, 1, 1);
        imported.append_time = (day_start(9), day_start(9));
        let all = manifest(10 * DAY_MS, vec![file(0, 0, 1), imported, file(9, 2, 1)]);
        let gone = |retention_ms| froms(Some(expired(&all, retention_ms)));
        assert!(gone(0).is_empty());
        assert_eq!(gone(9 * DAY_MS), [0]);
        assert!(gone(10 * DAY_MS).is_empty());
    }
}
