//! Schemas of the document in words: a short type, a list of members, an example.

use serde_json::{Map, Value};

use super::html::{escaped, inline};

/// So many values of a choice are listed; of more only the number is told.
const LISTED: usize = 12;
/// So deep members are shown within members.
const DEPTH: usize = 4;

/// The schemas of a document by name.
pub(super) struct Schemas<'a>(pub(super) &'a Value);

impl<'a> Schemas<'a> {
    /// What a reference leads to; anything else is itself.
    pub(super) fn resolved(&self, schema: &'a Value) -> &'a Value {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.rsplit('/').next());
        name.and_then(|name| self.0.pointer("/components/schemas")?.get(name)).unwrap_or(schema)
    }

    /// A type in a few words.
    pub(super) fn type_name(&self, schema: &'a Value) -> String {
        let schema = self.resolved(schema);
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return match values.len() {
                ..=LISTED => values.iter().map(|value| format!("<code>{}</code>", escaped(&plain(value)))).collect::<Vec<_>>().join(" "),
                many => format!("one of {many} names"),
            };
        }
        for (keyword, between) in [("oneOf", " or "), ("anyOf", " or ")] {
            if let Some(parts) = schema.get(keyword).and_then(Value::as_array) {
                let mut names: Vec<String> = parts.iter().map(|part| self.type_name(part)).collect();
                names.dedup();
                return names.join(between);
            }
        }
        match schema.get("type") {
            Some(Value::Array(types)) => {
                let name = |kind: &Value| self.simple(schema, kind.as_str().unwrap_or_default());
                types.iter().map(name).collect::<Vec<_>>().join(" or ")
            }
            Some(Value::String(kind)) => self.simple(schema, kind),
            _ if schema.get("allOf").is_some() => "object".to_owned(),
            _ => "any".to_owned(),
        }
    }

    fn simple(&self, schema: &'a Value, kind: &str) -> String {
        match (kind, schema.get("format").and_then(Value::as_str)) {
            ("string", Some("date-time")) => "time, RFC 3339".to_owned(),
            ("string", Some("date")) => "date, YYYY-MM-DD".to_owned(),
            ("array", _) => schema.get("items").map_or_else(|| "array".to_owned(), |items| format!("array of {}", self.type_name(items))),
            (kind, _) => kind.to_owned(),
        }
    }

    /// The bounds of a value, in words.
    pub(super) fn bounds(&self, schema: &'a Value) -> String {
        let schema = self.resolved(schema);
        let bound = |name: &str| schema.get(name).map(plain);
        let mut said = Vec::new();
        match (bound("minimum"), bound("maximum")) {
            (Some(least), Some(most)) => said.push(format!("{least} to {most}")),
            (Some(least), None) => said.push(format!("at least {least}")),
            (None, Some(most)) => said.push(format!("at most {most}")),
            (None, None) => {}
        }
        match (bound("minItems"), bound("maxItems")) {
            (Some(least), Some(most)) => said.push(format!("{least} to {most} items")),
            (None, Some(most)) => said.push(format!("at most {most} items")),
            (Some(_), None) | (None, None) => {}
        }
        said.join(", ")
    }

    /// The members of an object, also of one that is made of parts.
    fn members(&self, schema: &'a Value) -> Vec<(&'a str, &'a Value, bool)> {
        let schema = self.resolved(schema);
        let own = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let required =
            |name: &str| schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|other| other == name));
        let own = own.map(|(name, member)| (name.as_str(), member, required(name)));
        let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
        parts.flat_map(|part| self.members(part)).chain(own).collect()
    }

    /// The object that a schema holds: itself, an array's items, or the one choice that is an object.
    fn object(&self, schema: &'a Value) -> Option<&'a Value> {
        let schema = self.resolved(schema);
        if !self.members(schema).is_empty() {
            return Some(schema);
        }
        let choices = ["oneOf", "anyOf"].into_iter().filter_map(|keyword| schema.get(keyword)?.as_array()).flatten();
        schema.get("items").into_iter().chain(choices).find_map(|inner| self.object(inner))
    }

    /// The members of what a schema holds, as a list; nothing if it holds none. `asked` are told apart: required or not.
    pub(super) fn member_list(&self, schema: &'a Value, asked: bool, depth: usize) -> String {
        let Some(object) = self.object(schema).filter(|_| depth < DEPTH) else { return String::new() };
        let mut out = String::from("<ul class=members>\n");
        for (name, member, required) in self.members(object) {
            let need = if asked && required { " <span class=required>required</span>" } else { "" };
            let bounds = self.bounds(member);
            let says = said(member).or_else(|| said(self.resolved(member))).map(inline).unwrap_or_default();
            out += &format!("<li><code class=name>{}</code> <span class=type>{}</span>{need}", escaped(name), self.type_name(member));
            if !bounds.is_empty() {
                out += &format!(" <span class=type>{}</span>", escaped(&bounds));
            }
            out += &format!("<div>{says}</div>");
            let inner = self.member_list(member, asked, depth + 1);
            if !inner.is_empty() {
                out += &format!("<details><summary>Members of <code>{}</code></summary>{inner}</details>", escaped(name));
            }
            out.push_str("</li>\n");
        }
        out + "</ul>\n"
    }

    /// A value of a schema: its example, or one made of its parts.
    pub(super) fn example(&self, schema: &'a Value, depth: usize) -> Value {
        let schema = self.resolved(schema);
        let given = ["example", "default"].into_iter().find_map(|name| schema.get(name));
        let listed = ["examples", "enum"].into_iter().find_map(|name| schema.get(name)?.as_array()?.first());
        if let Some(given) = given.or(listed) {
            return given.clone();
        }
        if depth > DEPTH {
            return Value::Null;
        }
        let members = self.members(schema);
        if !members.is_empty() {
            return members
                .into_iter()
                .map(|(name, member, _)| (name.to_owned(), self.example(member, depth + 1)))
                .collect::<Map<_, _>>()
                .into();
        }
        if let Some(first) = ["oneOf", "anyOf"].into_iter().find_map(|keyword| {
            let choices = schema.get(keyword)?.as_array()?;
            choices.iter().find(|choice| choice.get("type").is_none_or(|kind| kind != "null"))
        }) {
            return self.example(first, depth + 1);
        }
        let kind =
            schema.get("type").and_then(|kind| kind.as_array().and_then(|kinds| kinds.first()).or(Some(kind))).and_then(Value::as_str);
        match kind {
            Some("string") if schema.get("format").is_some_and(|format| format == "date-time") => "2026-11-20T12:00:00Z".into(),
            Some("string") => "text".into(),
            Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| 0.into()),
            Some("boolean") => true.into(),
            Some("array") => schema.get("items").map(|items| vec![self.example(items, depth + 1)]).unwrap_or_default().into(),
            _ => Value::Object(Map::new()),
        }
    }
}

/// What a part of the document says of itself.
pub(super) fn said(part: &Value) -> Option<&str> {
    part.get("description").and_then(Value::as_str)
}

/// A value as people write it.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
