//! The text of a key, and what is kept of its secret.
//!
//! The secret has 256 random bits. Whoever has its hash finds it by trying 2^255 of them, so a plain SHA-256 is as good as a slow,
//! salted hash: those protect words that people choose, which can be guessed. And it can be checked at every request.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "tm_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// So many random bytes make a key.
pub const RANDOM_BYTES: usize = ID_BYTES + SECRET_BYTES;

/// A key's public name: 16 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// That of a text.
    pub fn parse(text: &str) -> Option<Self> {
        unhex::<ID_BYTES>(text).map(|_| Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As shared text.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for KeyId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text).ok_or("a key's id has 16 lower-case hexadecimal digits")
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.as_str().to_owned()
    }
}

/// A whole key, its secret in it.
#[derive(Clone)]
pub struct Token {
    id: KeyId,
    secret: [u8; SECRET_BYTES],
}

// Written by hand, so that no log ever holds a secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Token {
    /// A new one, made of what the system's random number generator gave.
    pub fn from_random(random: [u8; RANDOM_BYTES]) -> Self {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        id.iter_mut().chain(&mut secret).zip(random).for_each(|(to, byte)| *to = byte);
        Self { id: KeyId(hex(&id).into()), secret }
    }

    /// That of a text, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: KeyId::parse(id)?, secret: unhex(secret)? })
    }

    /// Its public name.
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// What is kept of its secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret).into())
    }

    /// The text, with the secret: to be shown to its owner, once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, hex(&self.secret))
    }
}

/// The SHA-256 of a secret's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash of no secret that anybody knows: what a key that does not exist is compared with, so that it takes as long.
    pub const NOBODY: Self = Self([0; 32]);

    /// Whether it is the same, found out in a time that does not depend on where the two differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    /// That of a text: 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl TryFrom<String> for SecretHash {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text).ok_or("a hash has 64 lower-case hexadecimal digits")
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        hash.to_string()
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Exactly so many bytes. One text for each value: no capitals, no spaces.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
        *to = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> [u8; RANDOM_BYTES] {
        std::array::from_fn(|n| u8::try_from(n * 6).unwrap())
    }

    #[test]
    fn a_key_reads_back_and_says_its_id() {
        let token = Token::from_random(random());
        let text = token.reveal();
        assert!(text.starts_with("tm_00060c12181e242a_30363c42") && text.len() == 3 + 16 + 1 + 64, "{text}");
        let read = Token::parse(&text).unwrap();
        assert_eq!((read.id(), read.reveal()), (token.id(), text));
        assert!(read.hash().matches(&token.hash()));
    }

    #[test]
    fn the_hash_is_the_sha_256_of_the_secrets_bytes() {
        let token = Token::from_random([0; RANDOM_BYTES]);
        assert_eq!(token.hash().to_string(), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }

    #[test]
    fn what_has_another_form_is_no_key() {
        let good = Token::from_random(random()).reveal();
        let upper = good.replace('c', "C");
        let long = format!("{good}0");
        let spaced = format!(" {good}");
        let signed = good.replacen("tm_00", "tm_+0", 1);
        for bad in ["", "tm_", "tm__", "tm_00060c12181e242a", "xx_1_2", &good[1..], &good[..83], &long, &upper, &spaced, &signed, "tm_é_é"]
        {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn one_other_bit_is_another_secret() {
        let own = Token::from_random(random());
        for byte in 0..RANDOM_BYTES {
            let mut other = random();
            other[byte] ^= 1;
            let other = Token::from_random(other);
            assert_eq!(other.hash().matches(&own.hash()), byte < ID_BYTES, "{byte}");
            assert_eq!(other.id() == own.id(), byte >= ID_BYTES, "{byte}");
        }
        assert!(!own.hash().matches(&SecretHash::NOBODY));
    }

    #[test]
    fn nothing_that_is_printed_holds_the_secret() {
        let token = Token::from_random(random());
        let secret = token.reveal().rsplit_once('_').unwrap().1.to_owned();
        let shown = format!("{token:?} {:?} {}", token.hash(), token.id());
        assert!(!shown.contains(&secret) && !shown.contains(&secret[..8]), "{shown}");
    }
}
