//! Where the cluster is, who we are to it, and what a keyspace is made for.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use schemas::{FoldSettings, LogId};

use crate::store::StoreError;

/// The keyspace unless another is named.
pub const DEFAULT_KEYSPACE: &str = "tallymark";

/// How to reach a keyspace.
#[derive(Clone)]
pub struct CassandraOptions {
    /// Nodes to ask first, as `host:port` (or `host`, for port 9042); the rest of the cluster is learnt from them.
    pub nodes: Vec<String>,
    /// The keyspace: 1 to 48 of `a-z`, `0-9` and `_`, beginning with a letter.
    pub keyspace: String,
    /// The data centre whose nodes are used; `None` for what the keyspace was made with.
    pub datacenter: Option<String>,
    /// The role, if the cluster asks for one.
    pub user: Option<String>,
    /// Its password. Never shown.
    pub password: Option<String>,
    /// How connections are encrypted; `None` for not at all.
    pub tls: Option<TlsFiles>,
}

impl Default for CassandraOptions {
    fn default() -> Self {
        Self { nodes: Vec::new(), keyspace: DEFAULT_KEYSPACE.into(), datacenter: None, user: None, password: None, tls: None }
    }
}

// Written by hand, so that no log ever holds a password.
impl fmt::Debug for CassandraOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CassandraOptions")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("datacenter", &self.datacenter)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("tls", &self.tls)
            .finish()
    }
}

/// PEM files of an encrypted connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that sign the nodes' certificates. These must name the nodes' IP addresses (subjectAltName).
    pub ca: PathBuf,
    /// Our certificate chain, if the nodes ask for one.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// What [`migrate`](super::migrate) makes a keyspace for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigratePlan {
    /// How many nodes of the data centre hold each row; 3 bears the loss of one.
    pub replication: u32,
    /// The log whose cells it will hold.
    pub log_id: LogId,
    /// The rules by which they are counted.
    pub settings: FoldSettings,
    /// Copy all hour and day counts again to where they are kept by bucket: programs of before that table may have written since.
    pub fill_lists: bool,
}

impl CassandraOptions {
    /// Where, for errors.
    pub(super) fn place(&self) -> String {
        format!("keyspace {} at {}", self.keyspace, self.nodes.join(", "))
    }

    /// An error of opening it.
    pub(super) fn cannot_open(&self, detail: impl Into<String>) -> StoreError {
        StoreError::Open { path: self.place(), detail: detail.into() }
    }

    /// Checks what can be checked without the cluster.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.nodes.iter().all(|node| node.trim().is_empty()) {
            return Err(self.cannot_open("no node is named; set cassandra_nodes to host:port of one or more nodes"));
        }
        let name = self.keyspace.as_bytes();
        let plain = name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_');
        if !plain || name.len() > 48 || !name.first().is_some_and(u8::is_ascii_lowercase) {
            return Err(self.cannot_open("a keyspace's name has 1 to 48 of a-z, 0-9 and _, and begins with a letter"));
        }
        match (&self.user, &self.password) {
            (None, Some(_)) => Err(self.cannot_open("there is a password but no user; set cassandra_user")),
            (Some(user), None) => Err(self.cannot_open(format!("user {user} has no password; set cassandra_password_file"))),
            _ => Ok(()),
        }
    }

    /// The data centre to use, when the cluster has `known`: the one that is named, which must be there.
    pub(super) fn check_datacenter(&self, known: &BTreeSet<String>) -> Result<(), StoreError> {
        match &self.datacenter {
            Some(asked) if !known.contains(asked) => {
                let known: Vec<_> = known.iter().map(String::as_str).collect();
                Err(self.cannot_open(format!("the cluster has no data centre {asked}, but {}; see cassandra_datacenter", known.join(", "))))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CassandraOptions {
        CassandraOptions { nodes: vec!["127.0.0.1:9042".into()], ..CassandraOptions::default() }
    }

    #[test]
    fn no_password_is_ever_shown() {
        let shown = format!("{:?}", CassandraOptions { user: Some("u".into()), password: Some("s3cret".into()), ..options() });
        assert!(!shown.contains("s3cret") && shown.contains("(hidden)"), "{shown}");
    }

    #[test]
    fn a_bad_name_half_a_login_and_no_nodes_are_refused_before_anything_is_asked() {
        assert!(options().check().is_ok());
        for keyspace in ["", "Views", "a-b", "1a", "a b", &"a".repeat(49)] {
            assert!(CassandraOptions { keyspace: keyspace.into(), ..options() }.check().is_err(), "{keyspace:?}");
        }
        assert!(CassandraOptions { nodes: vec![], ..options() }.check().is_err());
        assert!(CassandraOptions { user: Some("u".into()), ..options() }.check().is_err());
        assert!(CassandraOptions { password: Some("p".into()), ..options() }.check().is_err());
    }

    #[test]
    fn an_unknown_data_centre_is_refused_with_the_names_of_those_that_are() {
        let known = BTreeSet::from(["east".to_owned(), "west".to_owned()]);
        assert!(options().check_datacenter(&known).is_ok());
        let asked = |name: &str| CassandraOptions { datacenter: Some(name.into()), ..options() }.check_datacenter(&known);
        assert!(asked("west").is_ok());
        let error = asked("north").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("north") && error.contains("east, west"), "{error}");
    }
}
