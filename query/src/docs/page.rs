//! The reference at `/docs` and the explanations at `/problems/{kind}`: HTML from the document, which needs no script.

use ingest::problem::kinds::{KINDS, Kind};
use serde_json::Value;

use super::html::{anchor, escaped, inline, paragraphs};
use super::operation::{Operation, method};
use super::schema::{Schemas, said};

/// The whole reference.
pub(super) fn reference(document: &Value) -> String {
    let groups: Vec<(&str, &str)> = document
        .get("tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|tag| (tag.get("name").and_then(Value::as_str).unwrap_or_default(), said(tag).unwrap_or_default()))
        .filter(|(name, _)| !Operation::of_group(document, name).is_empty())
        .collect();
    let about = document.pointer("/info/description").and_then(Value::as_str).unwrap_or_default();
    let mut main = format!(
        "<header id=top><h1>Tallymark API</h1>\n{}\n<p>The same as a document for programs: <a href=\"/openapi.json\">OpenAPI 3.1</a>.</p></header>\n{}",
        paragraphs(about),
        BASICS
    );
    for (name, says) in &groups {
        main += &format!("<section class=group id=\"{}\"><h2>{}</h2>\n{}\n", anchor(name), escaped(name), paragraphs(says));
        for operation in Operation::of_group(document, name) {
            main.push_str(&operation.section(&Schemas(document)));
        }
        main.push_str("</section>\n");
    }
    main.push_str(&problem_table());
    page("Tallymark API", &format!("{}<main>\n{main}</main>", navigation(document, &groups)))
}

/// What holds for every operation.
const BASICS: &str = include_str!("basics.html");

fn navigation(document: &Value, groups: &[(&str, &str)]) -> String {
    let mut list = String::from("<ul><li><a href=\"#top\">About</a></li>\n<li><a href=\"#basics\">Basics</a></li>\n</ul>\n");
    for (name, _) in groups {
        list += &format!("<h2><a href=\"#{}\">{}</a></h2>\n<ul>\n", anchor(name), escaped(name));
        for operation in Operation::of_group(document, name) {
            let (to, title) = (operation.anchor(), escaped(operation.title()));
            list += &format!("<li><a href=\"#{to}\">{} <span>{title}</span></a></li>\n", method(operation.method));
        }
        list.push_str("</ul>\n");
    }
    list.push_str("<h2><a href=\"#problems\">Problems</a></h2>\n");
    format!("<nav><details class=menu><summary>Contents</summary>{list}</details><div class=wide>{list}</div></nav>\n")
}

fn problem_table() -> String {
    let rows = KINDS.iter().fold(String::new(), |out, kind| {
        out + &format!(
            "<tr id=\"problem-{name}\"><td class=status>{status}<td><a href=\"/problems/{name}\"><code>{name}</code></a><td>{means}\n",
            name = kind.name,
            status = kind.status,
            means = inline(kind.means),
        )
    });
    format!(
        "<section class=group id=problems><h2>Problems</h2>\n<p>Every answer that is none has this form (RFC 9457, <code>application/problem+json</code>). \
         <code>type</code> is stable and leads to an explanation; <code>detail</code> says what is wrong with this request, where, and what to do.</p>\n\
         <table class=kinds><thead><tr><th>Status<th>Kind<th>Meaning</thead><tbody>\n{rows}</tbody></table></section>\n"
    )
}

/// The explanation of a kind of problem.
pub(super) fn problem(kind: &Kind) -> String {
    let body = format!(
        "<main class=problem><p><a href=\"/docs#problem-{name}\">Tallymark API</a></p>\n<h1>{title}</h1>\n\
         <p class=route><span class=status>{status}</span> <code>/problems/{name}</code></p>\n\
         <h2>What it means</h2>\n<p>{means}</p>\n<h2>What to do</h2>\n<p>{remedy}</p></main>",
        name = kind.name,
        title = escaped(kind.title),
        status = kind.status,
        means = inline(kind.means),
        remedy = inline(kind.remedy),
    );
    page(kind.title, &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=en>\n<head><meta charset=utf-8><meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <meta name=color-scheme content=\"light dark\"><title>{}</title><link rel=stylesheet href=\"/docs/style.css\"></head>\n<body>\n{body}\n</body></html>\n",
        escaped(title)
    )
}
