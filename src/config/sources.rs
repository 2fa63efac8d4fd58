//! Where settings come from: flags made from the table of keys, `TALLYMARK_...` variables, and one TOML file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{ConfigError, KEYS, Key, Loaded, Origin, cluster, refused, resolve};

/// The variable that names the TOML file.
const CONFIG_VARIABLE: &str = "TALLYMARK_CONFIG";
/// The variables that tell commands where the server is, and who they are to it; no settings of the server itself.
const CLIENT_VARIABLES: [&str; 3] = ["TALLYMARK_URL", "TALLYMARK_KEY", "TALLYMARK_CA"];
const PREFIX: &str = "TALLYMARK_";

/// What was given on the command line: the file and some of the keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    config: Option<PathBuf>,
    flags: BTreeMap<&'static str, String>,
}

impl Given {
    /// Whether no setting was given as a flag.
    pub(crate) fn is_empty(&self) -> bool {
        self.config.is_none() && self.flags.is_empty()
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file with any of the keys below [env: TALLYMARK_CONFIG]");
        KEYS.iter().fold(command.arg(config), |command, key| command.arg(flag(key)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(key: &Key) -> Arg {
    let arg = Arg::new(key.name)
        .long(key.name.replace('_', "-"))
        .value_name("VALUE")
        .action(ArgAction::Set)
        .help(if key.default.is_empty() { key.meaning.to_owned() } else { format!("{} [default: {}]", key.meaning, key.default) })
        .help_heading("Settings");
    // A switch can be given bare.
    if key.default == "false" { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |key: &Key| matches.get_one::<String>(key.name).cloned();
        Ok(Self {
            config: matches.get_one("config").cloned(),
            flags: KEYS.iter().filter_map(|key| Some((key.name, value(key)?))).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The settings for what was given, under `environment` (all of the process's variables).
///
/// # Errors
/// The first thing that cannot be used, with where it came from and what is allowed.
pub(crate) fn load(given: &Given, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Loaded, ConfigError> {
    let mut variables: BTreeMap<String, String> = environment
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX) && !CLIENT_VARIABLES.contains(&name.as_str()) && !is_service_link(name))
        .collect();
    let file = given.config.clone().or(variables.remove(CONFIG_VARIABLE).map(PathBuf::from));
    let from_file = file.as_deref().map(read_file).transpose()?.unwrap_or_default();
    let values = KEYS.iter().map(|key| {
        let variable = variable_name(key);
        if let Some(value) = given.flags.get(key.name) {
            variables.remove(&variable);
            (value.clone(), Origin::Flag(format!("--{}", key.name.replace('_', "-"))))
        } else if let Some(value) = variables.remove(&variable) {
            (value, Origin::Variable(variable))
        } else if let Some((value, path)) = from_file.get(key.name).zip(file.clone()) {
            (value.clone(), Origin::File(path))
        } else {
            (key.default.to_owned(), Origin::Default)
        }
    });
    let values = values.collect();
    if let Some(name) = variables.into_keys().next() {
        let known: Vec<String> = KEYS.iter().map(variable_name).chain([CONFIG_VARIABLE.to_owned()]).collect();
        let hint = near_hint(&name, known.iter().map(String::as_str));
        return Err(ConfigError::Unknown { what: "variable", name, origin: "the environment".into(), hint });
    }
    resolve(values)
}

/// Kubernetes tells every pod where the services are; one that is called `tallymark` is no setting of ours.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_PORT") || name.contains("_PORT_") || name.ends_with("_SERVICE_HOST")
}

fn variable_name(key: &Key) -> String {
    format!("{PREFIX}{}", key.name.to_ascii_uppercase())
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let file_error = |detail: String| ConfigError::File { path: path.display().to_string(), detail };
    let text = std::fs::read_to_string(path).map_err(|error| file_error(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| file_error(error.to_string()))?;
    table.into_iter().map(|(name, value)| known_entry(path, name, value)).collect()
}

fn known_entry(path: &Path, name: String, value: toml::Value) -> Result<(String, String), ConfigError> {
    let Some(key) = KEYS.iter().find(|key| key.name == name) else {
        let hint = near_hint(&name, KEYS.iter().map(|key| key.name));
        return Err(ConfigError::Unknown { what: "key", name, origin: path.display().to_string(), hint });
    };
    let text = match value {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Boolean(switch) => switch.to_string(),
        toml::Value::Table(table) if key.name == "kafka_properties" => {
            let entries = flat("", table);
            cluster::properties_text(entries.iter().map(|(name, value)| (name.as_str(), value.clone())))
        }
        other => {
            let allowed = format!("{}, as a text, a whole number or true/false", key.allowed);
            return Err(refused(key, &other.to_string(), &Origin::File(path.into()), allowed));
        }
    };
    Ok((name, text))
}

/// A table's entries by their dotted names: `a.b = 1` without quotes is a table in a table.
fn flat(prefix: &str, table: toml::Table) -> Vec<(String, String)> {
    let entries = table.into_iter().flat_map(|(name, value)| match value {
        toml::Value::Table(inner) => flat(&format!("{prefix}{name}."), inner),
        toml::Value::String(text) => vec![(format!("{prefix}{name}"), text)],
        other => vec![(format!("{prefix}{name}"), other.to_string())],
    });
    entries.collect()
}

/// `; did you mean "x"?` if a known name is near.
pub(crate) fn near_hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}

/// The known name that is most like `name`, if one is like it at all.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
    known.map(|known| (likeness(known), known)).max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(like, _)| *like > 0.75).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, Given) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tallymark.toml");
        std::fs::write(&path, text).unwrap();
        (dir, Given { config: Some(path), flags: BTreeMap::new() })
    }

    fn value_of<'a>(loaded: &'a Loaded, name: &str) -> &'a (String, Origin) {
        &loaded.values[KEYS.iter().position(|key| key.name == name).unwrap()]
    }

    #[test]
    fn flags_go_over_variables_over_the_file_over_defaults() {
        let (_dir, mut given) = file("grace = \"1s\"\nsources = 4\nspread = 3\ninsecure = true\n");
        given.flags.insert("grace", "3s".into());
        let loaded =
            load(&given, environment(&[("TALLYMARK_GRACE", "2s"), ("TALLYMARK_SPREAD", "2"), ("TALLYMARK_URL", "x"), ("PATH", "/bin")]))
                .unwrap();
        assert_eq!(value_of(&loaded, "grace"), &("3s".into(), Origin::Flag("--grace".into())));
        assert_eq!(value_of(&loaded, "spread"), &("2".into(), Origin::Variable("TALLYMARK_SPREAD".into())));
        assert_eq!(value_of(&loaded, "sources"), &("4".into(), Origin::File(given.config.unwrap())));
        assert_eq!(value_of(&loaded, "max_skew"), &("60s".into(), Origin::Default));
        assert_eq!((loaded.settings.fold.grace_ms, loaded.settings.fold.sources, loaded.settings.insecure), (3_000, 4, true));
    }

    #[test]
    fn the_file_can_be_named_by_a_variable() {
        let (_dir, given) = file("listen = \"127.0.0.1:9\"");
        let path = given.config.unwrap();
        let loaded = load(&Given::default(), environment(&[("TALLYMARK_CONFIG", path.to_str().unwrap())])).unwrap();
        assert_eq!(value_of(&loaded, "listen"), &("127.0.0.1:9".into(), Origin::File(path)));
    }

    #[test]
    fn unknown_names_are_errors_that_suggest_the_near_one() {
        let (_dir, given) = file("dedup_minute = 5");
        let error = load(&given, environment(&[])).unwrap_err().to_string();
        assert!(error.contains("unknown key \"dedup_minute\"") && error.contains("did you mean \"dedup_minutes\"?"), "{error}");
        let error = load(&Given::default(), environment(&[("TALLYMARK_LISTNE", "x")])).unwrap_err().to_string();
        assert!(error.contains("did you mean \"TALLYMARK_LISTEN\"?"), "{error}");
    }

    #[test]
    fn the_variables_of_kubernetes_services_are_no_settings() {
        for name in ["TALLYMARK_SERVICE_HOST", "TALLYMARK_COLLECT_SERVICE_PORT_HTTP", "TALLYMARK_PORT", "TALLYMARK_PORT_8080_TCP_ADDR"] {
            assert!(load(&Given::default(), environment(&[(name, "tcp://10.0.0.1:8080")])).is_ok(), "{name}");
        }
        assert!(KEYS.iter().all(|key| !is_service_link(&variable_name(key))));
    }

    #[test]
    fn properties_of_kafka_can_be_a_table() {
        let (_dir, given) = file("[kafka_properties]\nlinger.ms = 5\n\"sasl.password\" = \"a,b\"\n\"debug\" = true");
        let properties = load(&given, environment(&[])).unwrap().settings.kafka.properties;
        let expected = [("debug", "true"), ("linger.ms", "5"), ("sasl.password", "a,b")];
        assert_eq!(properties, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn a_refused_value_says_where_it_came_from() {
        let (_dir, given) = file("grace = \"10 weeks\"");
        let error = load(&given, environment(&[])).unwrap_err().to_string();
        assert!(error.contains("grace = \"10 weeks\" (from /") && error.contains("tallymark.toml)"), "{error}");
        let (_dir, given) = file("grace = 1.5");
        assert!(load(&given, environment(&[])).unwrap_err().to_string().contains("a duration from 0 to 10m"));
    }

    #[test]
    fn a_file_that_is_absent_or_no_toml_is_named() {
        let given = Given { config: Some("/nowhere/t.toml".into()), flags: BTreeMap::new() };
        assert!(load(&given, environment(&[])).unwrap_err().to_string().contains("/nowhere/t.toml"));
        let (_dir, given) = file("grace = ");
        assert!(load(&given, environment(&[])).unwrap_err().to_string().contains("line 1"));
    }
}
