//! One operation of the reference: what it does, what it takes, what it answers, and how one asks for it with curl.

use serde_json::Value;

use super::html::{anchor, escaped, inline, paragraphs};
use super::schema::{Schemas, plain, said};

/// Where examples are sent to: where the program listens if it is not told otherwise.
const HERE: &str = "http://127.0.0.1:8080";

/// An operation of the document.
pub(super) struct Operation<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) about: &'a Value,
}

impl<'a> Operation<'a> {
    /// The operations of a group, in the order of their paths' length, and of methods.
    pub(super) fn of_group(document: &'a Value, group: &str) -> Vec<Self> {
        let paths = document.get("paths").and_then(Value::as_object).into_iter().flatten();
        let all = paths.flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, about)| Operation { method, path, about })
        });
        let is_of = |about: &Value| about.pointer("/tags/0").is_some_and(|tag| tag == group);
        let mut found: Vec<Self> = all.filter(|operation| is_of(operation.about)).collect();
        found.sort_by_key(|operation| (operation.path.matches('/').count(), operation.path, operation.method));
        found
    }

    pub(super) fn anchor(&self) -> String {
        anchor(self.about.get("operationId").and_then(Value::as_str).unwrap_or(self.path))
    }

    pub(super) fn title(&self) -> &'a str {
        self.about.get("summary").and_then(Value::as_str).unwrap_or(self.path).trim_end_matches('.')
    }

    /// Its part of the page.
    pub(super) fn section(&self, schemas: &Schemas<'a>) -> String {
        format!(
            "<section class=operation id=\"{id}\"><div class=words>\n<h3><a href=\"#{id}\">{title}</a></h3>\n<p class=route>{method} <code>{path}</code></p>\n{keys}{says}{parameters}{body}{responses}</div>\n<div class=code>{code}</div></section>\n",
            id = self.anchor(),
            title = inline(self.title()),
            method = method(self.method),
            path = path(self.path),
            keys = self.keys(),
            says = said(self.about).map(paragraphs).unwrap_or_default(),
            parameters = self.parameters(schemas),
            body = self.body(schemas),
            responses = self.responses(schemas),
            code = self.code(schemas),
        )
    }

    /// Which keys open it, if the document says so.
    fn keys(&self) -> String {
        let Some(ways) = self.about.get("security").and_then(Value::as_array) else { return String::new() };
        let (mut scopes, mut in_address) = (Vec::new(), "");
        for (scheme, given) in ways.iter().filter_map(Value::as_object).flatten() {
            match scheme.as_str() {
                "key" => scopes.extend(given.as_array().into_iter().flatten().filter_map(Value::as_str)),
                _ => in_address = ", in the address (<code>?key=</code>) if it is public",
            }
        }
        let scopes: Vec<String> = scopes.iter().map(|scope| format!("<code>{}</code>", escaped(scope))).collect();
        let said = if scopes.is_empty() { "none".to_owned() } else { scopes.join(" or ") };
        format!("<p class=keys>Key: {said}{in_address}</p>\n")
    }

    fn all_parameters(&self) -> impl Iterator<Item = &'a Value> {
        self.about.get("parameters").and_then(Value::as_array).into_iter().flatten()
    }

    fn parameters(&self, schemas: &Schemas<'a>) -> String {
        let mut out = String::new();
        for (place, title) in [("path", "Path"), ("query", "Query"), ("header", "Headers")] {
            let of_place: Vec<&Value> = self.all_parameters().filter(|parameter| is(parameter, "in", place)).collect();
            if of_place.is_empty() {
                continue;
            }
            out += &format!("<h4>{title}</h4>\n<table class=parameters><thead><tr><th>Name<th>Values<th>Meaning</thead><tbody>\n");
            for parameter in of_place {
                out.push_str(&row(parameter, schemas));
            }
            out.push_str("</tbody></table>\n");
        }
        out
    }

    fn body(&self, schemas: &Schemas<'a>) -> String {
        let Some(body) = self.about.get("requestBody") else { return String::new() };
        let kinds = content(body).map(|(kind, _)| format!("<code>{}</code>", escaped(kind))).collect::<Vec<_>>().join(", ");
        let members = content(body).find_map(|(_, content)| Some(schemas.member_list(content.get("schema")?, true, 0))).unwrap_or_default();
        format!("<h4>Body</h4>\n<p>{kinds}</p>\n{}{members}", said(body).map(paragraphs).unwrap_or_default())
    }

    fn all_responses(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.about.get("responses").and_then(Value::as_object).into_iter().flatten()
    }

    fn responses(&self, schemas: &Schemas<'a>) -> String {
        let (mut good, mut bad) = (String::new(), String::new());
        for (status, response) in self.all_responses() {
            if is_problem(response) {
                bad += &format!("<li><span class=status>{status}</span> {}</li>\n", kinds(response));
                continue;
            }
            let says = said(response).map(inline).unwrap_or_default();
            let forms = content(response).map(|(kind, _)| format!("<code>{}</code>", escaped(kind))).collect::<Vec<_>>().join(", ");
            good += &format!("<p><span class=status>{status}</span> {says} {forms}</p>\n");
            good.push_str(&headers(response));
            let members = content(response).find_map(|(_, content)| Some(schemas.member_list(content.get("schema")?, false, 0)));
            good.push_str(&members.unwrap_or_default());
        }
        let bad = if bad.is_empty() { bad } else { format!("<h4>Problems</h4>\n<ul class=problems>\n{bad}</ul>\n") };
        format!("<h4>Answer</h4>\n{good}{bad}")
    }

    fn code(&self, schemas: &Schemas<'a>) -> String {
        let answer = self.all_responses().find(|(status, _)| status.starts_with('2'));
        let json = answer.and_then(|(_, response)| content(response).find(|(kind, _)| *kind == "application/json"));
        let example = json.and_then(|(_, content)| content.get("schema")).map(|schema| schemas.example(schema, 0));
        let shown = example.filter(|value| value.as_object().is_none_or(|object| !object.is_empty()));
        let shown = shown.map(|value| format!("<pre><code>{}</code></pre>\n", escaped(&pretty(&value)))).unwrap_or_default();
        format!("<pre><code>{}</code></pre>\n{shown}", escaped(&self.curl(schemas)))
    }

    /// A command that asks for it.
    fn curl(&self, schemas: &Schemas<'a>) -> String {
        let value = |parameter: &'a Value| parameter.get("example").or_else(|| parameter.pointer("/schema/example")).map(plain);
        let mut path = self.path.to_owned();
        let mut query = Vec::new();
        for parameter in self.all_parameters() {
            let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
            match value(parameter) {
                Some(value) if is(parameter, "in", "path") => path = path.replace(&format!("{{{name}}}"), &value),
                Some(value) if is(parameter, "in", "query") => query.push(format!("{name}={value}")),
                _ => {}
            }
        }
        let url = if query.is_empty() { format!("{HERE}{path}") } else { format!("'{HERE}{path}?{}'", query.join("&")) };
        let body = self.about.get("requestBody").and_then(|body| content(body).find(|(kind, _)| *kind == "application/json"));
        let body = body.and_then(|(_, content)| content.get("schema")).map(|schema| pretty(&schemas.example(schema, 0)));
        match (self.method, body) {
            ("get", _) => format!("curl {url}"),
            ("post", Some(body)) => format!("curl {url} \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"),
            (method, Some(body)) => {
                let method = method.to_uppercase();
                format!("curl -X {method} {url} \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'")
            }
            (method, None) => format!("curl -X {} {url}", method.to_uppercase()),
        }
    }
}

/// A method as a badge.
pub(super) fn method(method: &str) -> String {
    format!("<span class=\"method {method}\">{}</span>", method.to_uppercase())
}

/// A path that may break at its slashes, its parameters told apart.
fn path(path: &str) -> String {
    escaped(path).replace('/', "/<wbr>").replace('{', "<var>{").replace('}', "}</var>")
}

fn row(parameter: &Value, schemas: &Schemas<'_>) -> String {
    let schema = parameter.get("schema").unwrap_or(&Value::Null);
    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
    let required = parameter.get("required").is_some_and(|required| required == true) && !is(parameter, "in", "path");
    let need = if required { "<br><span class=required>required</span>" } else { "" };
    // Borrowed for as long as the parameter, which is a part of the same document.
    let (kind, bounds) = (Schemas(schemas.0).type_name(schema), Schemas(schemas.0).bounds(schema));
    let says = said(parameter).map(inline).unwrap_or_default();
    let default = schema.get("default").map(|default| format!(" Default: <code>{}</code>.", escaped(&plain(default)))).unwrap_or_default();
    format!("<tr><td><code class=name>{}</code>{need}<td class=type>{kind} {}<td>{says}{default}\n", escaped(name), escaped(&bounds))
}

fn headers(response: &Value) -> String {
    let Some(all) = response.get("headers").and_then(Value::as_object) else { return String::new() };
    let rows = all.iter().fold(String::new(), |out, (name, header)| {
        out + &format!("<li><code class=name>{}</code><div>{}</div></li>\n", escaped(name), said(header).map(inline).unwrap_or_default())
    });
    format!("<details><summary>Headers</summary><ul class=members>\n{rows}</ul></details>\n")
}

/// The kinds of a problem response, each leading to its explanation.
fn kinds(response: &Value) -> String {
    let types = response.pointer("/content/application~1problem+json/schema/allOf/1/properties/type/enum").and_then(Value::as_array);
    let links = types.into_iter().flatten().filter_map(Value::as_str).map(|path| {
        let name = path.trim_start_matches("/problems/");
        format!("<a href=\"#problem-{0}\"><code>{0}</code></a>", escaped(name))
    });
    links.collect::<Vec<_>>().join(" ")
}

fn is_problem(response: &Value) -> bool {
    content(response).any(|(kind, _)| kind == "application/problem+json")
}

fn content(part: &Value) -> impl Iterator<Item = (&str, &Value)> {
    part.get("content").and_then(Value::as_object).into_iter().flatten().map(|(kind, content)| (kind.as_str(), content))
}

fn is(part: &Value, name: &str, value: &str) -> bool {
    part.get(name).is_some_and(|other| other == value)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
