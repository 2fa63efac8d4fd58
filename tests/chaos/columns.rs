//! A columnar batch as any consumer would read it: with a protobuf library, by the `.proto` file alone.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

use crate::recount::View;

static VIEW_BATCH: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let proto = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/proto");
    let files = protox::compile(["tallymark/v1/view_batch.proto"], [proto]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
    pool.get_message_by_name("tallymark.v1.ViewBatch").unwrap()
});

/// The content type of a record that holds one.
pub(crate) const CONTENT_TYPE: &str = "application/x-protobuf; messageType=tallymark.v1.ViewBatch";

fn list(of: &DynamicMessage, name: &str) -> Vec<Value> {
    of.get_field_by_name(name).unwrap().as_list().unwrap().to_vec()
}

fn texts(of: &DynamicMessage, name: &str) -> Vec<String> {
    let field = of.get_field_by_name(name).unwrap();
    let texts = field.as_message().unwrap();
    let all = String::from_utf8(texts.get_field_by_name("text").unwrap().as_bytes().unwrap().to_vec()).unwrap();
    let mut rest = all.as_str();
    let lengths = list(texts, "lengths");
    let mut one = |len: &Value| {
        let (text, after) = rest.split_at(len.as_u32().unwrap() as usize);
        rest = after;
        text.to_owned()
    };
    lengths.iter().map(&mut one).collect()
}

fn uuid_text(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

/// The views of a batch, in order.
pub(crate) fn views(payload: &[u8]) -> Vec<View> {
    let batch = DynamicMessage::decode(VIEW_BATCH.clone(), payload).unwrap();
    let (videos, spaces, entry_spaces) = (texts(&batch, "videos"), texts(&batch, "spaces"), list(&batch, "entry_space"));
    let base = batch.get_field_by_name("base_ts_ms").unwrap().as_i64().unwrap();
    let (offsets, instants) = (list(&batch, "ts_offset_ms"), list(&batch, "ts_ms"));
    let uuids = batch.get_field_by_name("uuids").unwrap().as_bytes().unwrap().clone();
    let (mut uuids, text_ids) = (uuids.chunks(16), texts(&batch, "text_ids"));
    let view = |(ix, entry): (usize, Value)| {
        let entry = entry.as_u32().unwrap() as usize;
        let space = entry_spaces.get(entry).map_or(0, |space| space.as_u32().unwrap() as usize);
        View {
            event_id: match text_ids.get(ix) {
                Some(text) if !text.is_empty() => text.clone(),
                _ => uuid_text(uuids.next().unwrap()),
            },
            video_id: videos[entry].clone(),
            space_id: (space > 0).then(|| spaces[space - 1].clone()),
            ts: match instants.get(ix) {
                Some(ts) => ts.as_i64().unwrap(),
                None => base + i64::from(offsets[ix].as_i32().unwrap()),
            },
        }
    };
    list(&batch, "entry").into_iter().enumerate().map(view).collect()
}

#[test]
fn a_batch_is_told_as_it_was_sent() {
    for (apart_ms, ids) in [(1, "550e8400-e29b-41d4-a716-4466554400"), (10_000_000_000, "e"), (0, "550E8400-")] {
        let mut writer = schemas::view_batch::Writer::new();
        let sent: Vec<View> = (10..40i64)
            .map(|n| View {
                event_id: if n % 7 == 0 { n.to_string() } else { format!("{ids}{n}") },
                video_id: format!("vé{}", n % 3),
                space_id: (n % 3 > 0).then(|| format!("s{}", n % 2)),
                ts: 1_763_640_000_000 + n * apart_ms,
            })
            .collect();
        for view in &sent {
            let json = serde_json::json!({"event_id": view.event_id, "video_id": view.video_id, "space_id": view.space_id, "ts": view.ts});
            writer.push(&schemas::json::decode(json.to_string().as_bytes()).unwrap(), None).unwrap();
        }
        assert_eq!(views(&writer.finish()), sent);
    }
}
