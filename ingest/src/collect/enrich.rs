//! What the collector itself knows of an event, put on it before it goes to the log: where and when it came from, and a viewer that
//! names nobody. Pure but for [`DailySalt`].
//!
//! ```text
//! Event, others ──> source (by what was sent) ──> Edge: ts corrected, viewer_id hashed, client_ip user_agent received_at added ──> record
//! ```
//!
//! Invariants. The event id and the source are those of the event as it was sent, so that a retry finds its original: on another
//! instance, after midnight, with `spread`. As soon as anything is added, all three names are the collector's: what a client says
//! under them is dropped. Events marked historical get no members and keep their own: they come from an importer, whose address says
//! nothing; their viewers are hashed like all.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use schemas::{Event, Millis, json};
use sha2::{Digest, Sha256};

use super::skew;

/// The members that are the collector's.
pub const MEMBERS: [&str; 3] = ["client_ip", "user_agent", "received_at"];

/// So much of a user agent is kept, in bytes.
pub const MAX_USER_AGENT_BYTES: usize = 256;

const DAY_MS: i64 = 86_400_000;

/// How much of an address is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressForm {
    /// All of it.
    Full,
    /// Its network: the first 24 bits of IPv4, 48 of IPv6.
    #[default]
    Truncated,
    /// Nothing.
    Off,
}

/// What is to be put on events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enrichment {
    /// `client_ip`.
    pub ip: bool,
    /// `user_agent`.
    pub user_agent: bool,
    /// `received_at`, in Unix ms.
    pub received: bool,
    /// How much of the address.
    pub address_form: AddressForm,
    /// Whether viewer ids are hashed with a salt of the day.
    pub daily_viewers: bool,
}

impl Enrichment {
    /// Whether any member is added.
    const fn adds(&self) -> bool {
        self.ip || self.user_agent || self.received
    }
}

/// Who sends a request, as far as that is put on its events.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
    /// Its `User-Agent`, if there is one.
    pub user_agent: Option<&'a str>,
    /// When its request came.
    pub received: Millis,
}

/// What is done to each event of a request.
#[derive(Debug, Default)]
pub struct Edge {
    historical: bool,
    skew_ms: i64,
    /// The members to add, as a JSON object.
    members: Option<String>,
    viewers: Option<Viewers>,
}

impl Edge {
    /// Events are as they were sent.
    pub fn plain(historical: bool) -> Self {
        Self { historical, ..Self::default() }
    }

    /// What `enrichment` asks for: with the salt of the day, if viewers are hashed, for events that a clock stamped which is off by
    /// `skew_ms`.
    pub fn new(historical: bool, skew_ms: i64, enrichment: &Enrichment, salt: Option<Salt>, sender: &Sender<'_>) -> Self {
        let live = !historical;
        let viewers = salt.filter(|_| enrichment.daily_viewers).map(|salt| Viewers { salt, client: client(sender).filter(|_| live) });
        let members = (live && enrichment.adds()).then(|| members(enrichment, sender));
        Self { historical, skew_ms: if live { skew_ms } else { 0 }, members, viewers }
    }

    /// Whether the events are exempt from `too_old`.
    pub const fn historical(&self) -> bool {
        self.historical
    }

    /// By how much the events are moved.
    pub const fn skew_ms(&self) -> i64 {
        self.skew_ms
    }

    /// The event as it goes to the log, but for its other members. Its source is chosen before.
    pub(super) fn touch(&self, event: &mut Event<'_>) {
        if self.skew_ms != 0 {
            event.ts = skew::corrected(event.ts, self.skew_ms);
        }
        if let Some(viewers) = &self.viewers
            && let Some(name) = viewers.name(event.viewer_id.as_deref())
        {
            event.viewer_id = Some(Cow::Owned(name));
        }
    }

    /// The names that an event may not use for members of its own.
    pub(super) const fn reserved(&self) -> &'static [&'static str] {
        if self.members.is_some() { &MEMBERS } else { &[] }
    }

    /// The other members of an event that has `own` (without reserved names), as a JSON object.
    pub(super) fn others<'a>(&'a self, own: Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        // An address that is not known leaves nothing to add.
        match (own, self.members.as_deref().filter(|added| *added != "{}")) {
            (own, None) => own,
            (None, Some(added)) => Some(Cow::Borrowed(added)),
            (Some(own), Some(added)) => {
                let own = own.trim_end().strip_suffix('}').unwrap_or(&own);
                Some(Cow::Owned(format!("{own},{}", added.strip_prefix('{').unwrap_or(added))))
            }
        }
    }

    /// The other members of a columnar event, whose text is what its sender says it is, without reserved names.
    pub(super) fn checked<'a>(&self, text: Option<&'a str>) -> Option<Cow<'a, str>> {
        let text = text?;
        if self.members.is_none() {
            return Some(Cow::Borrowed(text));
        }
        match json::others_except(text.as_bytes(), self.reserved()) {
            Some(own) => Some(Cow::Owned(own)),
            // An object of reserved names alone is dropped; what is no object is kept as people will see it.
            None if json::is_object(text.as_bytes()) => None,
            None => Some(Cow::Owned(serde_json::json!({ "others": text }).to_string())),
        }
    }
}

fn members(enrichment: &Enrichment, sender: &Sender<'_>) -> String {
    let mut members = serde_json::Map::new();
    if enrichment.ip
        && let Some(address) = sender.address.and_then(|address| shown(address, enrichment.address_form))
    {
        members.insert("client_ip".to_owned(), address.to_string().into());
    }
    if enrichment.user_agent
        && let Some(user_agent) = sender.user_agent
    {
        let end = user_agent.floor_char_boundary(MAX_USER_AGENT_BYTES);
        members.insert("user_agent".to_owned(), user_agent.get(..end).unwrap_or_default().into());
    }
    if enrichment.received {
        members.insert("received_at".to_owned(), sender.received.0.into());
    }
    serde_json::Value::Object(members).to_string()
}

/// As much of an address as is to be kept.
fn shown(address: IpAddr, form: AddressForm) -> Option<IpAddr> {
    match (form, address.to_canonical()) {
        (AddressForm::Off, _) => None,
        (AddressForm::Full, address) => Some(address),
        (AddressForm::Truncated, IpAddr::V4(address)) => Some(Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into()),
        (AddressForm::Truncated, IpAddr::V6(address)) => Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into()),
    }
}

/// What tells a viewer without an id from others: its address and user agent.
fn client(sender: &Sender<'_>) -> Option<String> {
    let address = sender.address?.to_canonical();
    Some(format!("{address}\n{}", sender.user_agent.unwrap_or_default()))
}

/// The secret of a day.
pub type Salt = Arc<[u8; 32]>;

/// Names viewers by a hash that nobody can undo or make again without the day's salt.
#[derive(Debug)]
struct Viewers {
    salt: Salt,
    client: Option<String>,
}

impl Viewers {
    /// 32 hexadecimal digits: 128 bits of SHA-256 over the salt, what kind of thing is hashed, and the thing. The salt is secret and
    /// the hash is cut, so its beginning does not help to make another.
    fn name(&self, viewer_id: Option<&str>) -> Option<String> {
        let (kind, text) = match (viewer_id, &self.client) {
            (Some(viewer_id), _) => (b'v', viewer_id),
            (None, Some(client)) => (b'c', client.as_str()),
            (None, None) => return None,
        };
        let hash = Sha256::new().chain_update(*self.salt).chain_update([kind]).chain_update(text).finalize();
        let mut name = String::with_capacity(32);
        for byte in hash.iter().take(16) {
            // A string takes it.
            let written = write!(name, "{byte:02x}");
            debug_assert!(written.is_ok());
        }
        Some(name)
    }
}

/// The salt of the present UTC day: made from random bytes when it is first needed, kept in this process's memory alone, and gone when
/// the day is over. Each instance has its own, and each start makes a new one.
#[derive(Debug, Default)]
pub(super) struct DailySalt(Mutex<Option<(i64, Salt)>>);

impl DailySalt {
    /// The salt of the day that `now` is in. A clock that goes back does not bring an old one back.
    pub(super) fn of(&self, now: Millis) -> Result<Salt, getrandom::Error> {
        let day = now.0.div_euclid(DAY_MS);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of_day, salt)) = &*kept
            && *of_day >= day
        {
            return Ok(Arc::clone(salt));
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let salt = Arc::new(bytes);
        *kept = Some((day, Arc::clone(&salt)));
        Ok(salt)
    }

    /// Forgets the salt of a day that is over at `now`.
    pub(super) fn forget_before(&self, now: Millis) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|(day, _)| *day < now.0.div_euclid(DAY_MS));
    }
}

/// How long after `now` the UTC day ends.
pub(super) const fn until_midnight_ms(now: Millis) -> i64 {
    DAY_MS - now.0.rem_euclid(DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Millis = Millis(1_763_640_000_000);

    fn sender(address: &str) -> Sender<'_> {
        Sender { address: address.parse().ok(), user_agent: Some("Mozilla/5.0 \"x\""), received: NOON }
    }

    const ALL: Enrichment =
        Enrichment { ip: true, user_agent: true, received: true, address_form: AddressForm::Truncated, daily_viewers: false };

    fn edge(enrichment: &Enrichment, sender: &Sender<'_>) -> Edge {
        Edge::new(false, 0, enrichment, Some(Arc::new([7; 32])), sender)
    }

    #[test]
    fn an_address_is_kept_whole_or_as_its_network_or_not_at_all() {
        for (address, form, expected) in [
            ("203.0.113.77", AddressForm::Full, Some("203.0.113.77")),
            ("203.0.113.77", AddressForm::Truncated, Some("203.0.113.0")),
            ("::ffff:203.0.113.77", AddressForm::Truncated, Some("203.0.113.0")),
            ("2001:db8:1:2:3:4:5:6", AddressForm::Truncated, Some("2001:db8:1::")),
            ("2001:db8:1:2:3:4:5:6", AddressForm::Full, Some("2001:db8:1:2:3:4:5:6")),
            ("203.0.113.77", AddressForm::Off, None),
        ] {
            assert_eq!(shown(address.parse().unwrap(), form).map(|shown| shown.to_string()).as_deref(), expected, "{address} {form:?}");
        }
    }

    #[test]
    fn members_are_added_to_those_that_are_there() {
        let edge = edge(&ALL, &sender("203.0.113.77"));
        let added = r#""client_ip":"203.0.113.0","received_at":1763640000000,"user_agent":"Mozilla/5.0 \"x\""}"#;
        assert_eq!(edge.others(None).unwrap(), format!("{{{added}"));
        assert_eq!(edge.others(Some(r#"{"a":{"b":1}}"#.into())).unwrap(), format!(r#"{{"a":{{"b":1}},{added}"#));
        assert_eq!(Edge::plain(false).others(None), None);
        let nobody = Sender { address: None, user_agent: None, received: NOON };
        let edge = Edge::new(false, 0, &Enrichment { received: false, ..ALL }, None, &nobody);
        assert_eq!((edge.others(None), edge.others(Some("{\"a\":1}".into())).as_deref()), (None, Some("{\"a\":1}")));
        assert_eq!(edge.reserved(), MEMBERS);
    }

    #[test]
    fn names_of_the_collectors_cannot_be_forged_in_a_columnar_event() {
        let edge = edge(&ALL, &sender("203.0.113.77"));
        for (text, kept) in [
            (r#"{"client_ip":"1.1.1.1","a":1,"client\u005fip":"2.2.2.2"}"#, Some(r#"{"a":1}"#)),
            (r#"{"client_ip":"1.1.1.1"}"#, None),
            ("{}", None),
            (r#"no object, "client_ip":"1"}"#, Some(r#"{"others":"no object, \"client_ip\":\"1\"}"}"#)),
        ] {
            assert_eq!(edge.checked(Some(text)).as_deref(), kept, "{text}");
        }
        assert_eq!(Edge::plain(false).checked(Some("as it is")).as_deref(), Some("as it is"));
    }

    #[test]
    fn a_user_agent_is_cut_between_characters() {
        let long = "é".repeat(200);
        let sender = Sender { user_agent: Some(&long[..]), ..sender("203.0.113.77") };
        let edge = edge(&Enrichment { ip: false, received: false, ..ALL }, &sender);
        assert_eq!(edge.others(None).unwrap(), format!(r#"{{"user_agent":"{}"}}"#, "é".repeat(128)));
    }

    #[test]
    fn viewers_are_the_same_within_a_day_and_strangers_the_next() {
        let salts = DailySalt::default();
        let hashed = |now: Millis, viewer: Option<&str>, user_agent: &str| {
            let enrichment = Enrichment { daily_viewers: true, ..Enrichment::default() };
            let sender = Sender { user_agent: Some(user_agent), ..sender("203.0.113.77") };
            let edge = Edge::new(false, 0, &enrichment, Some(salts.of(now).unwrap()), &sender);
            let mut event = json::decode(br#"{"event_id":"e","video_id":"v","ts":1763642096789}"#).unwrap();
            event.viewer_id = viewer.map(|viewer| viewer.to_owned().into());
            edge.touch(&mut event);
            assert_eq!(event.event_id, "e");
            event.viewer_id.unwrap().into_owned()
        };
        let (first, later) = (hashed(NOON, Some("u"), "a"), hashed(NOON.plus(3_600_000), Some("u"), "b"));
        assert_eq!((first.len(), &first), (32, &later));
        let others =
            [hashed(NOON, Some("w"), "a"), hashed(NOON, None, "a"), hashed(NOON, None, "b"), hashed(NOON.plus(DAY_MS), Some("u"), "a")];
        assert!(others.iter().all(|other| *other != first) && others[1] != others[2], "{first} {others:?}");
        // A clock that goes back.
        assert_eq!(hashed(NOON, Some("u"), "a"), others[3]);
    }

    #[test]
    fn a_salt_is_gone_when_its_day_is_over() {
        let salts = DailySalt::default();
        salts.of(NOON).unwrap();
        let midnight = NOON.plus(until_midnight_ms(NOON));
        assert_eq!(midnight.0 % DAY_MS, 0);
        salts.forget_before(midnight.plus(-1));
        assert!(salts.0.lock().unwrap().is_some());
        salts.forget_before(midnight);
        assert!(salts.0.lock().unwrap().is_none());
        assert_eq!(until_midnight_ms(midnight), DAY_MS);
    }

    #[test]
    fn historical_events_keep_their_members_and_their_time_and_not_their_viewers() {
        let enrichment = Enrichment { daily_viewers: true, ..ALL };
        let edge = Edge::new(true, 9_999, &enrichment, Some(Arc::new([7; 32])), &sender("203.0.113.77"));
        assert!(edge.historical() && edge.skew_ms() == 0 && edge.reserved().is_empty());
        assert_eq!(edge.others(Some("{\"client_ip\":1}".into())).unwrap(), "{\"client_ip\":1}");
        let mut event = json::decode(br#"{"event_id":"e","video_id":"v","ts":1763642096789}"#).unwrap();
        edge.touch(&mut event);
        assert_eq!(event.viewer_id, None, "no viewer is made from an importer");
        event.viewer_id = Some("u".into());
        edge.touch(&mut event);
        assert!(event.viewer_id.is_some_and(|viewer| viewer.len() == 32));
    }
}
