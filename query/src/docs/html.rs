//! Text as HTML: escaped, with the little markup that descriptions use.

/// Text as it may stand in HTML, also in a quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Text with `code` between backticks.
pub(super) fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 0 { out.push_str(&escaped(part)) } else { out += &format!("<code>{}</code>", escaped(part)) }
    }
    out
}

/// Text as paragraphs, which blank lines divide.
pub(super) fn paragraphs(text: &str) -> String {
    text.split("\n\n").filter(|part| !part.trim().is_empty()).fold(String::new(), |out, part| out + "<p>" + &inline(part.trim()) + "</p>\n")
}

/// A name as it may stand in a fragment.
pub(super) fn anchor(text: &str) -> String {
    text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_becomes_markup() {
        assert_eq!(inline("a <b> & `c<d>` \"'"), "a &lt;b&gt; &amp; <code>c&lt;d&gt;</code> &quot;&#39;");
        assert_eq!(paragraphs("one\ntwo\n\nthree"), "<p>one\ntwo</p>\n<p>three</p>\n");
        assert_eq!(anchor("Top lists"), "top-lists");
    }
}
