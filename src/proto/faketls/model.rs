//! What is known of a site's first flights, and what ours looks like accordingly (protocol.md 5.4, 5.5).
//! Filled by the mask thread's probes, asked for each fake-TLS client.

use alloc::collections::VecDeque;

use crate::limits::{
    FALLBACK_FLIGHT, FALLBACK_FLIGHT_SPREAD, FLIGHTS_KEPT, MAX_FLIGHT, MIN_FLIGHT,
};
use crate::proto::faketls::client_hello::ClientHello;
use crate::proto::faketls::flight::Flight;
use crate::proto::faketls::probe::Kind;
use crate::proto::faketls::record::HEADER;
use crate::proto::faketls::server_hello::{CHANGE_CIPHER, Look, first_flight_len};

/// What is known of a site; nothing at first.
#[derive(Default)]
pub struct Model {
    /// The flight's length while nothing is known, the same for everybody: sites don't change theirs.
    guess: usize,
    /// The latest flights for each kind of hello, the newest last; at most [`FLIGHTS_KEPT`].
    seen: [VecDeque<Choice>; Kind::ALL.len()],
}

/// What a server chooses for its first flight: seen at a site, or made for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// What the ServerHello chooses.
    pub look: Look,
    /// Payload of the one encrypted record.
    pub flight: usize,
    /// After how many bytes the first segment ends; None: it goes out as one.
    pub split: Option<usize>,
}

impl Model {
    /// Nothing is known; `random` decides how long flights are until something is.
    pub fn unknown(random: u32) -> Model {
        let spread = random.checked_rem(FALLBACK_FLIGHT_SPREAD).unwrap_or(0);
        Model {
            guess: FALLBACK_FLIGHT.saturating_add(spread as usize),
            ..Model::default()
        }
    }

    /// Notes a flight that followed a hello of this kind, and how many bytes of it the first read gave.
    pub fn note(&mut self, kind: Kind, flight: &Flight, first_read: usize) {
        let Flight { look, encrypted } = *flight;
        let whole = first_flight_len(&look, encrypted);
        let split = Some(first_read).filter(|at| *at < whole && is_deliberate(&look, *at));
        if let Some(ring) = self.seen.get_mut(kind.index()) {
            if ring.len() >= FLIGHTS_KEPT {
                ring.pop_front();
            }
            let flight = encrypted.clamp(MIN_FLIGHT, MAX_FLIGHT);
            ring.push_back(Choice {
                look,
                flight,
                split,
            });
        }
    }

    /// The flight that the site would send to this client: with a cipher that the client offers, and a
    /// hybrid key share only if it sent one and `hybrid_allowed`. `random` chooses among the lengths that
    /// were seen.
    pub fn choose(&self, hello: &ClientHello, hybrid_allowed: bool, random: u32) -> Choice {
        let kind = Kind::of(hello);
        let site = self.latest(kind, random).unwrap_or(Choice {
            look: Look {
                cipher: kind.first,
                hybrid: false,
                versions_first: false,
            },
            flight: self.guess,
            split: None,
        });
        let mut look = site.look;
        if !hello.offers(look.cipher) {
            look.cipher = kind.first;
        }
        let hybrid_only = !hello.has_x25519_share();
        look.hybrid = (look.hybrid || hybrid_only) && kind.hybrid && hybrid_allowed;
        Choice {
            look,
            flight: site.flight,
            split: site.split.filter(|_| look == site.look),
        }
    }

    /// The latest look of the site towards this kind of hello, or towards the nearest kind that is
    /// known, with one of the lengths that it had.
    fn latest(&self, kind: Kind, random: u32) -> Option<Choice> {
        let known = |kind: Kind| self.seen.get(kind.index()).filter(|ring| !ring.is_empty());
        let hybrid = !kind.hybrid;
        let ring = known(kind)
            .or_else(|| known(Kind { hybrid, ..kind }))
            .or_else(|| self.seen.iter().find(|ring| !ring.is_empty()))?;
        let look = ring.back()?.look;
        let same = || ring.iter().filter(|seen| seen.look == look);
        let drawn = same().nth((random as usize).checked_rem(same().count())?)?;
        // The earliest: two writes of a server may well have been read as one.
        let split = same().filter_map(|seen| seen.split).min();
        Some(Choice {
            split: split.filter(|at| *at < first_flight_len(&look, drawn.flight)),
            ..*drawn
        })
    }
}

/// Whether a server may have ended a write there: after its ServerHello or ChangeCipherSpec, or with
/// a full buffer. Anywhere else the network has cut its flight, and will cut ours.
fn is_deliberate(look: &Look, at: usize) -> bool {
    let encrypted = first_flight_len(look, 0).saturating_sub(HEADER);
    let ends = [encrypted, encrypted.saturating_sub(CHANGE_CIPHER.len())];
    ends.contains(&at) || (at > 0 && at.is_multiple_of(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::faketls::client_hello::Cipher;
    use crate::proto::faketls::probe;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn kind(hybrid: bool, first: Cipher) -> Kind {
        Kind { hybrid, first }
    }

    fn look(cipher: Cipher, hybrid: bool) -> Look {
        Look {
            cipher,
            hybrid,
            versions_first: true,
        }
    }

    fn sent(kind: Kind) -> Vec<u8> {
        probe::hello("example.com", kind, &mut |b| b.fill(3))
    }

    fn choose(model: &Model, kind: Kind, hybrid_allowed: bool, random: u32) -> Choice {
        let sent = sent(kind);
        let hello = ClientHello::parse(&sent).unwrap();
        assert_eq!(Kind::of(&hello), kind);
        model.choose(&hello, hybrid_allowed, random)
    }

    fn note(model: &mut Model, kind: Kind, look: Look, encrypted: usize, first_read: usize) {
        model.note(kind, &Flight { look, encrypted }, first_read);
    }

    #[test]
    fn kinds_have_each_a_place() {
        for (place, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(kind.index(), place);
            assert_eq!(Kind::of(&ClientHello::parse(&sent(*kind)).unwrap()), *kind);
        }
    }

    #[test]
    fn where_nothing_is_known_the_client_chooses() {
        let model = Model::unknown(2701 * 5 + 70);
        for (random, kind) in (0..).zip(Kind::ALL) {
            let choice = choose(&model, kind, true, random);
            let expected = Look {
                cipher: kind.first,
                hybrid: false,
                versions_first: false,
            };
            assert_eq!(choice.look, expected);
            assert_eq!((choice.flight, choice.split), (2070, None));
        }
        let flights =
            [0, 2700, 2701].map(|r| choose(&Model::unknown(r), Kind::ALL[0], true, 7).flight);
        assert_eq!(flights, [2000, 4700, 2000]);
    }

    #[test]
    fn each_kind_is_answered_as_it_was() {
        let mut model = Model::default();
        let (old, new) = (kind(false, Cipher::Aes128), kind(true, Cipher::ChaCha20));
        note(&mut model, old, look(Cipher::Aes256, false), 3000, 9999);
        note(&mut model, new, look(Cipher::ChaCha20, true), 4000, 1215);
        let choice = choose(&model, old, true, 1);
        let expected = Choice {
            look: look(Cipher::Aes256, false),
            flight: 3000,
            split: None,
        };
        assert_eq!(choice, expected);
        let choice = choose(&model, new, true, 1);
        let expected = Choice {
            look: look(Cipher::ChaCha20, true),
            flight: 4000,
            split: Some(1215),
        };
        assert_eq!(choice, expected);
        let choice = choose(&model, new, false, 1);
        assert_eq!(choice.look, look(Cipher::ChaCha20, false));
        assert_eq!((choice.flight, choice.split), (4000, None));
    }

    #[test]
    fn the_nearest_kind_stands_in_and_stays_legal() {
        let mut model = Model::default();
        let known = kind(true, Cipher::Aes256);
        note(&mut model, known, look(Cipher::Aes256, true), 3000, 1200);
        for other in [kind(false, Cipher::Aes256), kind(false, Cipher::Aes128)] {
            let choice = choose(&model, other, true, 0);
            assert_eq!(choice.look, look(Cipher::Aes256, false));
            assert_eq!((choice.flight, choice.split), (3000, None));
        }
        // The same first cipher counts for more than the same key shares.
        let near = kind(false, Cipher::Aes128);
        note(&mut model, near, look(Cipher::Aes128, false), 2500, 127);
        let choice = choose(&model, kind(true, Cipher::Aes128), true, 0);
        assert_eq!(choice.look, look(Cipher::Aes128, false));
        assert_eq!((choice.flight, choice.split), (2500, Some(127)));
        let choice = choose(&model, kind(false, Cipher::Aes256), true, 0);
        assert_eq!(choice.look, look(Cipher::Aes256, false));
        assert_eq!(choice.flight, 3000);
    }

    #[test]
    fn a_cipher_that_the_client_lacks_is_not_chosen() {
        let mut model = Model::default();
        let apple = kind(false, Cipher::ChaCha20);
        note(&mut model, apple, look(Cipher::Aes256, false), 3000, 127);
        let mut sent = sent(apple);
        let at = 76 + 2 + 2;
        assert_eq!(sent[at..at + 6], [0x13, 3, 0x13, 1, 0x13, 2]);
        sent[at + 5] = 9;
        let hello = ClientHello::parse(&sent).unwrap();
        let choice = model.choose(&hello, true, 0);
        assert_eq!(choice.look, look(Cipher::ChaCha20, false));
        assert_eq!((choice.flight, choice.split), (3000, None));
    }

    #[test]
    fn a_client_with_nothing_but_a_hybrid_key_gets_one() {
        let mut sent = sent(kind(true, Cipher::Aes128));
        let share = [0, 0x1d, 0, 32];
        let at = sent.windows(4).position(|w| w == share).unwrap();
        sent[at + 1] = 0x1e;
        let hello = ClientHello::parse(&sent).unwrap();
        assert!(Model::default().choose(&hello, true, 0).look.hybrid);
        assert!(!Model::default().choose(&hello, false, 0).look.hybrid);
    }

    #[test]
    fn lengths_are_drawn_from_the_latest() {
        let mut model = Model::default();
        let (aes, chacha) = (kind(false, Cipher::Aes128), kind(false, Cipher::ChaCha20));
        let noted = look(Cipher::Aes128, false);
        let drawn = |model: &Model, kind| -> BTreeSet<usize> {
            (0..100)
                .map(|r| choose(model, kind, true, r).flight)
                .collect()
        };
        for length in 3000..3003 {
            note(&mut model, aes, noted, length, 1);
        }
        assert_eq!(drawn(&model, aes), BTreeSet::from_iter(3000..3003));
        for length in 4000..4100 {
            note(&mut model, aes, noted, length, 1);
        }
        let latest = BTreeSet::from_iter(4100 - FLIGHTS_KEPT..4100);
        assert_eq!(drawn(&model, aes), latest);
        // The other kind's server chose another cipher, whose flights are of another length.
        note(&mut model, chacha, look(Cipher::ChaCha20, false), 5000, 1);
        assert_eq!(drawn(&model, chacha), BTreeSet::from([5000]));
        assert_eq!(drawn(&model, aes), latest);
        note(&mut model, chacha, look(Cipher::ChaCha20, false), 70_000, 1);
        note(&mut model, chacha, look(Cipher::ChaCha20, false), 0, 1);
        let clamped = BTreeSet::from([64, 5000, 16_640]);
        assert_eq!(drawn(&model, chacha), clamped);
    }

    #[test]
    fn segments_end_where_the_first_read_did() {
        let kind = kind(false, Cipher::Aes128);
        let noted = look(Cipher::Aes128, false);
        let split = |reads: &[usize]| {
            let mut model = Model::default();
            for first_read in reads {
                note(&mut model, kind, noted, 2000, *first_read);
            }
            choose(&model, kind, true, 0).split
        };
        assert_eq!(split(&[2138]), None);
        assert_eq!(split(&[1024]), Some(1024));
        assert_eq!(split(&[133]), Some(133));
        assert_eq!(split(&[2138, 1024, 127, 2138]), Some(127));
        for by_the_network in [1448, 2137, 126, 128, 134] {
            assert_eq!(split(&[by_the_network]), None);
        }
        assert_eq!(split(&[0]), None);
        // A longer first part than this flight, or a site that has changed, tells nothing.
        let mut model = Model::default();
        note(&mut model, kind, noted, 4000, 3072);
        note(&mut model, kind, noted, 2000, 2138);
        assert_eq!(choose(&model, kind, true, 0).split, Some(3072));
        assert_eq!(choose(&model, kind, true, 1).split, None);
        note(&mut model, kind, look(Cipher::Aes256, false), 4000, 4138);
        assert_eq!(choose(&model, kind, true, 0).split, None);
    }
}
