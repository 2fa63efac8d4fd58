//! How many files (connections count as such) this process may have open, and so how many connections it takes.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the log, the store, their backends and the runtime.
const FOR_OTHERS: u64 = 512;

/// Raises the limit as far as `max_connections` needs and the system lets us. Returns for how many connections it is enough.
pub(super) fn allow(max_connections: usize) -> usize {
    let wanted = u64::try_from(max_connections).unwrap_or(u64::MAX).saturating_add(FOR_OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let Some(soft) = current.filter(|soft| *soft < wanted) else { return max_connections };
    let raised = maximum.map_or(wanted, |hard| hard.min(wanted));
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays");
            soft
        }
    };
    if limit >= wanted {
        tracing::info!(from = soft, to = limit, "the limit of open files was raised, so that `max_connections` can be open");
        return max_connections;
    }
    let connections = usize::try_from(enough_for(limit)).unwrap_or(max_connections);
    tracing::warn!(
        limit,
        connections,
        "fewer connections than `max_connections` can be open: the system lets this process open too few files; raise the hard limit \
         (`ulimit -Hn`, LimitNOFILE= of systemd) or lower `max_connections`"
    );
    connections
}

/// For how many connections a limit is enough: half of it, if it is very low.
fn enough_for(limit: u64) -> u64 {
    limit.saturating_sub(FOR_OTHERS).max(limit / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_enough_for_what_is_promised() {
        let promised = allow(1_000_000);
        let soft = getrlimit(Resource::Nofile).current;
        assert!(soft.is_none_or(|soft| u64::try_from(promised).unwrap() < soft), "{promised} of {soft:?}");
        assert_eq!(allow(10), 10);
    }

    #[test]
    fn a_low_limit_is_shared_in_halves() {
        assert_eq!([1, 256, 1_024, 20_000].map(enough_for), [1, 128, 512, 19_488]);
    }
}
