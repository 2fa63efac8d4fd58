//! The archive of this deployment: kept by `tallymark run` and `tallymark archive`, looked at and checked by its subcommands.
//!
//! | module | holds |
//! |---|---|
//! | `keeping` | archiving for ever, beside whatever else the process does |
//! | `command` | `tallymark archive status`, `verify`, `forget-viewer` |

mod command;
mod keeping;

pub(crate) use command::{ArchiveCommand, archive};
pub(crate) use keeping::{Keeping, open};
