//! `tallymark config check`: every key with its value, where that came from, and what it means.

use std::fmt::Write;

use super::{KEYS, Loaded, shown};

/// All keys as lines for people; also the valid TOML that gives the same settings, but for secrets: these are not shown.
pub(crate) fn print_all(loaded: &Loaded) -> String {
    let mut out = String::new();
    for (key, (text, origin)) in KEYS.iter().zip(&loaded.values) {
        let text = shown(key, text);
        let bare = text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok();
        let value = if bare { text.clone() } else { toml::Value::from(text.as_str()).to_string() };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "# {}.\n# Allowed: {}. Default: {}. From: {origin}.\n{} = {value}\n",
            key.meaning,
            key.allowed,
            if key.default.is_empty() { "none" } else { key.default },
            key.name
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Given, load};
    use super::*;

    #[test]
    fn what_is_printed_is_a_file_that_gives_the_same_settings() {
        let loaded = load(&Given::default(), [("TALLYMARK_DATA".into(), "/a \"b\"".into())]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        std::fs::write(&path, print_all(&loaded)).unwrap();
        let again = load(&Given::default(), [("TALLYMARK_CONFIG".into(), path.into())]).unwrap();
        assert_eq!(again.settings, loaded.settings);
    }

    #[test]
    fn secrets_are_not_printed() {
        let variable = ("TALLYMARK_KAFKA_PROPERTIES".into(), "sasl.password=hunter2,sasl.username=u".into());
        let printed = print_all(&load(&Given::default(), [variable]).unwrap());
        assert!(printed.contains("sasl.username=u") && printed.contains("sasl.password=***") && !printed.contains("hunter2"), "{printed}");
    }
}
