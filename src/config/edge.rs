//! The settings of what the collector believes of a request and puts on its events.

use std::net::IpAddr;

use ingest::collect::enrich::{AddressForm, Enrichment};
use ipnet::IpNet;

/// Networks and single addresses, by commas.
pub(super) fn networks(text: &str) -> Option<Vec<IpNet>> {
    let network = |text: &str| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    listed(text).map(network).collect()
}

/// What is put on events, each once.
pub(super) fn members(enrichment: &mut Enrichment, text: &str) -> Option<()> {
    let chosen = Enrichment { ip: false, user_agent: false, received: false, ..*enrichment };
    *enrichment = listed(text).try_fold(chosen, |mut chosen, name| {
        let member = match name {
            "ip" => &mut chosen.ip,
            "user_agent" => &mut chosen.user_agent,
            "received" => &mut chosen.received,
            _ => return None,
        };
        (!std::mem::replace(member, true)).then_some(chosen)
    })?;
    Some(())
}

/// How much of an address.
pub(super) fn address_form(text: &str) -> Option<AddressForm> {
    match text {
        "full" => Some(AddressForm::Full),
        "truncated" => Some(AddressForm::Truncated),
        "off" => Some(AddressForm::Off),
        _ => None,
    }
}

/// Whether viewers are hashed with a salt of the day.
pub(super) fn daily(text: &str) -> Option<bool> {
    match text {
        "off" => Some(false),
        "daily" => Some(true),
        _ => None,
    }
}

/// The parts of a list; a text that is empty has none.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(move |_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_networks_or_addresses() {
        let shown = |text| networks(text).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        assert_eq!(shown("").as_deref(), Some(""));
        assert_eq!(shown("10.0.0.0/8, 192.0.2.7,fd00::/8,::1").as_deref(), Some("10.0.0.0/8 192.0.2.7/32 fd00::/8 ::1/128"));
        for bad in [",", "10.0.0.0/33", "10.0.0", "proxy.example", "10.0.0.1,"] {
            assert!(networks(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn each_member_is_named_once() {
        let read = |text| {
            let mut enrichment = Enrichment::default();
            members(&mut enrichment, text).map(|()| (enrichment.ip, enrichment.user_agent, enrichment.received))
        };
        assert_eq!(read(""), Some((false, false, false)));
        assert_eq!(read("received, ip"), Some((true, false, true)));
        for bad in ["ip,ip", "IP", "all", "ip,"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
