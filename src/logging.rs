//! The program's own messages, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings};

/// Begins to write messages of the configured level and format. A second call changes nothing.
pub(crate) fn start(settings: &Settings) {
    // The storage engine and the driver tell at `info` what only their authors want to know.
    let filter = EnvFilter::new(format!("{},fjall=warn,lsm_tree=warn,scylla=warn", settings.log_level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // Nobody may be there who reads; it would complain of that there, and what broke would be the work on a request.
    let builder = builder.log_internal_errors(false);
    let started = match settings.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Only a second call fails.
    drop(started);
}
