use super::record::HEADER;
use super::*;

const MIB: u64 = 1024 * 1024;

fn open(dir: &Path) -> (Spool, Found) {
    Spool::open(dir, MIB, Durability::Process).unwrap()
}

fn batch(n: u32) -> Batch {
    Batch { body: format!("event {n}\n").into_bytes(), events: 1, from_seq: 0, doubt_since_ms: None }
}

fn filled(dir: &Path, batches: u32) -> Spool {
    let (mut spool, _) = open(dir);
    (0..batches).for_each(|n| spool.append(&batch(n)).unwrap());
    spool
}

fn next(spool: &mut Spool, max_events: u32) -> (Vec<Slot>, String) {
    let parcel = spool.next(max_events, usize::MAX).unwrap().unwrap_or_default();
    (parcel.slots, String::from_utf8(parcel.batch.body).unwrap())
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_spooled_comes_back_in_order_after_the_process_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 3));
    let (mut spool, found) = open(dir.path());
    assert_eq!(found, Found { events: 3, damaged_bytes: 0 });
    spool.append(&batch(3)).unwrap();
    assert_eq!(next(&mut spool, 3).1, "event 0\nevent 1\nevent 2\n");
    assert_eq!(next(&mut spool, 3).1, "event 3\n");
    assert!(spool.is_idle());
}

#[test]
fn what_was_done_does_not_come_back_and_its_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = filled(dir.path(), 3);
    let (slots, _) = next(&mut spool, 2);
    spool.sending(&slots, 10).unwrap();
    spool.done(&slots, 20).unwrap();
    assert_eq!(spool.events(), 1);
    drop(spool);
    let (mut spool, found) = open(dir.path());
    assert_eq!(found.events, 1);
    let (slots, body) = next(&mut spool, 9);
    assert_eq!((body.as_str(), slots[0].doubt_since_ms), ("event 2\n", None));
    spool.done(&slots, 30).unwrap();
    spool.close();
    assert_eq!(files(dir.path()), ["lock"]);
}

#[test]
fn what_was_being_sent_is_in_doubt_afterwards_and_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = filled(dir.path(), 4);
    let (first, _) = next(&mut spool, 1);
    let (second, _) = next(&mut spool, 2);
    spool.sending(&first, 10).unwrap();
    spool.sending(&second, 20).unwrap();
    // Refused at the door: certainly not taken.
    spool.put_back(&first, None, 30);
    drop(spool);
    let (mut spool, _) = open(dir.path());
    let parcel = spool.next(9, usize::MAX).unwrap().unwrap();
    assert_eq!((parcel.batch.doubt_since_ms, parcel.batch.body), (Some(20), b"event 1\nevent 2\n".to_vec()));
    assert_eq!(next(&mut spool, 9).1, "event 0\nevent 3\n");
}

#[test]
fn what_a_failed_write_left_of_a_note_does_not_shift_those_that_follow() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = filled(dir.path(), 2);
    let (first, _) = next(&mut spool, 1);
    spool.sending(&first, 10).unwrap();
    OpenOptions::new().append(true).open(ledger_path(dir.path(), 1)).unwrap().write_all(&[7; 3]).unwrap();
    let (second, _) = next(&mut spool, 1);
    spool.sending(&second, 20).unwrap();
    spool.done(&first, 30).unwrap();
    drop(spool);
    let (mut spool, found) = open(dir.path());
    assert_eq!(found.events, 1);
    let parcel = spool.next(9, usize::MAX).unwrap().unwrap();
    assert_eq!((parcel.batch.doubt_since_ms, parcel.batch.body), (Some(20), b"event 1\n".to_vec()));
}

#[test]
fn what_comes_in_doubt_to_the_spool_is_so_for_the_next_process_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = filled(dir.path(), 1);
    spool.append(&Batch { doubt_since_ms: Some(40), ..batch(1) }).unwrap();
    drop(spool);
    let parcel = open(dir.path()).0.next(9, usize::MAX).unwrap().unwrap();
    assert_eq!((parcel.batch.doubt_since_ms, parcel.batch.body), (Some(40), b"event 1\n".to_vec()));
}

#[test]
fn what_is_given_back_keeps_its_place_and_its_first_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = filled(dir.path(), 3);
    let (first, _) = next(&mut spool, 1);
    let (second, _) = next(&mut spool, 1);
    spool.put_back(&second, None, 1);
    spool.put_back(&first, None, 1);
    assert_eq!(next(&mut spool, 2).1, "event 0\nevent 1\n");
    spool.put_back(&first, Some(50), 1);
    let (again, _) = next(&mut spool, 1);
    spool.put_back(&again, Some(70), 1);
    assert_eq!(spool.next(1, usize::MAX).unwrap().unwrap().batch.doubt_since_ms, Some(50));
}

#[test]
fn it_never_grows_beyond_its_bound_and_has_room_again_when_segments_are_done() {
    let dir = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(dir.path());
    let large = Batch { body: vec![b'x'; 20_000], ..batch(0) };
    let mut appended = 0;
    while spool.append(&large).is_ok() {
        appended += 1;
    }
    let on_disk = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>();
    assert!((45..=52).contains(&appended) && on_disk(dir.path()) <= MIB, "{appended}, {}", on_disk(dir.path()));
    assert!(matches!(spool.append(&large), Err(SpoolError::Full)));
    for _ in 0..5 {
        let slots = spool.next(1, usize::MAX).unwrap().unwrap().slots;
        spool.done(&slots, 1).unwrap();
    }
    spool.append(&large).unwrap();
    assert_eq!(spool.events(), appended - 4);
}

#[test]
fn two_never_share_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = filled(dir.path(), 1);
    assert!(matches!(Spool::open(dir.path(), MIB, Durability::Process), Err(SpoolError::InUse(_))));
    drop(first);
    assert_eq!(open(dir.path()).1.events, 1);
}

#[test]
fn wherever_a_crash_cuts_the_files_nothing_whole_is_lost_and_nothing_torn_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 3));
    let path = segment_path(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(segment_path(dir.path(), 1), &whole[..cut]).unwrap();
        let (mut spool, found) = open(dir.path());
        let expected: String = (0..found.events).map(|n| format!("event {n}\n")).collect();
        let record = (whole.len() - MAGIC.len()) / 3;
        assert_eq!(found, Found { events: (cut.saturating_sub(MAGIC.len()) / record) as u64, damaged_bytes: 0 }, "cut at {cut}");
        assert_eq!(next(&mut spool, 9).1, expected, "cut at {cut}");
        spool.append(&batch(9)).unwrap();
        assert_eq!(next(&mut spool, 9).1, "event 9\n", "cut at {cut}");
    }
}

#[test]
fn a_damaged_record_is_named_left_out_and_kept_for_a_look() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path(), 3));
    let path = segment_path(dir.path(), 1);
    let mut content = fs::read(&path).unwrap();
    content[MAGIC.len() + HEADER + 2] ^= 1;
    fs::write(&path, &content).unwrap();
    let (mut spool, found) = open(dir.path());
    assert_eq!((found.events, found.damaged_bytes), (2, 28));
    let (slots, body) = next(&mut spool, 9);
    assert_eq!(body, "event 1\nevent 2\n");
    spool.done(&slots, 1).unwrap();
    assert_eq!(files(dir.path()), ["0000000000000001.damaged", "lock"]);
    // A later segment does not take its number.
    drop(spool);
    drop(filled(dir.path(), 1));
    assert!(files(dir.path()).contains(&"0000000000000002.batches".to_owned()), "{:?}", files(dir.path()));
}

#[test]
fn damage_that_comes_while_it_is_open_is_found_when_the_record_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = filled(dir.path(), 3);
    let path = segment_path(dir.path(), 1);
    let mut content = fs::read(&path).unwrap();
    content[MAGIC.len() + HEADER + 2] ^= 1;
    fs::write(&path, &content).unwrap();
    let parcel = spool.next(9, usize::MAX).unwrap().unwrap();
    assert_eq!((parcel.damaged.len(), parcel.slots.len(), parcel.batch.events), (1, 2, 2));
    assert_eq!(parcel.batch.body, b"event 1\nevent 2\n");
}

#[test]
fn a_disk_that_fails_refuses_the_batch_and_keeps_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = filled(dir.path(), 1);
    // No segment can be made where its directory is gone.
    spool.active = None;
    let moved = dir.path().join("moved");
    spool.dir = moved;
    assert!(matches!(spool.append(&batch(1)), Err(SpoolError::Io { .. })));
    assert!(spool.next(9, usize::MAX).is_err());
    spool.dir = dir.path().to_owned();
    spool.append(&batch(2)).unwrap();
    assert_eq!(next(&mut spool, 9).1, "event 0\nevent 2\n");
}
