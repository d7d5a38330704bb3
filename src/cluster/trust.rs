//! The authority that replicas share, as the Secret holds it, and what is due for it: pure functions
//! of the Secret, the clock and how long the API servers have trusted what is in it.
//!
//! An authority is replaced in phases, so that at no moment a replica shows a certificate that an API
//! server does not trust yet, or any more:
//!
//! 1. [`Step::Introduce`]: a new pair is put beside the current one as `next`. Both certificates go
//!    into `caBundle`; replicas go on signing with the current one.
//! 2. [`Step::Promote`]: once every registration has had both for [`SETTLED`], `next` becomes the
//!    current pair and replicas sign with it. The old key is gone; its certificate stays, as `previous`.
//! 3. [`Step::Retire`]: once the longest leaf that the old one signed has ended, it is dropped.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::tls::authority::LEAF;
use crate::tls::pair::{Pair, Torn, validity_of};
use crate::tls::{Error, Validity};

/// How long an authority is valid. It is replaced after half of it, and so has half a year for
/// everything that keeps a replica from doing so; as it goes by itself twice a year, it is known to
/// work when a key leaks.
pub(super) const LIFE: Duration = Duration::from_hours(365 * 24);
/// How long a bundle is in force before anybody signs with what is new in it. API servers hear of a
/// registration by a watch, within about a second; one whose watch has just broken waits up to half a
/// minute before it tries again (client-go `tools/cache/reflector.go`). Twice that.
pub(super) const SETTLED: Duration = Duration::from_mins(1);

/// What a good Secret holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trust {
    /// What replicas sign with.
    pub(super) current: Pair,
    /// What they will sign with.
    pub(super) next: Option<Pair>,
    /// What they signed with.
    pub(super) previous: Option<Previous>,
}

/// An authority that signs no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Previous {
    certificate: String,
    /// When the last leaf that it signed has ended.
    until: SystemTime,
}

/// A Secret that holds no whole authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key `{key}` {problem}")]
pub(super) struct BadSecret {
    key: &'static str,
    problem: String,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no authority, or one whose time is over: make one, and sign with it at once.
    Create,
    /// Put a new one beside the current one.
    Introduce,
    /// Nothing.
    None,
    /// Sign with the new one.
    Promote,
    /// Drop the old one.
    Retire,
}

/// What is due at a moment; `settled` is how long every registration has trusted all that is in the
/// Secret, if it does. An authority that may not sign for all of `names` is replaced as one that is old.
pub(super) fn due(
    trust: Option<&Trust>,
    names: &[String],
    now: SystemTime,
    settled: Option<Duration>,
) -> Step {
    let Some(trust) = trust else { return Step::Create };
    let current = trust.current.validity();
    if now > current.not_after {
        return Step::Create;
    }
    if let Some(next) = &trust.next {
        let settled = settled.is_some_and(|settled| settled >= SETTLED);
        return match next.validity() {
            next if now > next.not_after => Step::Introduce,
            next if settled && now >= next.not_before => Step::Promote,
            _ => Step::None,
        };
    }
    if now >= middle(current) || !names.iter().all(|name| trust.current.permits(name)) {
        return Step::Introduce;
    }
    match &trust.previous {
        Some(previous) if now > previous.until => Step::Retire,
        _ => Step::None,
    }
}

/// Half of its life: also of one that somebody else made and put there.
fn middle(validity: Validity) -> SystemTime {
    let life = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    validity.not_before + life / 2
}

impl Trust {
    /// The first authority, or the one after one that ended; it signs for `names`.
    pub(super) fn create(names: &[String], now: SystemTime) -> Result<Self, Error> {
        Ok(Self { current: Pair::new(LIFE, now, names)?, next: None, previous: None })
    }

    /// The same with a new pair beside the current one.
    pub(super) fn introduce(self, names: &[String], now: SystemTime) -> Result<Self, Error> {
        Ok(Self { next: Some(Pair::new(LIFE, now, names)?), ..self })
    }

    /// The same with the new pair as the one that signs.
    pub(super) fn promote(self, now: SystemTime) -> Self {
        let Self { current, next, previous } = self;
        let Some(next) = next else { return Self { current, next, previous } };
        let previous =
            Previous { certificate: current.certificate().to_owned(), until: whole(now + LEAF) };
        Self { current: next, next: None, previous: Some(previous) }
    }

    /// The same without the old one.
    pub(super) fn retire(self) -> Self {
        Self { previous: None, ..self }
    }

    /// All certificates that are to be trusted, PEM, as `caBundle` holds them.
    pub(super) fn bundle(&self) -> String {
        self.certificates().collect()
    }

    /// Every certificate that is to be trusted, PEM.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &str> {
        let next = self.next.as_ref().map(Pair::certificate);
        let previous = self.previous.as_ref().map(|previous| previous.certificate.as_str());
        [Some(self.current.certificate()), next, previous].into_iter().flatten()
    }

    /// What the data of a Secret holds; `None` if nothing.
    pub(super) fn read(data: &BTreeMap<String, ByteString>) -> Result<Option<Self>, BadSecret> {
        if KEYS.iter().all(|key| data.get(*key).is_none_or(|bytes| bytes.0.is_empty())) {
            return Ok(None);
        }
        let current = pair(data, CURRENT)?
            .ok_or_else(|| BadSecret { key: CURRENT[0], problem: "is missing".to_owned() })?;
        let next = pair(data, NEXT)?;
        let previous = match text(data, PREVIOUS)? {
            None => None,
            Some(certificate) => Some(Previous::read(certificate, text(data, UNTIL)?)?),
        };
        Ok(Some(Self { current, next, previous }))
    }

    /// The data of the Secret, as a merge patch: what is not there is removed.
    pub(super) fn to_patch(&self) -> Value {
        let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        let pair = |pair: Option<&Pair>, [certificate, key]: [&'static str; 2]| {
            [
                (certificate, pair.map_or(Value::Null, |pair| bytes(pair.certificate()))),
                (key, pair.map_or(Value::Null, |pair| bytes(pair.key()))),
            ]
        };
        let previous = self.previous.as_ref();
        let old = [
            (PREVIOUS, previous.map_or(Value::Null, |old| bytes(&old.certificate))),
            (UNTIL, previous.map_or(Value::Null, |old| bytes(&old.until_text()))),
        ];
        let current = pair(Some(&self.current), CURRENT);
        let data = current.into_iter().chain(pair(self.next.as_ref(), NEXT)).chain(old);
        data.map(|(key, value)| (key.to_owned(), value)).collect::<serde_json::Map<_, _>>().into()
    }
}

impl Previous {
    /// One whose end cannot be read is kept to its own end.
    fn read(certificate: &str, until: Option<&str>) -> Result<Self, BadSecret> {
        let own = validity_of(certificate).map_err(bad(PREVIOUS))?.not_after;
        let until = until.and_then(|until| until.trim().parse::<Timestamp>().ok());
        let until = until.map_or(own, |until| SystemTime::from(until).min(own));
        Ok(Self { certificate: certificate.to_owned(), until })
    }

    fn until_text(&self) -> String {
        Timestamp::try_from(self.until).map_or_else(|_| String::new(), |until| until.to_string())
    }
}

const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const PREVIOUS: &str = "previous.crt";
const UNTIL: &str = "previous.until";
const KEYS: [&str; 5] = ["ca.crt", "ca.key", "next.crt", "next.key", PREVIOUS];

fn pair(
    data: &BTreeMap<String, ByteString>,
    [certificate, key]: [&'static str; 2],
) -> Result<Option<Pair>, BadSecret> {
    match (text(data, certificate)?, text(data, key)?) {
        (None, None) => Ok(None),
        (Some(pem), Some(pem_key)) => Pair::read(pem, pem_key).map(Some).map_err(bad(certificate)),
        (None, Some(_)) => Err(BadSecret { key: certificate, problem: "is missing".to_owned() }),
        (Some(_), None) => Err(BadSecret { key, problem: "is missing".to_owned() }),
    }
}

/// Whole seconds, as the Secret is to be read by people too.
fn whole(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// A text of the Secret; an empty one is none.
fn text<'a>(
    data: &'a BTreeMap<String, ByteString>,
    key: &'static str,
) -> Result<Option<&'a str>, BadSecret> {
    let Some(bytes) = data.get(key).filter(|bytes| !bytes.0.is_empty()) else { return Ok(None) };
    let not_text = |_| BadSecret { key, problem: "is no text".to_owned() };
    std::str::from_utf8(&bytes.0).map(Some).map_err(not_text)
}

fn bad(key: &'static str) -> impl Fn(Torn) -> BadSecret {
    move |torn| BadSecret { key, problem: torn.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * 20_000
    }

    fn data(trust: &Trust) -> BTreeMap<String, ByteString> {
        let patch = trust.to_patch();
        let data = patch.as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
        data.map(|(key, value)| (key.clone(), serde_json::from_value(value.clone()).unwrap()))
            .collect()
    }

    #[test]
    fn what_is_due_follows_from_the_secret_and_the_clock() {
        let stable = Trust::create(&[], start()).unwrap();
        let introduced = stable.clone().introduce(&[], start() + DAY * 183).unwrap();
        let promoted = introduced.clone().promote(start() + DAY * 183);
        let (short, long) = (SETTLED.saturating_sub(Duration::from_secs(1)), SETTLED);
        for (name, trust, day, settled, step) in [
            ("nothing", None, 0, None, Step::Create),
            ("new", Some(&stable), 0, None, Step::None),
            ("new, in force", Some(&stable), 0, Some(DAY), Step::None),
            ("before half", Some(&stable), 182, Some(DAY), Step::None),
            ("half", Some(&stable), 183, None, Step::Introduce),
            ("clock set back", Some(&stable), -30, Some(DAY), Step::None),
            ("ended", Some(&stable), 366, Some(DAY), Step::Create),
            ("not in force", Some(&introduced), 184, None, Step::None),
            ("just in force", Some(&introduced), 184, Some(short), Step::None),
            ("settled", Some(&introduced), 184, Some(long), Step::Promote),
            ("settled before it begins", Some(&introduced), 182, Some(long), Step::None),
            ("introduced, ended", Some(&introduced), 366, None, Step::Create),
            ("promoted", Some(&promoted), 184, Some(DAY), Step::None),
            ("a leaf may live", Some(&promoted), 183 + 30, Some(DAY), Step::None),
            ("no leaf lives", Some(&promoted), 183 + 31, None, Step::Retire),
            ("half again", Some(&promoted), 183 + 183, None, Step::Introduce),
        ] {
            let day_length = i64::try_from(DAY.as_secs()).unwrap();
            let since = 20_000 * day_length + day * day_length;
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(since).unwrap());
            assert_eq!(due(trust, &[], now, settled), step, "{name}");
        }
        // The next one ended before anybody trusted it, while the current one has a longer life.
        let mut late = introduced;
        late.next = Some(Pair::new(DAY, start(), &[]).unwrap());
        assert_eq!(due(Some(&late), &[], start() + DAY * 2, Some(DAY)), Step::Introduce);
    }

    #[test]
    fn an_authority_that_may_not_sign_for_our_names_is_replaced_at_once() {
        let [old, new] = ["localhost", "host.example"].map(str::to_owned);
        let trust = Trust::create(std::slice::from_ref(&old), start()).unwrap();
        let of =
            |trust: &Trust, names: &[String], settled| due(Some(trust), names, start(), settled);
        let both = [old.clone(), new];
        assert_eq!(of(&trust, &both[..1], None), Step::None);
        assert_eq!(of(&trust, &both, None), Step::Introduce);
        let introduced = trust.introduce(&both, start()).unwrap();
        assert_eq!(of(&introduced, &both, None), Step::None, "once, and then it is waited for");
        assert_eq!(of(&introduced, &both, Some(SETTLED)), Step::Promote);
        let promoted = introduced.promote(start());
        assert_eq!(of(&promoted, &both, Some(DAY)), Step::None);
        assert_eq!(
            of(&promoted, &both[..1], Some(DAY)),
            Step::None,
            "fewer names need no other one"
        );
    }

    #[test]
    fn every_state_is_read_back_from_the_secret() {
        let stable = Trust::create(&[], start()).unwrap();
        let introduced = stable.clone().introduce(&[], start()).unwrap();
        let promoted = introduced.clone().promote(start() + Duration::from_nanos(1));
        assert_eq!(promoted.certificates().count(), 2);
        for trust in [stable, introduced, promoted] {
            assert_eq!(Trust::read(&data(&trust)), Ok(Some(trust)));
        }
    }

    #[test]
    fn a_secret_that_is_not_whole_is_told_by_its_key() {
        let trust = Trust::create(&[], start()).unwrap().introduce(&[], start()).unwrap();
        let promoted = trust.clone().promote(start());
        let changed = |trust: &Trust, key: &str, text: Option<&[u8]>| {
            let mut data = data(trust);
            match text {
                Some(text) => data.insert(key.to_owned(), ByteString(text.to_vec())),
                None => data.remove(key),
            };
            Trust::read(&data).map_err(|bad| bad.to_string())
        };
        let other = Pair::new(DAY, start(), &[]).unwrap();
        for (key, text, told) in [
            ("ca.crt", None, "key `ca.crt` is missing"),
            ("ca.key", None, "key `ca.key` is missing"),
            ("ca.key", Some(&b""[..]), "key `ca.key` is missing"),
            ("ca.crt", Some(b"x"), "key `ca.crt` is no single PEM certificate"),
            ("ca.key", Some(b"\xff"), "key `ca.key` is no text"),
            (
                "ca.key",
                Some(other.key().as_bytes()),
                "key `ca.crt` has a key that does not belong to its certificate",
            ),
            ("next.key", None, "key `next.key` is missing"),
            ("previous.crt", Some(b"x"), "key `previous.crt` is no single PEM certificate"),
        ] {
            assert_eq!(changed(&trust, key, text), Err(told.to_owned()));
        }
        let until = |text: &[u8]| changed(&promoted, UNTIL, Some(text)).unwrap().unwrap();
        let own_end = trust.current.validity().not_after;
        for text in [&b""[..], b"soon", b"9999-01-01T00:00:00Z"] {
            assert_eq!(until(text).previous.unwrap().until, own_end);
        }
        assert_eq!(Trust::read(&BTreeMap::new()), Ok(None));
        let empty = KEYS.map(|key| (key.to_owned(), ByteString::default()));
        assert_eq!(Trust::read(&BTreeMap::from(empty)), Ok(None));
    }
}
