//! `tallymark keys`: over HTTP, by whoever has an admin key; or `--direct`, on the store itself, by whoever may open that.

use std::fmt::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use schemas::Millis;
use thiserror::Error;

use super::api::{CreatedKey, Key, KeyList, KeyRequest};
use super::{Book, KeysError};
use crate::backends::{BackendError, Needs, Place, open_cluster, open_embedded};
use crate::client::{ClientError, Identity, Server};
use crate::config::{ConfigError, Given, duration_ms, load};

// No doc comment here: it would stand in the help in place of what `main` says.
#[derive(Subcommand)]
#[command(after_help = "\
The first key:
  tallymark keys create me --scope admin                on the machine of a server that has no key yet; from then on every request needs one
  tallymark keys create me --scope admin --direct       without a server: in ./data, or in the Cassandra of the settings
Whoever has lost the last admin key makes another with --direct; a server on ./data has to be stopped for it.")]
pub(crate) enum KeysCommand {
    /// Make a key and print it: the one time that it is seen.
    #[command(after_help = "\
Examples:
  tallymark keys create me --scope admin
  tallymark keys create 'shop, server' --scope write --events-per-second 1000 --expires 365d
  tallymark keys create 'shop, pages' --public --scope write --origin https://shop.example --origin https://www.shop.example
  export TALLYMARK_KEY=$(tallymark keys create dashboards --scope read)

Scopes: write sends events; import sends events of any age, too, and names videos and spaces; read asks; admin does everything.
A public key may be seen by everybody, as in a web page: it can only send events, and browsers use it only from the origins that it lists
(--origin '*' is every page). Only a hash of a key is kept: one that is lost is revoked, and another one made.")]
    Create(CreateArgs),
    /// Show all keys, without their secrets.
    List(ListArgs),
    /// Take a key back for ever. Every server refuses it within 5 seconds.
    Revoke(RevokeArgs),
}

/// Which keys.
#[derive(Args)]
struct Whose {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "TALLYMARK_URL")]
    url: String,
    #[command(flatten)]
    identity: Identity,
    /// Open the store of the settings itself, and ask no server.
    #[arg(long)]
    direct: bool,
    /// The answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: Given,
}

#[derive(Args)]
pub(crate) struct CreateArgs {
    /// What it is for.
    #[arg(value_name = "NAME")]
    name: String,
    /// What it may be used for: write, import, read or admin; several times, or with commas between.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', required = true)]
    scopes: Vec<String>,
    /// It may be seen by everybody, as in a web page.
    #[arg(long)]
    public: bool,
    /// A page's origin from which browsers may use it, such as https://www.example.com; several times. '*' is every page.
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// How many events it may send each second; without it the limit of the server's settings.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    events_per_second: Option<u32>,
    /// How long it holds, such as 90d, or until when, such as 2027-01-31T00:00:00Z; without it for ever.
    #[arg(long, value_name = "WHEN", value_parser = parse_end)]
    expires: Option<Millis>,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    whose: Whose,
}

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// The key's id, as the list shows it; of a whole key (tm_ID_SECRET) it is the middle.
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    whose: Whose,
}

/// A length from now on, or an instant.
fn parse_end(text: &str) -> Result<Millis, String> {
    let length = duration_ms(text).filter(|ms| *ms > 0).map(|ms| Millis::now().plus(ms));
    let end = length.or_else(|| Millis::parse_rfc3339(text)).filter(|end| end.is_representable());
    end.ok_or_else(|| "allowed is a duration such as 90d, or a time such as 2027-01-31T00:00:00Z".to_owned())
}

/// Why nothing was done.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Backend(#[from] BackendError),
    #[error("{0}")]
    Server(ClientError),
    #[error("{0}")]
    Keys(#[from] KeysError),
    #[error("{0}")]
    Usage(String),
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { status: 404, url, .. } if url.ends_with("/v1/keys") => Self::Usage(format!(
                "{url} has no keys: it is a part that takes events in or folds them. Ask one that answers (tallymark query or run), or say --direct"
            )),
            error => Self::Server(error),
        }
    }
}

/// Does it.
///
/// # Errors
/// If the server or the store did not.
pub(crate) async fn keys(command: KeysCommand) -> Result<ExitCode, CommandError> {
    match command {
        KeysCommand::Create(args) => create(args).await?,
        KeysCommand::List(ListArgs { whose }) => list(&whose).await?,
        KeysCommand::Revoke(RevokeArgs { id, whose }) => revoke(&id, &whose).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Who is asked.
enum Asked {
    Server(Server),
    Store(Book),
}

impl Whose {
    async fn open(&self) -> Result<Asked, CommandError> {
        if !self.direct {
            if !self.given.is_empty() {
                return Err(CommandError::Usage(
                    "settings such as --data are for --direct, which opens the store itself; say that, too".to_owned(),
                ));
            }
            return Ok(Asked::Server(Server::at(&self.url, &self.identity)?));
        }
        let settings = load(&self.given, std::env::vars_os())?.settings;
        crate::logging::start(&settings);
        let backends = match Place::of(&settings)? {
            Place::Embedded => open_embedded(&settings)?,
            Place::Cluster => open_cluster(&settings, Needs { dead_letters: false, store: true }).await?,
        };
        let store = backends.store.ok_or_else(|| CommandError::Usage("the settings name no store".to_owned()))?;
        Ok(Asked::Store(Book(store)))
    }

    fn show(&self, answer: &impl serde::Serialize, text: impl FnOnce() -> String) {
        if self.json {
            println!("{:#}", serde_json::to_value(answer).unwrap_or_default());
        } else {
            print!("{}", text());
        }
    }
}

async fn create(args: CreateArgs) -> Result<(), CommandError> {
    let CreateArgs { name, scopes, public, origins, events_per_second, expires, whose } = args;
    let request = KeyRequest { name, scopes, public, origins, events_per_second, expires_at: expires.map(Millis::to_rfc3339) };
    let made: CreatedKey = match whose.open().await? {
        Asked::Server(server) => server.create_key(&request).await?,
        Asked::Store(book) => {
            let new = request.read().map_err(|(member, detail)| CommandError::Usage(format!("{member}: {detail}")))?;
            let (record, token) = book.create(new, Millis::now()).await?;
            CreatedKey { token: token.reveal(), key: Key::from(&record) }
        }
    };
    whose.show(&made, || format!("{}\n", made.token));
    // Not on stdout: that is the key alone, so that a script can take it.
    eprintln!("This is key {} ({}). Keep it now: it is not shown again, and nobody can find it out.", made.key.id, clean(&made.key.name));
    Ok(())
}

async fn list(whose: &Whose) -> Result<(), CommandError> {
    let keys: KeyList = match whose.open().await? {
        Asked::Server(server) => server.keys().await?,
        Asked::Store(book) => KeyList { keys: book.list().await.map_err(KeysError::from)?.iter().map(Key::from).collect() },
    };
    whose.show(&keys, || table(&keys.keys));
    Ok(())
}

async fn revoke(id: &str, whose: &Whose) -> Result<(), CommandError> {
    // Whoever has the whole key at hand means that one; its secret goes nowhere.
    let whole = schemas::Token::parse(id);
    let id = whole.as_ref().map_or(id, |token| token.id().as_str());
    let key: Key = match whose.open().await? {
        Asked::Server(server) => server.revoke_key(id).await?,
        Asked::Store(book) => Key::from(&book.revoke(id, Millis::now()).await?),
    };
    whose.show(&key, || {
        let at = key.revoked_at.as_deref().unwrap_or_default();
        format!("Key {} ({}) is revoked since {at}; every server refuses it within 5 seconds.\n", key.id, clean(&key.name))
    });
    Ok(())
}

/// A name without what could steer a terminal: it may come from a store that somebody else wrote.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn table(keys: &[Key]) -> String {
    if keys.is_empty() {
        return "There is no key: everything is open. Make the first with: tallymark keys create NAME --scope admin\n".to_owned();
    }
    let head = ["id", "scopes", "state", "made", "name", "origins"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(keys.iter().map(row)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

fn row(key: &Key) -> [String; 6] {
    let state = match (&key.revoked_at, &key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) if Millis::parse_rfc3339(at).is_some_and(|at| at <= Millis::now()) => format!("expired {at}"),
        (None, Some(at)) => format!("until {at}"),
        (None, None) => "live".to_owned(),
    };
    let public = if key.public { " (public)" } else { "" };
    [key.id.clone(), key.scopes.join(",") + public, state, key.created_at.clone(), clean(&key.name), key.origins.join(" ")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_length_or_an_instant() {
        let near = |text: &str, ms: i64| (parse_end(text).unwrap().since(Millis::now()) - ms).abs() < 60_000;
        assert!(near("90d", 90 * 86_400_000) && near("1h", 3_600_000));
        assert_eq!(parse_end("2027-01-31T00:00:00Z").unwrap().to_rfc3339(), "2027-01-31T00:00:00Z");
        for bad in ["", "0", "soon", "-1d", "9999999999999d"] {
            assert!(parse_end(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_says_the_state_of_each_key_and_steers_no_terminal() {
        let key = |name: &str, expires: Option<&str>, revoked: Option<&str>| Key {
            id: "00".into(),
            name: name.into(),
            scopes: vec!["read".into()],
            public: false,
            origins: Vec::new(),
            events_per_second: None,
            created_at: "2026-01-01T00:00:00Z".into(),
            expires_at: expires.map(str::to_owned),
            revoked_at: revoked.map(str::to_owned),
        };
        let (past, future) = (Some("2020-01-01T00:00:00Z"), Some("9000-01-01T00:00:00Z"));
        let shown = table(&[key("a\u{1b}[2J", None, None), key("b", past, None), key("c", future, None), key("d", future, past)]);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains(" live ") && lines[2].contains("expired 2020") && lines[3].contains("until 9000"), "{shown}");
        assert!(lines[4].contains("revoked 2020") && !shown.contains('\u{1b}'), "{shown}");
        assert!(table(&[]).contains("tallymark keys create"));
    }
}
