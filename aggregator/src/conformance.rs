//! What every store must do, as one suite of claims over any [`CountStore`].
//!
//! Each claim is a function that is given a store which holds nothing yet, writes to it and panics where the store does
//! otherwise. A store's test runs [`all`] with a way to make such stores, and [`fill`] and [`is_filled`] around a restart.
//!
//! Extremes are those of the protocol: offsets and sources have 63 and 31 bits, as Kafka's have, and a stamp is a write timestamp. Rows of one
//! cell with equal stamps are equal, so nothing is claimed of others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "claims fail by panicking; only tests call them"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use schemas::adjustment::VideoChanges;
use schemas::key::AllowedOrigin;
use schemas::key::token::RANDOM_BYTES;
use schemas::{
    AdjustmentEntry, AdjustmentPart, Bucket, CellKey, Checkpoint, Counts, Dimension, Entity, FoldSettings, KeyRecord, Mark, Millis, Minute,
    NewKey, Offset, PartEnd, Row, Scope, Source, Stamp, StoredRow, Tally, Tier, Token,
};

use crate::archive::{ArchiveChange, ArchiveFile, ArchiveHead, Manifest};
use crate::store::{BucketPage, BucketRow, CountStore, ImportProgress, Slice, SliceRow, SpaceInfo, Touched, VideoInfo};

/// The largest offset and count.
const MOST: u64 = i64::MAX.cast_unsigned();
/// The last source.
const LAST_SOURCE: Source = Source(i32::MAX.cast_unsigned());

/// A store under test.
pub type Store = Arc<dyn CountStore>;

/// Every claim, each over a store of its own from `fresh`.
pub async fn all(fresh: impl AsyncFn() -> Store) {
    what_was_never_written_is_none(fresh().await).await;
    rows_read_back_whole(fresh().await).await;
    answers_come_in_the_order_of_the_keys(fresh().await).await;
    ten_thousand_keys_are_one_call(fresh().await).await;
    a_lower_stamp_never_replaces_a_higher(fresh().await).await;
    an_equal_stamp_changes_nothing(fresh().await).await;
    of_one_cell_in_one_call_the_highest_stamp_stays(fresh().await).await;
    of_all_rows_of_a_cell_the_highest_stamp_stays_in_whatever_calls_they_came(fresh().await).await;
    a_mark_goes_with_its_state(fresh().await).await;
    a_slice_is_its_buckets_and_no_other(fresh().await).await;
    a_slice_comes_by_bucket_then_source(fresh().await).await;
    slices_of_nothing_are_empty(fresh().await).await;
    hours_and_days_of_videos_and_spaces_are_kept_by_bucket_too(fresh().await).await;
    pages_of_a_bucket_come_in_the_order_of_the_ids_bytes(fresh().await).await;
    a_page_is_of_one_bucket_dimension_and_source(fresh().await).await;
    a_bucket_holds_the_longest_names_with_marks(fresh().await).await;
    touched_days_keep_the_highest_stamp(fresh().await).await;
    concurrent_writers_end_with_the_highest_stamp(fresh().await).await;
    checkpoints_keep_the_highest_stamp(fresh().await).await;
    videos_spaces_and_imports_keep_the_last_write(fresh().await).await;
    keys_read_back_whole_and_by_id(fresh().await).await;
    a_revocation_is_never_taken_back(fresh().await).await;
    an_archive_changes_from_the_version_that_was_read_or_not_at_all(fresh().await).await;
    of_two_changes_of_an_archive_at_once_one_is_made(fresh().await).await;
    of_adjustments_with_one_name_the_first_stays_with_its_parts(fresh().await).await;
    adjustments_are_listed_from_the_last_and_page_by_page(fresh().await).await;
    that_a_part_was_taken_is_never_taken_back(fresh().await).await;
    a_filled_store_reads_back(fresh().await).await;
}

/// Files that come and go with the head, for each source apart.
pub async fn an_archive_changes_from_the_version_that_was_read_or_not_at_all(store: Store) {
    let (one, other) = (Source(0), Source(7));
    assert_eq!(store.read_archive(one).await.unwrap(), Manifest::default());
    let change = |version, added: &[ArchiveFile], removed: &[ArchiveFile]| ArchiveChange {
        head: archive_head(version),
        added: added.to_vec(),
        removed: removed.to_vec(),
    };
    let (a, b, c) = (archive_file(-1, 0, "a"), archive_file(0, 0, "b"), archive_file(0, 50, "c"));
    assert!(!store.commit_archive(one, change(2, &[], &[])).await.unwrap(), "there is no version 1");
    assert!(store.commit_archive(one, change(1, &[], &[])).await.unwrap());
    assert_eq!(store.read_archive(one).await.unwrap(), Manifest { head: archive_head(1), files: Vec::new() });
    assert!(store.commit_archive(one, change(2, &[c.clone(), b.clone(), a.clone()], &[])).await.unwrap());
    for stale in [1, 2, 4] {
        assert!(!store.commit_archive(one, change(stale, &[archive_file(9, 9, "x")], std::slice::from_ref(&a))).await.unwrap());
    }
    let whole = Manifest { head: archive_head(2), files: vec![a.clone(), b.clone(), c.clone()] };
    assert_eq!(store.read_archive(one).await.unwrap(), whole);
    assert_eq!(store.read_archive(other).await.unwrap(), Manifest::default());
    let merged = ArchiveFile { to: c.to, ..archive_file(0, 0, "d") };
    assert!(store.commit_archive(one, change(3, std::slice::from_ref(&merged), &[b, c])).await.unwrap());
    assert_eq!(store.read_archive(one).await.unwrap(), Manifest { head: archive_head(3), files: vec![a, merged] });
}

/// However many there are.
pub async fn of_two_changes_of_an_archive_at_once_one_is_made(store: Store) {
    for version in 1..4 {
        let change = |n: u64| ArchiveChange {
            head: ArchiveHead { end: Offset(n), ..archive_head(version) },
            added: vec![archive_file(1, version * 100 + n, "f")],
            removed: Vec::new(),
        };
        // An answer that did not come says nothing: then it is read.
        let made = join_all((0..4).map(|n| store.commit_archive(Source(1), change(n)))).await;
        assert!(made.iter().filter(|made| matches!(made, Ok(true))).count() <= 1, "{made:?}");
        let found = store.read_archive(Source(1)).await.unwrap();
        if found.head.version < version {
            assert!(store.commit_archive(Source(1), change(9)).await.unwrap(), "{made:?}");
        }
        let found = store.read_archive(Source(1)).await.unwrap();
        assert_eq!((found.head.version, found.files.len() as u64), (version, version));
        assert_eq!(found.files.last().map(|file| file.from.0), Some(version * 100 + found.head.end.0));
    }
}

/// No row, no rows, no checkpoint, no video, no import, no key.
pub async fn what_was_never_written_is_none(store: Store) {
    assert_eq!(store.read_cells(vec![minute("v", 0, 0), hour("v", 0, 0)]).await.unwrap(), [None, None]);
    assert_eq!(store.read_checkpoints().await.unwrap(), []);
    assert_eq!(store.read_video("v".into()).await.unwrap(), None);
    assert_eq!(store.read_space("s".into()).await.unwrap(), None);
    assert_eq!(store.read_import("0f".into()).await.unwrap(), None);
    assert_eq!(store.read_touched().await.unwrap(), []);
    assert_eq!(store.read_keys().await.unwrap(), []);
    assert_eq!(store.read_bucket(page(Dimension::Video, Tier::Hour.bucket(Minute(0)), 0)).await.unwrap(), []);
    store.write_rows(Arc::new(vec![(minute("v", 0, 0), row(1, 1))])).await.unwrap();
    let neighbours = vec![minute("v", 1, 0), minute("v", 0, 1), minute("w", 0, 0), hour("v", 0, 0), space("v", 0)];
    assert_eq!(store.read_cells(neighbours).await.unwrap(), [None; 5]);
}

/// Every field at its extremes, in every tier and dimension.
pub async fn rows_read_back_whole(store: Store) {
    let rows = odd_rows();
    store.write_rows(Arc::new(rows.clone())).await.unwrap();
    let (keys, written): (Vec<_>, Vec<_>) = rows.into_iter().map(|(key, row)| (key, Some(row))).unzip();
    assert_eq!(store.read_cells(keys).await.unwrap(), written);
}

/// One answer for each key, also for a key asked for twice.
pub async fn answers_come_in_the_order_of_the_keys(store: Store) {
    store.write_rows(Arc::new((0..5).map(|n| (minute("v", n, 0), row(i64::from(n), 1))).collect())).await.unwrap();
    let keys = [3, 0, 9, 3, 4, 0].map(|n| minute("v", n, 0)).to_vec();
    let stamps: Vec<_> = store.read_cells(keys).await.unwrap().into_iter().map(|row| row.map(|row| row.stamp.0)).collect();
    assert_eq!(stamps, [Some(3), Some(0), None, Some(3), Some(4), Some(0)]);
    assert_eq!(store.read_cells(Vec::new()).await.unwrap(), []);
    store.write_rows(Arc::new(Vec::new())).await.unwrap();
}

/// Large calls are whole.
pub async fn ten_thousand_keys_are_one_call(store: Store) {
    let rows: Vec<_> = (0..10_000i32).map(|n| (minute(&format!("v{}", n % 97), n, 0), row(i64::from(n), i64::from(n)))).collect();
    store.write_rows(Arc::new(rows.clone())).await.unwrap();
    let keys = rows.iter().rev().map(|(key, _)| key.clone()).collect();
    let expected: Vec<_> = rows.iter().rev().map(|(_, row)| Some(*row)).collect();
    assert_eq!(store.read_cells(keys).await.unwrap(), expected);
}

/// Whatever comes first.
pub async fn a_lower_stamp_never_replaces_a_higher(store: Store) {
    let (rising, falling) = (minute("rising", 0, 0), hour("falling", 0, 0));
    for (stamp, gross) in [(-5, 1), (0, 2), (7, 3)] {
        store.write_rows(Arc::new(vec![(rising.clone(), row(stamp, gross))])).await.unwrap();
        assert_eq!(read(&store, &rising).await, Some(row(stamp, gross)));
    }
    for (stamp, gross) in [(7, 3), (0, 2), (-5, 1), (-1_000_000, 0)] {
        store.write_rows(Arc::new(vec![(falling.clone(), row(stamp, gross))])).await.unwrap();
        assert_eq!(read(&store, &falling).await, Some(row(7, 3)));
    }
    // A stale row does not keep its neighbours in the same call from being written.
    store.write_rows(Arc::new(vec![(falling.clone(), row(1, 9)), (rising.clone(), row(8, 4))])).await.unwrap();
    assert_eq!(read(&store, &falling).await, Some(row(7, 3)));
    assert_eq!(read(&store, &rising).await, Some(row(8, 4)));
}

/// A repeated write.
pub async fn an_equal_stamp_changes_nothing(store: Store) {
    let key = minute("v", 0, 0);
    for gross in [1, 1] {
        store.write_rows(Arc::new(vec![(key.clone(), row(5, gross))])).await.unwrap();
        assert_eq!(read(&store, &key).await, Some(row(5, 1)));
    }
}

/// In whatever order they lie in the call.
pub async fn of_one_cell_in_one_call_the_highest_stamp_stays(store: Store) {
    let key = minute("v", 0, 0);
    store.write_rows(Arc::new([3, 9, 4].map(|stamp| (key.clone(), row(stamp, stamp))).to_vec())).await.unwrap();
    assert_eq!(read(&store, &key).await, Some(row(9, 9)));
}

/// Sources that are far behind others, calls that repeat a cell, calls that mix old rows with new: as if each row had been compared.
pub async fn of_all_rows_of_a_cell_the_highest_stamp_stays_in_whatever_calls_they_came(store: Store) {
    let keys: Vec<_> = (0..6).flat_map(|n| (0..3).flat_map(move |source| [minute("v", n, source), hour("v", n * 60, source)])).collect();
    let mut expected = vec![None; keys.len()];
    let mut dice = 1_u64;
    let mut throw = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    for call in 0..60 {
        let rows: Vec<_> = (0..throw(12))
            .map(|_| {
                let at = usize::try_from(throw(36)).unwrap();
                // Most stamps are new of their source; the rest lie anywhere below. Sources have clocks of their own.
                let newest = 100 * (call + 1) * (i64::from(keys[at].source.0) + 1);
                let age = if throw(3) == 0 { throw(2_000) } else { throw(100) };
                let stamp = newest - i64::try_from(age).unwrap();
                expected[at] = expected[at].max(Some(stamp));
                (keys[at].clone(), row(stamp, stamp))
            })
            .collect();
        store.write_rows(Arc::new(rows)).await.unwrap();
        let read: Vec<_> = store.read_cells(keys.clone()).await.unwrap();
        assert_eq!(read, expected.iter().map(|stamp| stamp.map(|stamp| row(stamp, stamp))).collect::<Vec<_>>(), "call {call}");
        assert_kept_by_bucket(&store, &keys).await;
    }
}

/// A state is whole: a later one without a mark has none, whatever came before it or comes late.
pub async fn a_mark_goes_with_its_state(store: Store) {
    let marked = |stamp| {
        let mut marked = row(stamp, stamp);
        marked.row.mark = Some(Mark { offset: Offset(7), since: Counts::VIEW });
        marked
    };
    for key in [minute("v", 0, 0), hour("v", 0, 0)] {
        for (written, kept) in
            [(marked(5), marked(5)), (row(9, 9), row(9, 9)), (marked(7), row(9, 9)), (marked(11), marked(11)), (row(10, 10), marked(11))]
        {
            store.write_rows(Arc::new(vec![(key.clone(), written)])).await.unwrap();
            assert_eq!(read(&store, &key).await, Some(kept), "{key}");
        }
    }
}

/// `[start, end)` of one entity and tier: no cell of an entity with a common prefix, another dimension or another tier.
pub async fn a_slice_is_its_buckets_and_no_other(store: Store) {
    let ids = ["a", "ab", "a b", "b", "a\u{e9}", "\u{10ffff}"];
    let mut rows = Vec::new();
    for (n, id) in (1i64..).zip(ids) {
        for dimension in [Dimension::Video, Dimension::Space] {
            for tier in Tier::ALL {
                for bucket in buckets_around_1970(tier) {
                    let key = CellKey { entity: Entity::new(dimension, id), bucket, source: Source(0) };
                    let gross = n * 100_000 + i64::from(dimension.code()) * 10_000 + i64::from(tier.code());
                    rows.push((key, row(1, gross)));
                }
            }
        }
    }
    store.write_rows(Arc::new(rows.clone())).await.unwrap();
    let entity = Entity::new(Dimension::Video, "a");
    for tier in Tier::ALL {
        let buckets = buckets_around_1970(tier);
        for (from, to) in [(0, 5), (1, 4), (2, 3), (0, 1), (4, 5)] {
            // An end that is one minute after a bucket's start takes that bucket in.
            for (end, to) in [(buckets[to].start, to), (buckets[to].start.plus(1), to + 1)] {
                let slice = Slice { entity: entity.clone(), tier, start: buckets[from].start, end };
                let found: Vec<_> = store.read_slice(slice).await.unwrap().into_iter().map(|row| row.start).collect();
                let expected: Vec<_> = buckets[from..to].iter().map(|bucket| bucket.start).collect();
                assert_eq!(found, expected, "{tier:?} {from} {to}");
            }
        }
    }
    let everything = Slice { entity, tier: Tier::Hour, start: Minute(i32::MIN), end: Minute(i32::MAX) };
    let found = store.read_slice(everything).await.unwrap();
    assert!(found.iter().all(|row| row.stored.row.counts.gross == 100_001), "{found:?}");
    assert_eq!(found.len(), 6);
}

/// Sources side by side within a bucket.
pub async fn a_slice_comes_by_bucket_then_source(store: Store) {
    let sources = [0, 1, 255, 256, LAST_SOURCE.0];
    let minutes = [-3, -1, 0, 2];
    let mut cells: Vec<_> = minutes.iter().flat_map(|minute| sources.map(|source| (*minute, source))).collect();
    let expected: Vec<_> = cells
        .iter()
        .map(|(start, source)| SliceRow {
            start: Minute(*start),
            source: Source(*source),
            stored: row(i64::from(*start), i64::from(*source)),
        })
        .collect();
    cells.reverse();
    let rows = cells.iter().map(|(at, source)| (minute("v", *at, *source), row(i64::from(*at), i64::from(*source)))).collect();
    store.write_rows(Arc::new(rows)).await.unwrap();
    let slice = Slice { entity: Entity::new(Dimension::Video, "v"), tier: Tier::Minute, start: Minute(-3), end: Minute(3) };
    assert_eq!(store.read_slice(slice).await.unwrap(), expected);
}

/// No width, a width below nothing, nothing in it.
pub async fn slices_of_nothing_are_empty(store: Store) {
    store.write_rows(Arc::new(vec![(minute("v", 5, 0), row(1, 1))])).await.unwrap();
    for (start, end) in [(5, 5), (6, 4), (6, 9), (0, 5), (i32::MAX, i32::MIN)] {
        let slice = Slice { entity: Entity::new(Dimension::Video, "v"), tier: Tier::Minute, start: Minute(start), end: Minute(end) };
        assert_eq!(store.read_slice(slice).await.unwrap(), [], "{start} {end}");
    }
}

/// The same rows, and those alone: no minutes, no years, nothing of the site. A lower stamp replaces them no more than it does there.
pub async fn hours_and_days_of_videos_and_spaces_are_kept_by_bucket_too(store: Store) {
    let rows = odd_rows();
    store.write_rows(Arc::new(rows.clone())).await.unwrap();
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.clone()).collect();
    assert_kept_by_bucket(&store, &keys).await;
    let lower = |(key, written): &(CellKey, StoredRow)| (key.clone(), StoredRow { stamp: Stamp(written.stamp.0 - 1), ..row(0, 77) });
    store.write_rows(Arc::new(rows.iter().map(lower).collect())).await.unwrap();
    assert_kept_by_bucket(&store, &keys).await;
    let higher = |(key, written): &(CellKey, StoredRow)| (key.clone(), row(written.stamp.0 + 1, 78));
    store.write_rows(Arc::new(rows.iter().map(higher).collect())).await.unwrap();
    assert_kept_by_bucket(&store, &keys).await;
}

/// By bytes and not by any alphabet; behind any id, also one that is not there, and through pages of any length.
pub async fn pages_of_a_bucket_come_in_the_order_of_the_ids_bytes(store: Store) {
    let mut ids = ["a", "ab", "a b", "A", "b", "a\u{e9}", "\u{10ffff}", " ", "~", "\u{e9}", "\u{ffff}"].map(str::to_owned).to_vec();
    ids.extend((0..5_020).map(|n| format!("v{n}")));
    store.write_rows(Arc::new((0i64..).zip(&ids).map(|(n, id)| (hour(id, 0, 0), row(n, n))).collect())).await.unwrap();
    let mut expected: Vec<_> = (0i64..).zip(ids).map(|(n, id)| BucketRow { id: id.as_str().into(), stored: row(n, n) }).collect();
    expected.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    let first = page(Dimension::Video, Tier::Hour.bucket(Minute(0)), 0);
    for limit in [1_000, 5_000, 5_031, 6_000, usize::MAX] {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let rows = store.read_bucket(BucketPage { after, limit, ..first.clone() }).await.unwrap();
            let is_last = rows.len() < limit;
            read.extend(rows);
            if is_last {
                break;
            }
            after = read.last().map(|row| Arc::clone(&row.id));
        }
        assert_eq!(read, expected, "{limit}");
    }
    let from = |after: &str, limit| BucketPage { after: Some(after.into()), limit, ..first.clone() };
    assert_eq!(
        store.read_bucket(from("a", 2)).await.unwrap(),
        expected.iter().filter(|row| &*row.id > "a").take(2).cloned().collect::<Vec<_>>()
    );
    assert_eq!(store.read_bucket(from("a", 0)).await.unwrap(), []);
    assert_eq!(
        store.read_bucket(from("v9999", 10)).await.unwrap(),
        expected.iter().filter(|row| &*row.id > "v9999").cloned().collect::<Vec<_>>()
    );
    assert_eq!(store.read_bucket(from("\u{10ffff}", 10)).await.unwrap(), []);
}

/// No row of a neighbour in any of them.
pub async fn a_page_is_of_one_bucket_dimension_and_source(store: Store) {
    let mut rows = Vec::new();
    for dimension in [Dimension::Video, Dimension::Space] {
        for bucket in [Tier::Hour, Tier::Day].into_iter().flat_map(buckets_around_1970) {
            for source in [0, 1, 255, 256, LAST_SOURCE.0].map(Source) {
                let gross = i64::try_from(rows.len()).unwrap();
                rows.push((CellKey { entity: Entity::new(dimension, "a"), bucket, source }, row(1, gross)));
            }
        }
    }
    store.write_rows(Arc::new(rows.clone())).await.unwrap();
    for (CellKey { entity, bucket, source }, stored) in rows {
        let read = store.read_bucket(page(entity.dimension, bucket, source.0)).await.unwrap();
        assert_eq!(read, [BucketRow { id: entity.id, stored }], "{bucket:?} {source}");
    }
}

/// As large as rows can be, in one call: none of it is too much for what the store takes at once.
pub async fn a_bucket_holds_the_longest_names_with_marks(store: Store) {
    let marked = |n: i64| {
        let mut marked = row(n, n);
        marked.row.mark = Some(Mark { offset: Offset(MOST), since: Counts::VIEW });
        marked
    };
    let rows: Vec<_> = (0..300).map(|n| (hour(&format!("{n:0>128}"), 0, 0), marked(n))).collect();
    store.write_rows(Arc::new(rows.clone())).await.unwrap();
    let read = store.read_bucket(page(Dimension::Video, Tier::Hour.bucket(Minute(0)), 0)).await.unwrap();
    let expected: Vec<_> = rows.into_iter().map(|(key, stored)| BucketRow { id: key.entity.id, stored }).collect();
    assert_eq!(read, expected);
}

/// By source and day, every day among them.
pub async fn touched_days_keep_the_highest_stamp(store: Store) {
    let touched = |day, stamp: i64| Touched { day, version: Offset(stamp.unsigned_abs() * 2), stamp: Stamp(stamp) };
    store.write_touched(Source(0), vec![touched(5, 7), touched(-1, 8), touched(Touched::ALL, 9)]).await.unwrap();
    store.write_touched(LAST_SOURCE, vec![touched(5, 1)]).await.unwrap();
    store.write_touched(Source(0), Vec::new()).await.unwrap();
    // Late, twice, and newer.
    for stamp in [6, 7, 10, 9] {
        store.write_touched(Source(0), vec![touched(5, stamp)]).await.unwrap();
    }
    let mut read = store.read_touched().await.unwrap();
    read.sort_by_key(|(source, touched)| (*source, touched.day));
    let expected = [touched(Touched::ALL, 9), touched(-1, 8), touched(5, 10)].map(|touched| (Source(0), touched));
    assert_eq!(read, [&expected[..], &[(LAST_SOURCE, touched(5, 1))]].concat());
}

/// Owners and zombies at once, each with its own order.
pub async fn concurrent_writers_end_with_the_highest_stamp(store: Store) {
    let key = |cell: i32| if cell % 2 == 0 { minute("v", cell, 0) } else { hour("v", cell * 60, 0) };
    let writer = |writer: i64| {
        let store = Arc::clone(&store);
        async move {
            for round in 0..10i64 {
                // Some writers rise and some fall; all stamps differ.
                let step = if writer % 2 == 0 { round } else { 9 - round };
                let stamp = step * 10 + writer;
                store.write_rows(Arc::new((0..40).map(|cell| (key(cell), row(stamp, stamp))).collect())).await.unwrap();
            }
        }
    };
    join_all((0..6).map(writer)).await;
    let rows = store.read_cells((0..40).map(key).collect()).await.unwrap();
    assert_eq!(rows, vec![Some(row(95, 95)); 40]);
    assert_kept_by_bucket(&store, &(0..40).map(key).collect::<Vec<_>>()).await;
}

/// As rows do.
pub async fn checkpoints_keep_the_highest_stamp(store: Store) {
    for (source, stamp, offset) in [(1, 5, 50), (0, 7, 70), (1, 4, 40), (1, 5, 50), (300, 1, 10), (0, 8, 80)] {
        store.write_checkpoint(Source(source), checkpoint(stamp, offset)).await.unwrap();
    }
    let expected = [(Source(0), checkpoint(8, 80)), (Source(1), checkpoint(5, 50)), (Source(300), checkpoint(1, 10))];
    assert_eq!(store.read_checkpoints().await.unwrap(), expected);
}

/// Whole, by the name as it was given.
pub async fn videos_spaces_and_imports_keep_the_last_write(store: Store) {
    let full = video("t\u{1f3ac}\"\\");
    let untitled = VideoInfo { title: None, ..full.clone() };
    for info in [VideoInfo::default(), full.clone(), untitled, full, VideoInfo::default()] {
        store.write_video("v \u{e9}".into(), info.clone()).await.unwrap();
        assert_eq!(store.read_video("v \u{e9}".into()).await.unwrap(), Some(info));
    }
    assert_eq!(store.read_video("v".into()).await.unwrap(), None);
    for events in [MOST, 3] {
        store.write_import("0f".into(), progress(events)).await.unwrap();
        assert_eq!(store.read_import("0f".into()).await.unwrap(), Some(progress(events)));
    }
    assert_eq!(store.read_video("0f".into()).await.unwrap(), None);
    for name in [Some("s\u{1f3ac}\"\\"), None, Some("")] {
        let info = SpaceInfo { name: name.map(str::to_owned) };
        store.write_space("0f".into(), info.clone()).await.unwrap();
        assert_eq!(store.read_space("0f".into()).await.unwrap(), Some(info));
    }
    assert_eq!(store.read_space("v \u{e9}".into()).await.unwrap(), None);
}

/// Every field, present and absent; however many; one that is written twice is one.
pub async fn keys_read_back_whole_and_by_id(store: Store) {
    let mut keys: Vec<_> = (0..300).map(|n| key(n * 119 % 300)).collect();
    for key in keys.iter().chain(keys.iter().take(3)) {
        store.write_key(key.clone()).await.unwrap();
    }
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.read_keys().await.unwrap(), keys);
}

/// Whoever made the key may still write it again: late, or because the first answer was lost.
pub async fn a_revocation_is_never_taken_back(store: Store) {
    let live = KeyRecord { revoked_at: None, ..key(5) };
    let revoked = KeyRecord { revoked_at: Some(Millis(77)), ..live.clone() };
    for (written, kept) in [(&live, &live), (&revoked, &revoked), (&live, &revoked), (&revoked, &revoked)] {
        store.write_key(written.clone()).await.unwrap();
        assert_eq!(store.read_keys().await.unwrap(), std::slice::from_ref(kept));
    }
    let both = [0, 1].map(|_| store.write_key(KeyRecord { revoked_at: None, ..key(6) }));
    let revoking = store.write_key(KeyRecord { revoked_at: Some(Millis(88)), ..key(6) });
    join_all(both.into_iter().chain([revoking])).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let read = store.read_keys().await.unwrap();
    assert_eq!(read.iter().filter_map(|key| key.revoked_at).count(), 2, "{read:?}");
}

/// However many make one at once.
pub async fn of_adjustments_with_one_name_the_first_stays_with_its_parts(store: Store) {
    assert_eq!(store.read_adjustment("a".into()).await.unwrap(), None);
    let made = [1, 2].map(|n| adjustment("a \u{e9}/\"", n));
    let kept = store.create_adjustment(made[0].clone(), parts(3)).await.unwrap();
    assert_eq!((&kept, &store.create_adjustment(made[1].clone(), parts(1)).await.unwrap()), (&made[0], &made[0]));
    assert_eq!(store.read_adjustment("a \u{e9}/\"".into()).await.unwrap().as_ref(), Some(&made[0]));
    for (part, expected) in (0..).zip(parts(3).iter()) {
        assert_eq!(store.read_adjustment_part(made[0].plan.clone(), part).await.unwrap().as_ref(), Some(expected));
    }
    assert_eq!(store.read_adjustment_part(made[0].plan.clone(), 3).await.unwrap(), None);
    assert_eq!(store.read_adjustment("a".into()).await.unwrap(), None);
    let many = (0..8).map(|n| store.create_adjustment(adjustment("b", n), parts(1)));
    let kept = join_all(many).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert!(kept.iter().all(|one| one == &kept[0]) && store.read_adjustment("b".into()).await.unwrap().as_ref() == Some(&kept[0]));
}

/// By time and then name, each once.
pub async fn adjustments_are_listed_from_the_last_and_page_by_page(store: Store) {
    assert_eq!(store.read_adjustments(None, 9).await.unwrap(), []);
    let mut made = Vec::new();
    for (name, at) in [("b", 5), ("a", 5), ("c", -7), ("d", 900), ("\u{e9}", 5), ("aa", 5)] {
        let entry = AdjustmentEntry { created_at: Millis(at), ..adjustment(name, 1) };
        made.push(store.create_adjustment(entry, parts(0)).await.unwrap());
        // One of the same name that comes later is nowhere.
        store.create_adjustment(AdjustmentEntry { created_at: Millis(800), ..adjustment(name, 2) }, parts(0)).await.unwrap();
    }
    made.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    for limit in [1, 2, 6, 50] {
        let (mut read, mut before) = (Vec::new(), None);
        loop {
            let page = store.read_adjustments(before, limit).await.unwrap();
            assert!(page.len() <= limit);
            before = page.last().map(|last| (last.created_at, last.id.clone()));
            let is_last = page.len() < limit;
            read.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(read, made, "{limit} at a time");
    }
}

/// In whatever order it comes.
pub async fn that_a_part_was_taken_is_never_taken_back(store: Store) {
    let entry = adjustment("a", 1);
    store.create_adjustment(entry.clone(), parts(3)).await.unwrap();
    assert_eq!(store.read_adjustment_ends(entry.plan.clone()).await.unwrap(), BTreeMap::new());
    let taken = PartEnd::Taken { offset: Offset(MOST), at: Millis(7) };
    let refused = PartEnd::Refused { detail: "\u{1f3ac}\"".into(), at: Millis(8) };
    let unknown = PartEnd::Unknown { at: Millis(9) };
    for (part, end) in [(0, &taken), (0, &refused), (1, &refused), (1, &taken), (2, &refused), (2, &unknown)] {
        store.end_adjustment_part(entry.plan.clone(), part, end.clone()).await.unwrap();
    }
    let ends = store.read_adjustment_ends(entry.plan.clone()).await.unwrap();
    assert_eq!(ends, BTreeMap::from([(0, taken.clone()), (1, taken), (2, unknown)]));
    assert_eq!(store.read_adjustment_ends(adjustment("a", 2).plan).await.unwrap(), BTreeMap::new());
    assert_eq!(store.read_adjustment_part(entry.plan, 1).await.unwrap().as_ref(), parts(3).get(1), "it changes nothing of the part");
}

async fn a_filled_store_reads_back(store: Store) {
    fill(Arc::clone(&store)).await;
    is_filled(store).await;
}

/// Writes something of everything. After a restart, [`is_filled`] holds.
pub async fn fill(store: Store) {
    store.write_rows(Arc::new(odd_rows())).await.unwrap();
    store.write_checkpoint(Source(3), checkpoint(9, 9)).await.unwrap();
    store.write_video("v".into(), video("t")).await.unwrap();
    store.write_space("v".into(), SpaceInfo { name: Some("n".into()) }).await.unwrap();
    store.write_import("0f".into(), progress(7)).await.unwrap();
    store.write_key(key(9)).await.unwrap();
    store.create_adjustment(adjustment("a", 1), parts(1)).await.unwrap();
}

/// Everything that [`fill`] wrote is there, and stamps still guard it.
pub async fn is_filled(store: Store) {
    for (key, written) in odd_rows() {
        let older = StoredRow { stamp: Stamp(written.stamp.0.saturating_sub(1)), ..row(0, 77) };
        store.write_rows(Arc::new(vec![(key.clone(), older)])).await.unwrap();
        assert_eq!(read(&store, &key).await, Some(written), "{key}");
    }
    store.write_checkpoint(Source(3), checkpoint(8, 8)).await.unwrap();
    assert_eq!(store.read_checkpoints().await.unwrap(), [(Source(3), checkpoint(9, 9))]);
    assert_eq!(store.read_video("v".into()).await.unwrap(), Some(video("t")));
    assert_eq!(store.read_space("v".into()).await.unwrap(), Some(SpaceInfo { name: Some("n".into()) }));
    assert_kept_by_bucket(&store, &odd_rows().into_iter().map(|(key, _)| key).collect::<Vec<_>>()).await;
    assert_eq!(store.read_import("0f".into()).await.unwrap(), Some(progress(7)));
    assert_eq!(store.read_keys().await.unwrap(), [key(9)]);
    assert_eq!(store.read_adjustments(None, 2).await.unwrap(), [adjustment("a", 1)]);
}

/// A minute cell of a video.
pub fn minute(video: &str, minute: i32, source: u32) -> CellKey {
    cell(Tier::Minute, video, minute, source)
}

/// The hour cell of a video that holds a minute.
pub fn hour(video: &str, minute: i32, source: u32) -> CellKey {
    cell(Tier::Hour, video, minute, source)
}

/// A row that differs from those of other stamps or counts in every field.
pub const fn row(stamp: i64, gross: i64) -> StoredRow {
    let counts = Counts { gross, valid: gross, engaged: -gross };
    let state = Row { counts, version: Offset(stamp.unsigned_abs()), through: Millis::NEVER, mark: None };
    StoredRow { stamp: Stamp(stamp), row: state }
}

/// A checkpoint.
pub fn checkpoint(stamp: i64, next_offset: u64) -> Checkpoint {
    Checkpoint {
        next_offset: Offset(next_offset),
        warm_from: Offset(next_offset / 2),
        stamp: Stamp(stamp),
        clock: Millis(stamp / 1_000),
        append_time: Millis(stamp / 1_000),
        closed: Millis::NEVER,
        adjustments: 1,
        tally: Tally { counted: next_offset, duplicate: 2, ..Tally::default() },
        settings: FoldSettings::default(),
    }
}

/// Of these cells, all that there are: those that belong there are kept by bucket with the very rows that they have, and no others.
pub async fn assert_kept_by_bucket(store: &Store, keys: &[CellKey]) {
    let rows = store.read_cells(keys.to_vec()).await.unwrap();
    let mut expected = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (key, stored) in keys.iter().zip(rows) {
        let here = expected.entry((key.entity.dimension, key.bucket, key.source)).or_default();
        let belongs = matches!(key.bucket.tier, Tier::Hour | Tier::Day) && key.entity.dimension != Dimension::Site;
        here.extend(stored.filter(|_| belongs).map(|stored| (Arc::clone(&key.entity.id), stored)));
    }
    for ((dimension, bucket, source), rows) in expected {
        let read = store.read_bucket(page(dimension, bucket, source.0)).await.unwrap();
        let rows: Vec<_> = rows.into_iter().map(|(id, stored)| BucketRow { id, stored }).collect();
        assert_eq!(read, rows, "{dimension:?} {bucket:?} {source}");
    }
}

/// Everything of a bucket.
const fn page(dimension: Dimension, bucket: Bucket, source: u32) -> BucketPage {
    BucketPage { dimension, bucket, source: Source(source), after: None, limit: usize::MAX }
}

fn archive_file(day: i32, from: u64, hash: &str) -> ArchiveFile {
    ArchiveFile {
        day,
        from: Offset(from),
        to: Offset(from + 50),
        hash: hash.to_owned(),
        rows: u64::MAX,
        events: 3,
        bytes: 1_000,
        ts: (day != 0).then_some((Millis(i64::MIN), Millis(i64::MAX))),
        append_time: (Millis(-5), Millis(7)),
    }
}

fn archive_head(version: u64) -> ArchiveHead {
    ArchiveHead {
        version,
        complete_from: Offset(3),
        end: Offset(1 << 40),
        clock: Some(Millis(17)),
        gaps: vec![(Offset(5), Offset(6))],
        ..ArchiveHead::default()
    }
}

async fn read(store: &Store, key: &CellKey) -> Option<StoredRow> {
    let rows = store.read_cells(vec![key.clone()]).await.unwrap();
    assert_eq!(rows.len(), 1);
    rows[0]
}

fn cell(tier: Tier, video: &str, minute: i32, source: u32) -> CellKey {
    CellKey { entity: Entity::new(Dimension::Video, video), bucket: tier.bucket(Minute(minute)), source: Source(source) }
}

fn space(id: &str, minute: i32) -> CellKey {
    CellKey { entity: Entity::new(Dimension::Space, id), ..self::minute("v", minute, 0) }
}

/// Six buckets, the fourth of them starting at 1970.
fn buckets_around_1970(tier: Tier) -> Vec<Bucket> {
    let before = |bucket: Bucket| tier.bucket(bucket.start.plus(-1));
    let first = before(before(before(tier.bucket(Minute(0)))));
    std::iter::successors(Some(first), |bucket| Some(bucket.next())).take(6).collect()
}

fn odd_rows() -> Vec<(CellKey, StoredRow)> {
    let mut rows = Vec::new();
    let extremes = [i64::MIN, -1, 0, 1, i64::MAX];
    let stamps = [1, 2, 1_000_000, 1_700_000_000_000_000, 1_763_700_000_000_000];
    let entities = [Entity::site(), Entity::new(Dimension::Space, " "), Entity::new(Dimension::Video, &"\u{e9}".repeat(64))];
    for entity in entities {
        for tier in Tier::ALL {
            for (n, at) in (0usize..).zip([Minute::MIN, Minute(-1), Minute(0), Minute(i32::MAX / 60 * 60 - 1), Minute::MAX]) {
                let (a, b, c) = (extremes[n % 5], extremes[(n + 1) % 5], extremes[(n + 2) % 5]);
                let counts = Counts { gross: a, valid: b, engaged: c };
                let mark = (n % 2 == 1).then_some(Mark { offset: Offset(MOST), since: Counts { gross: c, valid: a, engaged: b } });
                let through = if tier == Tier::Minute { Millis::NEVER } else { Millis(b) };
                let state = Row { counts, version: Offset(MOST - u64::from(tier.code())), through, mark };
                let key = CellKey { entity: entity.clone(), bucket: tier.bucket(at), source: LAST_SOURCE };
                rows.push((key, StoredRow { stamp: Stamp(stamps[n % 5]), row: state }));
            }
        }
    }
    // Far minutes may share a coarse bucket.
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|a, b| a.0 == b.0);
    rows
}

fn video(title: &str) -> VideoInfo {
    VideoInfo {
        title: Some(title.into()),
        space_id: Some("s".into()),
        space_name: Some(String::new()),
        published_at: Some("2026-11-20T00:00:00Z".into()),
    }
}

fn progress(events: u64) -> ImportProgress {
    ImportProgress { file: "a b.csv".into(), mapping: "ts=ts_ms".into(), events, ends: vec![0, MOST], complete: events == 3 }
}

/// A key with everything or with little, by its number.
fn adjustment(id: &str, plan: u8) -> AdjustmentEntry {
    AdjustmentEntry {
        id: id.into(),
        plan: format!("{plan}-{}", id.len()),
        created_at: Millis(1_763_642_096_789),
        author: plan.is_multiple_of(2).then(|| "k".into()),
        reason: "b\u{1f3ac}ts\"".into(),
        note: (!plan.is_multiple_of(2)).then(|| "line\nline".into()),
        request: "00".into(),
        undoes: None,
        parts: 3,
        changes: MOST,
        first: Minute(-5),
        last: Minute(i32::MAX),
        total: Counts { gross: i64::MIN, valid: -1, engaged: i64::MAX },
    }
}

fn parts(n: u32) -> Arc<Vec<AdjustmentPart>> {
    let minutes = |n: u32| (0..2_000).map(|minute| (Minute(minute), -1, i64::from(n), 0).into()).collect();
    let videos = |n| vec![VideoChanges { video: "v\u{e9}".into(), space: (n > 0).then(|| "s".into()), minutes: minutes(n) }];
    Arc::new((0..n).map(|n| AdjustmentPart { source: Source(n), from: Offset(MOST), videos: videos(n) }).collect())
}

fn key(n: u16) -> KeyRecord {
    let mut random = [0; RANDOM_BYTES];
    random[..2].copy_from_slice(&n.to_be_bytes());
    let is_full = !n.is_multiple_of(2);
    let origins = ["*", "https://www.example.com", "http://[::1]:3000"].map(|text| AllowedOrigin::parse(text).unwrap());
    let new = NewKey {
        name: if is_full { "n\u{1f3ac}\"\\".into() } else { "n".into() },
        scopes: if is_full { Scope::ALL.into() } else { [Scope::Write].into() },
        public: !is_full,
        origins: if is_full { Vec::new() } else { origins.into() },
        events_per_second: is_full.then_some(std::num::NonZeroU32::MAX),
        expires_at: is_full.then_some(Millis(i64::MAX)),
    };
    KeyRecord { revoked_at: n.is_multiple_of(3).then_some(Millis(1)), ..new.record(&Token::from_random(random), Millis(n.into())) }
}
