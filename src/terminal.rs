//! What strangers wrote, on a terminal: it must not steer it, nor tear a table.

use std::fmt::Write;

use serde_json::Value;

/// A value as one harmless line of at most so many characters.
pub(crate) fn shown(value: &Value, widest: usize) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let clipped: String = text.chars().take(widest).map(harmless).collect();
    if text.chars().count() > widest { format!("{}…", clipped.trim_end()) } else { clipped }
}

/// A character, or what stands for one that does something.
pub(crate) fn harmless(c: char) -> char {
    if c.is_control() || is_direction(c) { '\u{fffd}' } else { c }
}

/// Marks that turn the direction of the text behind them.
const fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Columns side by side, texts to the left; the last one is as wide as it is.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_steers_the_terminal_or_tears_a_table() {
        assert_eq!(shown(&json!("\u{1b}[31mred\u{202e}\n\u{9b}2J"), 48), "\u{fffd}[31mred\u{fffd}\u{fffd}\u{fffd}2J");
        assert_eq!(shown(&json!("x".repeat(60)), 4), "xxxx…");
        assert_eq!((shown(&Value::Null, 9), shown(&json!(7), 9), shown(&json!("äöü"), 3)), (String::new(), "7".into(), "äöü".into()));
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "id"], ["äöü", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "a    id\näöü  x\n");
    }
}
