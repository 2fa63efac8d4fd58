//! The archive is the log: what is read back folds to the same cells, whatever happens between.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod kept;
mod logs;

use std::ops::ControlFlow;

use aggregator::archive::draft::DraftFile;
use aggregator::archive::forget::Forgotten;
use aggregator::archive::manifest::Forgetting;
use aggregator::archive::piece::{Piece, pieces};
use aggregator::archive::{ArchiveHead, BucketOptions, Draft, Manifest, RangeBounds, Reader, Shelf};
use logs::{Entry, fold, log};
use proptest::prelude::*;
use schemas::{Event, Millis, Offset, Source};

const SOURCE: Source = Source(3);

/// The files of a log in ranges of so many rows.
fn files(log: &[Entry], rows: usize, forgotten: &Forgotten) -> Vec<DraftFile> {
    let bounds = RangeBounds { rows, ..RangeBounds::default() };
    let (mut files, mut clock) = (Vec::new(), None);
    let mut draft = Draft::new(SOURCE, Offset(0), clock, bounds, forgotten.clone());
    for (offset, entry) in (0..).zip(log) {
        if draft.is_full() {
            clock = draft.clock();
            let next = Draft::new(SOURCE, draft.next(), clock, bounds, forgotten.clone());
            files.extend(std::mem::replace(&mut draft, next).finish().unwrap());
        }
        draft.push(&entry.at(offset));
    }
    files.extend(draft.finish().unwrap());
    files
}

/// Reads `[from, to)` back, so many records at a time.
async fn read_back(files: Vec<DraftFile>, from: u64, to: u64, at_once: usize) -> Vec<(u64, Entry)> {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().to_str().unwrap(), &BucketOptions::default()).unwrap();
    let mut manifest = Manifest { head: ArchiveHead { end: Offset(u64::MAX), ..ArchiveHead::default() }, files: Vec::new() };
    for DraftFile { file, content } in files {
        shelf.put(&file.path(SOURCE), content).await.unwrap();
        manifest.files.push(file);
    }
    let mut reader = Reader::new(shelf, SOURCE, &manifest, Offset(from), Offset(to)).unwrap();
    let mut read = Vec::new();
    while reader
        .lend(at_once, &mut |record| {
            read.push((record.offset.0, Entry::of(&record)));
            ControlFlow::Continue(())
        })
        .await
        .unwrap()
    {}
    read
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_read_back_folds_to_the_same_cells(log in log(), rows in 1usize..200, at_once in 1usize..9) {
        let read = block_on(read_back(files(&log, rows, &Forgotten::default()), 0, log.len() as u64, at_once));
        prop_assert_eq!(read.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..log.len() as u64).collect::<Vec<_>>());
        for ((offset, read), entry) in read.iter().zip(&log) {
            prop_assert_eq!((read.append_time, read.historical), (entry.append_time, entry.historical));
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            pieces(&entry.at(*offset), |piece| ours.push(said(&piece)));
            pieces(&read.at(*offset), |piece| theirs.push(said(&piece)));
            prop_assert_eq!(ours, theirs);
        }
        let archived = read.iter().map(|(offset, entry)| entry.at(*offset));
        prop_assert_eq!(fold((0..).zip(&log).map(|(offset, entry)| entry.at(offset))), fold(archived));
    }

    #[test]
    fn a_stretch_of_an_archive_is_that_stretch_of_the_whole(log in log(), rows in 1usize..60, a in 0u64..25, b in 0u64..25) {
        let files = files(&log, rows, &Forgotten::default());
        let whole = block_on(read_back(files.clone(), 0, 100, 100));
        let stretch = block_on(read_back(files, a, b, 2));
        let expected: Vec<_> = whole.into_iter().filter(|(offset, _)| (a..b).contains(offset)).collect();
        prop_assert_eq!(stretch, expected);
    }

    #[test]
    fn the_same_range_is_the_same_files_and_each_row_lies_in_its_day(log in log(), rows in 1usize..200) {
        let made = files(&log, rows, &Forgotten::default());
        prop_assert_eq!(&made, &files(&log, rows, &Forgotten::default()));
        let mut expected = 0;
        for (offset, entry) in (0..).zip(&log) {
            pieces(&entry.at(offset), |_| expected += 1);
        }
        prop_assert_eq!(made.iter().map(|file| file.file.rows).sum::<u64>(), expected);
        for DraftFile { file, .. } in &made {
            prop_assert!(file.ts.is_none_or(|(first, last)| first <= last) && file.append_time.0 <= file.append_time.1);
        }
    }

    #[test]
    fn who_is_forgotten_is_nowhere_and_the_counts_are_the_same(log in log(), rows in 1usize..200) {
        let forgotten = Forgotten::new(&[Forgetting { viewer_id: "u1".into(), until: Millis(i64::MAX), scanned: None, is_done: false }]);
        let read = block_on(read_back(files(&log, rows, &forgotten), 0, log.len() as u64, 100));
        for (offset, entry) in &read {
            let mut found = false;
            pieces(&entry.at(*offset), |piece| found |= matches!(&piece, Piece::Event(Event { viewer_id: Some(id), .. }, _) if id == "u1"));
            pieces(&entry.at(*offset), |piece| found |= matches!(&piece, Piece::Rejected(_, raw) if raw.windows(2).any(|two| two == b"u1")));
            prop_assert!(!found, "{offset}");
        }
        let archived = fold(read.iter().map(|(offset, entry)| entry.at(*offset)));
        let live = fold((0..).zip(&log).map(|(offset, entry)| entry.at(offset)));
        prop_assert_eq!((archived.0, archived.1), (live.0, live.1));
        prop_assert_eq!(archived.2.tally.events(), live.2.tally.events());
    }
}

/// What a piece says, whatever form its record has.
fn said(piece: &Piece<'_>) -> Vec<u8> {
    match piece {
        Piece::Event(event, others) => schemas::view_batch::Whole { event: event.clone(), others: others.as_deref() }.to_json(),
        Piece::Rejected(reason, raw) => [reason.as_str().as_bytes(), raw].concat(),
        Piece::Payload(payload) => payload.to_vec(),
    }
}
