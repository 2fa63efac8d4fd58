//! Why a process does not run (any longer), for whoever started it.

use std::net::SocketAddr;

use aggregator::archive::ArchiveError;
use aggregator::recovery::SourceError;
use ingest::LogError;
use thiserror::Error;

use crate::backends::BackendError;
use crate::config::ConfigError;
use crate::tls::TlsError;

/// Why the process does not run (any longer).
#[derive(Debug, Error)]
pub(crate) enum RoleError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(
        "tallymark {role} is one part of many and needs {keys}, so that it can share log and store with the others:\n  \
         tallymark {role} {flags}\nOn one machine, without Kafka and Cassandra, everything is one process: tallymark run"
    )]
    Alone { role: &'static str, keys: &'static str, flags: &'static str },
    #[error(
        "listen = {listen} is reachable from other machines, and there is no key yet: anyone who can connect could write and read counts.\n\
         {way_out}\nOr listen on 127.0.0.1, or say --insecure if the network keeps others out."
    )]
    Exposed { listen: SocketAddr, way_out: &'static str },
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("cannot listen on {listen}: {error}.\n{way_out}")]
    Listen { listen: SocketAddr, error: std::io::Error, way_out: &'static str },
    #[error("{0}")]
    Backend(#[from] BackendError),
    #[error(
        "this process may not write to the topic {topic}: {error}\n\
         {role} needs the rights Write and Describe on it (and aggregate the same on {topic}.rejected). An administrator gives them with:\n  \
         kafka-acls.sh --bootstrap-server {brokers} --add --allow-principal User:NAME --operation Write --operation Describe --topic {topic}"
    )]
    NoWrite { role: &'static str, topic: String, brokers: String, error: LogError },
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Source(SourceError),
    #[error("every source of this process has stopped, the first because of this:\n{0}")]
    AllStopped(SourceError),
    #[error(
        "{what} failed while running: {reason}\nWhat was acknowledged is safe. Mend the cause (disk full? permissions?) and start again."
    )]
    Failed { what: &'static str, reason: String },
    #[error("{0}")]
    Archive(#[from] ArchiveError),
    #[error(
        "tallymark archive keeps an archive and was given no place for it: name one with --archive (a path, file:///PATH or s3://BUCKET/PREFIX)"
    )]
    NoArchive,
    #[error("{0}")]
    Io(#[from] std::io::Error),
}
