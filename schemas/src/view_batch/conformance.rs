//! The `.proto` file against this module: a protobuf library that knows nothing but the file reads what is written here, and
//! writes what is read here.

use proptest::prelude::*;
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

use super::tests::{Said, owned, said, written};
use super::{Field, MESSAGE_TYPE, ViewBatch, field, uuid, wire};
use crate::event::Kind;
use crate::record::RecordKind;

thread_local! {
    static FILE: DescriptorPool = {
        let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let files = protox::compile(["tallymark/v1/view_batch.proto"], [proto]).unwrap();
        DescriptorPool::from_file_descriptor_set(files).unwrap()
    };
}

fn message(name: &str) -> MessageDescriptor {
    FILE.with(|file| file.get_message_by_name(&format!("tallymark.v1.{name}")).unwrap())
}

fn list(of: &DynamicMessage, name: &str) -> Vec<Value> {
    of.get_field_by_name(name).unwrap().as_list().unwrap().to_vec()
}

fn texts(of: &DynamicMessage, name: &str) -> Vec<String> {
    let field = of.get_field_by_name(name).unwrap();
    let message = field.as_message().unwrap();
    let mut text = message.get_field_by_name("text").unwrap().as_bytes().unwrap().to_vec();
    let lengths = list(message, "lengths");
    lengths.iter().map(|len| String::from_utf8(text.drain(..len.as_u32().unwrap() as usize).collect()).unwrap()).collect()
}

/// The events of a batch, read as the comments of the file say, one column after the other.
fn told_by_the_file(payload: &[u8]) -> Vec<Said> {
    let batch = DynamicMessage::decode(message("ViewBatch"), payload).unwrap();
    assert_eq!(batch.unknown_fields().count(), 0);
    let at = |column: &[Value], ix: usize| column.get(ix).cloned();
    let (videos, spaces, entry_spaces) = (texts(&batch, "videos"), texts(&batch, "spaces"), list(&batch, "entry_space"));
    let base = batch.get_field_by_name("base_ts_ms").unwrap().as_i64().unwrap();
    let (offsets, instants) = (list(&batch, "ts_offset_ms"), list(&batch, "ts_ms"));
    let (kinds, watched) = (list(&batch, "kind"), list(&batch, "watched"));
    let mut uuids = batch.get_field_by_name("uuids").unwrap().as_bytes().unwrap().to_vec();
    let (text_ids, viewers, others) = (texts(&batch, "text_ids"), texts(&batch, "viewers"), texts(&batch, "others"));
    let mut watches = list(&batch, "watch_ms").into_iter();
    let optional = |column: &[String], ix: usize| column.get(ix).filter(|text| !text.is_empty()).cloned();
    let events = list(&batch, "entry").into_iter().enumerate().map(|(ix, entry)| {
        let entry = entry.as_u32().unwrap() as usize;
        let event_id = optional(&text_ids, ix).unwrap_or_else(|| {
            let packed: Vec<u8> = uuids.drain(..16).collect();
            String::from_utf8(uuid::text(&packed.try_into().unwrap()).to_vec()).unwrap()
        });
        let space = at(&entry_spaces, entry).map_or(0, |space| space.as_u32().unwrap() as usize);
        let event = crate::Event {
            event_id: event_id.into(),
            video_id: videos[entry].clone().into(),
            space_id: (space > 0).then(|| spaces[space - 1].clone().into()),
            viewer_id: optional(&viewers, ix).map(Into::into),
            ts: crate::Millis(at(&instants, ix).map_or_else(|| base + i64::from(offsets[ix].as_i32().unwrap()), |ts| ts.as_i64().unwrap())),
            watch_ms: if at(&watched, ix).is_none_or(|flag| flag.as_bool().unwrap()) {
                watches.next().map(|ms| ms.as_u64().unwrap())
            } else {
                None
            },
            kind: if at(&kinds, ix).is_some_and(|kind| kind.as_enum_number() == Some(1)) { Kind::Engaged } else { Kind::View },
        };
        (event, optional(&others, ix))
    });
    events.collect()
}

fn as_texts<'a>(all: impl Iterator<Item = &'a str>) -> Value {
    let (mut lengths, mut text) = (Vec::new(), Vec::new());
    all.for_each(|one| {
        lengths.push(Value::U32(u32::try_from(one.len()).unwrap()));
        text.extend_from_slice(one.as_bytes());
    });
    let mut message = DynamicMessage::new(message("Texts"));
    message.set_field_by_name("lengths", Value::List(lengths));
    message.set_field_by_name("text", Value::Bytes(text.into()));
    Value::Message(message)
}

/// The plainest batch: an entry for each event, every column there, no id packed.
fn written_by_the_file(said: &[Said]) -> Vec<u8> {
    let base = said.first().map_or(0, |(event, _)| event.ts.0);
    let mut batch = DynamicMessage::new(message("ViewBatch"));
    let events = || said.iter().map(|(event, _)| event);
    let mut set = |name: &str, value: Value| batch.set_field_by_name(name, value);
    let count = u32::try_from(said.len()).unwrap();
    set("videos", as_texts(events().map(|event| &*event.video_id)));
    let spaces: Vec<&str> = events().filter_map(|event| event.space_id.as_deref()).collect();
    set("spaces", as_texts(spaces.iter().copied()));
    let mut next = 0;
    let space_of = |has: bool| {
        next += u32::from(has);
        Value::U32(if has { next } else { 0 })
    };
    set("entry_space", Value::List(events().map(|event| event.space_id.is_some()).map(space_of).collect()));
    set("entry", Value::List((0..count).map(Value::U32).collect()));
    let offsets: Result<Vec<_>, _> = events().map(|event| i32::try_from(event.ts.0 - base).map(Value::I32)).collect();
    if let Ok(offsets) = offsets {
        set("base_ts_ms", Value::I64(base));
        set("ts_offset_ms", Value::List(offsets));
    } else {
        set("ts_ms", Value::List(events().map(|event| Value::I64(event.ts.0)).collect()));
    }
    set("kind", Value::List(events().map(|event| Value::EnumNumber(i32::from(event.kind == Kind::Engaged))).collect()));
    set("text_ids", as_texts(events().map(|event| &*event.event_id)));
    set("viewers", as_texts(events().map(|event| event.viewer_id.as_deref().unwrap_or_default())));
    set("watched", Value::List(events().map(|event| Value::Bool(event.watch_ms.is_some())).collect()));
    set("watch_ms", Value::List(events().filter_map(|event| event.watch_ms).map(Value::U64).collect()));
    set("others", as_texts(said.iter().map(|(_, others)| others.as_deref().unwrap_or_default())));
    batch.encode_to_vec()
}

#[test]
fn the_fields_are_those_of_the_file() {
    let assert_same = |name: &str, fields: &[Field]| {
        let file: Vec<_> = message(name).fields().map(|field| (field.number(), field.name().to_owned())).collect();
        assert_eq!(fields.iter().map(|field| (field.number, field.name.to_owned())).collect::<Vec<_>>(), file);
    };
    assert_same("ViewBatch", &field::OF_BATCH);
    assert_same("Texts", &field::OF_TEXTS);
    assert_eq!(field::BASE_TS_MS.wire, wire::Type::Varint);
    assert_eq!(MESSAGE_TYPE, message("ViewBatch").full_name());
    assert_eq!(RecordKind::ViewBatch.content_type().rsplit_once('=').unwrap().1, MESSAGE_TYPE);
}

proptest! {
    #[test]
    fn the_file_reads_what_is_written_here(said in said()) {
        let told: Vec<_> = written(&said).iter().flat_map(|payload| told_by_the_file(payload)).collect();
        prop_assert_eq!(told, said);
    }

    #[test]
    fn what_the_file_writes_is_read_here(said in said()) {
        let payload = written_by_the_file(&said);
        let read: Vec<_> = ViewBatch::read(&payload).unwrap().events().map(|whole| owned(whole.unwrap())).collect();
        prop_assert_eq!(read, said);
    }
}
