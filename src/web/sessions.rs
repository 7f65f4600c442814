//! Sessions of web pages, and their tokens. A page that is served bears a token that begins one session,
//! within two minutes; nothing is kept of it until then: it proves itself, and names its secret. A session
//! lives while it has lanes, and two minutes longer.
//!
//! Whoever gets here knows a capability, which is less than a secret. So the table is bounded, and when it is
//! full, sessions without a lane give way, those of the secret that has most of them first. One lock, held
//! for a look at the table.

use std::io;
use std::sync::Arc;

use mtproxy::limits::{WEB_GRACE, WEB_LANES, WEB_LANES_KEPT, WEB_SESSIONS};
use mtproxy::proto::secret::Secret;
use mtproxy::proto::web::{Kind, same, token};

use crate::base::gauge::{Gauge, Place};
use crate::base::lock::Mutex;
use crate::base::{clock, sys};
use crate::stats::{WEB_OPEN_LANES, WEB_OPEN_SESSIONS};

/// A token.
pub type Token = [u8; 32];
/// What names a session in its tokens. It begins with the time at which the page was served.
type Nonce = [u8; 16];

/// All sessions.
pub struct Sessions {
    /// Proves our tokens; new with each start.
    key: [u8; 32],
    table: Mutex<Vec<Session>>,
}

struct Session {
    nonce: Nonce,
    secret: Secret,
    /// The secret's place among all when it began: whose share it takes.
    owner: usize,
    /// Lanes that there are, and the numbers of the last ones.
    lanes: u32,
    numbers: Vec<u32>,
    /// When it began, its last lane ended, or it was ended, seconds.
    last: u32,
    /// Its client has ended it. It is kept so that its page can't begin it again.
    is_over: bool,
    _counted: Place<&'static Gauge>,
}

/// What becomes of a page that wants to begin its session.
pub enum Begun {
    /// It has this token.
    Session(Token),
    /// There are too many: later, perhaps.
    Full,
    /// Not with this token.
    Unknown,
}

/// A lane of a session, until it is dropped.
pub struct LaneOf {
    sessions: Arc<Sessions>,
    nonce: Nonce,
    /// The only secret that may be proven on it.
    pub secret: Secret,
    _counted: Place<&'static Gauge>,
}

impl Sessions {
    /// None yet.
    pub fn new() -> io::Result<Sessions> {
        Ok(Sessions {
            key: sys::random_array()?,
            table: Mutex::new(Vec::new()),
        })
    }

    /// A token for a page of this secret.
    pub fn bootstrap(&self, secret: &Secret) -> io::Result<Token> {
        let mut nonce: Nonce = sys::random_array()?;
        nonce[..4].copy_from_slice(&clock::seconds().to_be_bytes());
        Ok(self.token(Kind::Bootstrap, &nonce, secret))
    }

    fn token(&self, kind: Kind, nonce: &Nonce, secret: &Secret) -> Token {
        token(&self.key, kind, nonce, secret.bytes())
    }

    /// Begins a session, or gives the token of the one that this page began before.
    pub fn begin(&self, bootstrap: &Token, secrets: &[Secret]) -> Begun {
        let nonce = nonce_of(bootstrap);
        let mut own = None;
        for (owner, secret) in secrets.iter().enumerate() {
            if same(&self.token(Kind::Bootstrap, &nonce, secret), bootstrap) {
                own = Some((owner, *secret));
            }
        }
        let [a, b, c, d, ..] = nonce;
        let now = clock::seconds();
        let age = now.checked_sub(u32::from_be_bytes([a, b, c, d]));
        let (Some((owner, secret)), Some(0..WEB_GRACE)) = (own, age) else {
            return Begun::Unknown;
        };
        let mut table = self.table.lock();
        table.retain(|session| {
            // Others may have been here since `now`.
            session.lanes > 0 || now.saturating_sub(session.last) < WEB_GRACE
        });
        let known = table.iter().find(|session| session.nonce == nonce);
        match known.map(|session| session.is_over) {
            Some(true) => return Begun::Unknown,
            Some(false) => {}
            None if table.len() >= WEB_SESSIONS && !make_room(&mut table) => return Begun::Full,
            None => table.push(Session {
                nonce,
                secret,
                owner,
                lanes: 0,
                numbers: Vec::new(),
                last: now,
                is_over: false,
                _counted: Gauge::enter(&WEB_OPEN_SESSIONS),
            }),
        }
        Begun::Session(self.token(Kind::Session, &nonce, &secret))
    }

    /// Ends a session: it gets no more lanes. False if there is none with this token.
    pub fn end(&self, token: &Token) -> bool {
        let mut table = self.table.lock();
        let Some(session) = self.find(&mut table, token) else {
            return false;
        };
        (session.is_over, session.last) = (true, clock::seconds());
        true
    }

    /// Opens a lane with this number; None if there is no such session, or it may not have this lane.
    pub fn open(self: &Arc<Sessions>, token: &Token, number: u32) -> Option<LaneOf> {
        let mut table = self.table.lock();
        let session = self.find(&mut table, token)?;
        let is_new = !session.numbers.contains(&number);
        if session.is_over || !is_new || session.lanes >= WEB_LANES {
            return None;
        }
        if session.numbers.len() >= WEB_LANES_KEPT {
            session.numbers.remove(0);
        }
        session.numbers.push(number);
        session.lanes += 1;
        Some(LaneOf {
            sessions: self.clone(),
            nonce: session.nonce,
            secret: session.secret,
            _counted: Gauge::enter(&WEB_OPEN_LANES),
        })
    }

    fn find<'a>(&self, table: &'a mut [Session], token: &Token) -> Option<&'a mut Session> {
        let nonce = nonce_of(token);
        let session = table.iter_mut().find(|session| session.nonce == nonce)?;
        let right = self.token(Kind::Session, &nonce, &session.secret);
        same(&right, token).then_some(session)
    }
}

impl Drop for LaneOf {
    fn drop(&mut self) {
        let mut table = self.sessions.table.lock();
        let own = table.iter_mut().find(|session| session.nonce == self.nonce);
        if let Some(session) = own {
            session.lanes -= 1;
            session.last = clock::seconds();
        }
    }
}

fn nonce_of(token: &Token) -> Nonce {
    std::array::from_fn(|at| token[at])
}

/// Takes out the oldest session without a lane of the secret that has most of these. One pass: others wait
/// for the table.
fn make_room(table: &mut Vec<Session>) -> bool {
    let mut counts: Vec<u32> = Vec::new();
    for session in table.iter().filter(|session| session.lanes == 0) {
        if counts.len() <= session.owner {
            counts.resize(session.owner + 1, 0);
        }
        counts[session.owner] += 1;
    }
    let most = counts.iter().max();
    let owner = counts.iter().position(|count| Some(count) == most);
    // They stand in the order in which they began.
    let oldest = table
        .iter()
        .position(|session| session.lanes == 0 && Some(session.owner) == owner);
    oldest.map(|at| table.remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(begun: Begun) -> Option<Token> {
        match begun {
            Begun::Session(token) => Some(token),
            Begun::Full | Begun::Unknown => None,
        }
    }

    fn new() -> Arc<Sessions> {
        Arc::new(Sessions::new().unwrap())
    }

    #[test]
    fn a_page_begins_one_session_of_its_secret() {
        let [mine, other] = [1, 2].map(|byte| Secret::new([byte; 16]));
        let (sessions, elsewhere) = (new(), new());
        let page = sessions.bootstrap(&mine).unwrap();
        assert!(begun(sessions.begin(&page, &[other])).is_none());
        assert!(
            begun(elsewhere.begin(&page, &[mine])).is_none(),
            "another server's"
        );
        let session = begun(sessions.begin(&page, &[other, mine])).unwrap();
        assert_eq!(
            begun(sessions.begin(&page, &[mine])),
            Some(session),
            "once more"
        );
        assert!(
            begun(sessions.begin(&session, &[mine])).is_none(),
            "no page's token"
        );
        for at in 0..32 {
            let (mut wrong, mut wrong_page) = (session, page);
            wrong[at] ^= 1;
            wrong_page[at] ^= 1;
            assert!(sessions.open(&wrong, 1).is_none() && !sessions.end(&wrong));
            assert!(begun(sessions.begin(&wrong_page, &[mine])).is_none());
        }
        assert!(sessions.open(&page, 1).is_none(), "no session's token");
        let lane = sessions.open(&session, 1).unwrap();
        assert!(lane.secret == mine);
        assert!(sessions.open(&session, 1).is_none(), "a lane that is there");
        drop(lane);
        assert!(
            sessions.open(&session, 1).is_none(),
            "a lane that was there"
        );
        let lanes: Vec<LaneOf> = (2..).map_while(|n| sessions.open(&session, n)).collect();
        assert_eq!(lanes.len(), WEB_LANES as usize);
        drop(lanes);
        assert!(sessions.end(&session) && sessions.end(&session));
        assert!(sessions.open(&session, 9999).is_none());
        assert!(
            begun(sessions.begin(&page, &[mine])).is_none(),
            "it is over"
        );
    }

    #[test]
    fn who_begins_a_moment_late_harms_no_other_session() {
        let (secret, sessions) = (Secret::new([1; 16]), new());
        let begin = || {
            let page = sessions.bootstrap(&secret).unwrap();
            begun(sessions.begin(&page, &[secret])).unwrap()
        };
        let first = begin();
        // As if its last lane had ended while another page waited for the table.
        sessions.table.lock()[0].last = clock::seconds() + 1;
        begin();
        assert!(sessions.open(&first, 1).is_some());
    }

    #[test]
    fn a_full_table_gives_way_to_few() {
        let [flood, mine] = [1, 2].map(|byte| Secret::new([byte; 16]));
        let sessions = new();
        let begin = |secret: Secret| {
            let page = sessions.bootstrap(&secret).unwrap();
            begun(sessions.begin(&page, &[flood, mine])).unwrap()
        };
        let (first, oldest) = (begin(mine), begin(flood));
        let busy = begin(flood);
        let _lane = sessions.open(&busy, 1).unwrap();
        for _ in 0..WEB_SESSIONS {
            begin(flood);
        }
        assert_eq!(sessions.table.lock().len(), WEB_SESSIONS);
        assert!(
            sessions.open(&first, 1).is_some(),
            "there are fewer of its secret"
        );
        assert!(sessions.open(&busy, 2).is_some(), "it has a lane");
        assert!(sessions.open(&oldest, 1).is_none());
    }

    #[test]
    fn who_has_most_gives_way_among_many() {
        let secrets: Vec<Secret> = (0..16).map(|byte| Secret::new([byte; 16])).collect();
        let sessions = new();
        let begin = |number: usize| {
            let page = sessions.bootstrap(&secrets[number]).unwrap();
            begun(sessions.begin(&page, &secrets)).unwrap()
        };
        // As many of each, in turn, and one more of the last.
        let begun: Vec<Token> = (0..WEB_SESSIONS - 1).map(|n| begin(n % 16)).collect();
        begin(14);
        begin(0);
        let is_there = |at: usize| sessions.open(&begun[at], 1).is_some();
        assert!(!is_there(14) && (0..14).all(is_there));
        // Where the most is found anew for each session, this takes half a minute.
        for n in 0..100 {
            begin(n % 16);
        }
        assert_eq!(sessions.table.lock().len(), WEB_SESSIONS);
    }
}
