//! Admission: connections that have proven no secret have places of their own, so that a flood of them
//! takes none from clients, and new clients get in while it lasts. Called by `accept`; the door leaves the
//! place as soon as it knows whose connection it is.
//!
//! While fewer than half of the places are taken, everybody is admitted. From then on they are scarce: a
//! source has a share and a rate, and with a probability that rises to certainty at the cap a connection
//! is dropped early (as OpenSSH's MaxStartups does). What these connections hold in buffers is bounded
//! here, too. One lock, held for a look at some places; no client waits for it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mtproxy::crypto::random::Random;
use mtproxy::limits::{DROP_SAMPLE, FIRST_BYTES, SOURCE_BURST, SOURCE_INTERVAL, SOURCE_PLACES};

use super::rate::Rate;
use crate::base::buffers::{Account, Buffer};
use crate::base::gauge::{self, Counter, Gauge};
use crate::base::lock::Mutex;
use crate::base::net::source_of;
use crate::stats::{Close, PROVEN, STATS};

/// The places of connections that have proven nothing, and how many clients there may be.
pub struct Admission {
    caps: Caps,
    rate: Option<Rate>,
    table: Mutex<Table>,
}

/// How many may be there.
#[derive(Clone, Copy)]
pub struct Caps {
    /// Connections that have proven no secret; at least 2.
    pub unproven: u32,
    /// Bytes of buffers that these may hold, all together.
    pub held: usize,
    /// Clients.
    pub clients: u32,
    /// Connections in a second; 0 for any number.
    pub per_second: u32,
}

struct Table {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Sources of those that are present, and some that were lately.
    sources: HashMap<IpAddr, Source>,
    /// Bytes that all of them hold.
    held: usize,
    random: Random,
}

struct Slot {
    socket: Arc<TcpStream>,
    source: Option<IpAddr>,
    since: Instant,
    has_sent: bool,
    held: usize,
}

/// Connections from one IPv4 address, or one IPv6 /64.
struct Source {
    present: usize,
    /// When its connections so far would have come at the rate that is allowed.
    due: Instant,
}

/// How dispensable a connection is: whether it has been silent for too long, how many come from its source, its
/// age.
type Rank = (bool, usize, Duration);

/// An accepted connection until it is known whose it is.
pub struct Newcomer {
    /// Where it comes from.
    pub peer: SocketAddr,
    socket: Arc<TcpStream>,
    standing: Standing,
}

enum Standing {
    Unproven(Place),
    Proven(ClientPlace),
}

/// One of the clients that -C bounds.
pub type ClientPlace = gauge::Place<&'static Gauge>;

/// A place among those that have proven nothing. Left when dropped.
struct Place {
    admission: Arc<Admission>,
    socket: Arc<TcpStream>,
    slot: usize,
    has_sent: bool,
}

impl Admission {
    /// Nobody is there. `seed` is random.
    pub fn new(caps: Caps, seed: &[u8; 48]) -> Admission {
        let rate = Rate::new(caps.per_second);
        let table = Mutex::new(Table {
            slots: Vec::new(),
            free: Vec::new(),
            sources: HashMap::new(),
            held: 0,
            random: Random::new(seed),
        });
        Admission { caps, rate, table }
    }

    /// Takes a place for a connection; the error is what counts it.
    pub fn enter(
        self: &Arc<Admission>,
        socket: TcpStream,
        peer: SocketAddr,
    ) -> Result<Newcomer, &'static Counter> {
        let rate = self.rate.as_ref();
        if rate.is_some_and(|rate| !rate.take(Instant::now())) {
            return Err(&STATS.accept_rate_limit_failed);
        }
        let socket = Arc::new(socket);
        let newcomer = Slot {
            socket: socket.clone(),
            source: source_of(peer.ip()),
            since: Instant::now(),
            has_sent: false,
            held: 0,
        };
        let most = self.caps.unproven as usize;
        let (slot, dropped) = self.table.lock().admit(newcomer, most)?;
        if let Some(dropped) = dropped {
            STATS.unproven_dropped_early.add(1);
            let _ = dropped.shutdown(Shutdown::Both);
        }
        let place = Place {
            admission: self.clone(),
            socket: socket.clone(),
            slot,
            has_sent: false,
        };
        Ok(Newcomer {
            peer,
            socket,
            standing: Standing::Unproven(place),
        })
    }

    /// Takes the one that holds most for longest out, if all hold too much.
    fn drop_largest(&self) -> Option<Arc<TcpStream>> {
        let mut table = self.table.lock();
        if table.held <= self.caps.held {
            return None;
        }
        let slots = table.slots.iter().enumerate();
        let holders = slots.filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
        let key = |(_, slot): &(usize, &Slot)| (slot.held, Reverse(slot.since));
        let (largest, _) = holders.max_by_key(key)?;
        table.take(largest)
    }
}

impl Newcomer {
    /// Its connection.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// It was passed on for somebody who comes from there, and counts as one of theirs from now on. An
    /// error if it was dropped, or their share is taken.
    pub fn comes_from(&mut self, peer: SocketAddr) -> Result<(), Close> {
        self.peer = peer;
        let Standing::Unproven(place) = &self.standing else {
            return Ok(());
        };
        let (source, most) = (source_of(peer.ip()), place.admission.caps.unproven as usize);
        let mut table = place.admission.table.lock();
        if !place.is_in(&table) {
            return Err(Close::Dropped);
        }
        if let Err(counter) = table.judge_source(source, most) {
            counter.add(1);
            return Err(Close::Dropped);
        }
        table.give(place.slot, source);
        Ok(())
    }

    /// It has sent something. An error if it has been dropped.
    pub fn has_sent(&mut self) -> Result<(), Close> {
        match &mut self.standing {
            Standing::Unproven(place) if !place.has_sent => {
                place.has_sent = true;
                place.update(|slot, _| slot.has_sent = true)
            }
            _ => Ok(()),
        }
    }

    /// Why it has ended: it was dropped, or its peer has closed.
    pub fn ending(&self) -> Close {
        match &self.standing {
            Standing::Unproven(place) => place.update(|_, _| ()).err(),
            Standing::Proven(_) => None,
        }
        .unwrap_or(Close::ClientGone)
    }

    /// A buffer for what it sends, in place of the one that it has. If all hold more than their share of
    /// the memory, those that hold most for longest are dropped.
    pub fn buffer(&mut self, capacity: usize) -> Result<Buffer, Close> {
        let buffer = Buffer::of(Account::Strangers, capacity).ok_or(Close::Dropped)?;
        let Standing::Unproven(place) = &self.standing else {
            return Ok(buffer);
        };
        place.update(|slot, held| {
            *held += buffer.len() - slot.held;
            slot.held = buffer.len();
        })?;
        while let Some(dropped) = place.admission.drop_largest() {
            STATS.unproven_dropped_memory.add(1);
            let _ = dropped.shutdown(Shutdown::Both);
        }
        place.update(|_, _| ()).map(|()| buffer)
    }

    /// It has proven a secret, or there is none: it gives its place to others and is a client.
    pub fn prove(&mut self) -> Result<(), Close> {
        let Standing::Unproven(place) = &self.standing else {
            return Ok(());
        };
        place.leave()?;
        let Some(client) = Gauge::try_enter(&PROVEN, place.admission.caps.clients) else {
            STATS.accept_connection_limit_failed.add(1);
            return Err(Close::ClientLimit);
        };
        self.standing = Standing::Proven(client);
        Ok(())
    }

    /// The connection of a client.
    pub fn into_client(mut self) -> Result<(TcpStream, ClientPlace), Close> {
        self.prove()?;
        match (self.standing, Arc::into_inner(self.socket)) {
            (Standing::Proven(place), Some(socket)) => Ok((socket, place)),
            _ => Err(Close::Dropped),
        }
    }

    /// The connection of a stranger, which gives its place to others.
    pub fn into_stranger(self) -> Result<TcpStream, Close> {
        if let Standing::Unproven(place) = &self.standing {
            place.leave()?;
        }
        drop(self.standing);
        Arc::into_inner(self.socket).ok_or(Close::Dropped)
    }
}

impl Place {
    /// Changes what is known of it, and of all together how much they hold. An error if it was dropped.
    fn update(&self, change: impl FnOnce(&mut Slot, &mut usize)) -> Result<(), Close> {
        let mut table = self.admission.table.lock();
        let Table { slots, held, .. } = &mut *table;
        let slot = slots.get_mut(self.slot).and_then(Option::as_mut);
        let own = slot.filter(|slot| Arc::ptr_eq(&slot.socket, &self.socket));
        own.map(|slot| change(slot, held)).ok_or(Close::Dropped)
    }

    fn leave(&self) -> Result<(), Close> {
        let mut table = self.admission.table.lock();
        let own = self.is_in(&table).then_some(self.slot);
        let left = own.and_then(|slot| table.take(slot));
        left.map(drop).ok_or(Close::Dropped)
    }

    /// Whether its slot is still its own.
    fn is_in(&self, table: &Table) -> bool {
        let slot = table.slots.get(self.slot).and_then(Option::as_ref);
        slot.is_some_and(|slot| Arc::ptr_eq(&slot.socket, &self.socket))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

impl Table {
    fn present(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot; says which one, and who was dropped for it.
    fn admit(
        &mut self,
        mut newcomer: Slot,
        most: usize,
    ) -> Result<(usize, Option<Arc<TcpStream>>), &'static Counter> {
        let victim = self.judge(&newcomer, most)?;
        let dropped = victim.and_then(|victim| self.take(victim));
        let source = newcomer.source.take();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(newcomer);
        self.give(slot, source);
        Ok((slot, dropped))
    }

    /// Whoever is in this slot has this source from now on, and no other one.
    fn give(&mut self, slot: usize, ip: Option<IpAddr>) {
        let slot = self.slots.get_mut(slot).and_then(Option::as_mut);
        let source = ip.and_then(|ip| self.sources.get_mut(&ip));
        if let (Some(slot), Some(source)) = (slot, source) {
            source.present += 1;
            let before = std::mem::replace(&mut slot.source, ip);
            if let Some(before) = before.and_then(|ip| self.sources.get_mut(&ip)) {
                before.present -= 1;
            }
        }
    }

    /// An error if a source is to be refused: places are scarce, and it has its share or connects too often.
    fn judge_source(
        &mut self,
        source: Option<IpAddr>,
        most: usize,
    ) -> Result<(), &'static Counter> {
        let is_due = source.is_none_or(|ip| self.is_due(ip, Instant::now(), most));
        if self.present() < most / 2 {
            return Ok(());
        }
        if self.of_source(source) >= SOURCE_PLACES.max(most / 16) {
            return Err(&STATS.unproven_refused_share);
        }
        match is_due {
            true => Ok(()),
            false => Err(&STATS.unproven_refused_rate),
        }
    }

    /// Whether somebody is to be dropped for a newcomer; an error if it is to be refused.
    fn judge(&mut self, newcomer: &Slot, most: usize) -> Result<Option<usize>, &'static Counter> {
        self.judge_source(newcomer.source, most)?;
        let half = most / 2;
        let Some(above) = self.present().checked_sub(half) else {
            return Ok(None);
        };
        if self.draw(most - half) > above {
            return Ok(None);
        }
        let mut victim: Option<(Rank, usize)> = None;
        for _ in 0..DROP_SAMPLE {
            let slot = self.draw(self.slots.len());
            victim = victim.max(self.rank(slot, newcomer).map(|rank| (rank, slot)));
        }
        // A newcomer has had no time to send anything.
        let own = (false, self.of_source(newcomer.source) + 1, Duration::ZERO);
        let victim = victim.filter(|(rank, _)| *rank > own);
        let slot = victim.map(|(_, slot)| Some(slot));
        slot.ok_or(&STATS.unproven_refused_early)
    }

    /// Whether a source may connect again already, if places are scarce; and counts that it does.
    fn is_due(&mut self, ip: IpAddr, now: Instant, most: usize) -> bool {
        if self.sources.len() >= 2 * most && !self.sources.contains_key(&ip) {
            self.sources.retain(|_, source| source.present > 0);
        }
        let new = Source {
            present: 0,
            due: now,
        };
        let source = self.sources.entry(ip).or_insert(new);
        let due = source.due.max(now) + SOURCE_INTERVAL;
        let is_due = due <= now + SOURCE_INTERVAL * SOURCE_BURST;
        if is_due {
            source.due = due;
        }
        is_due
    }

    fn of_source(&self, source: Option<IpAddr>) -> usize {
        let source = source.and_then(|ip| self.sources.get(&ip));
        source.map_or(0, |source| source.present)
    }

    /// As if the newcomer were there.
    fn rank(&self, slot: usize, newcomer: &Slot) -> Option<Rank> {
        let slot = self.slots.get(slot)?.as_ref()?;
        let of_source = self.of_source(slot.source) + usize::from(slot.source == newcomer.source);
        let age = newcomer.since.saturating_duration_since(slot.since);
        let is_silent = !slot.has_sent && age > FIRST_BYTES;
        Some((is_silent, of_source, age))
    }

    /// Empties a slot.
    fn take(&mut self, at: usize) -> Option<Arc<TcpStream>> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.free.push(at);
        self.held -= slot.held;
        if let Some(source) = slot.source.and_then(|ip| self.sources.get_mut(&ip)) {
            source.present -= 1;
        }
        Some(slot.socket)
    }

    /// A random number below `end`.
    fn draw(&mut self, end: usize) -> usize {
        self.random.next_u32() as usize % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn admission(unproven: u32, clients: u32) -> Arc<Admission> {
        let caps = Caps {
            unproven,
            held: 264 << 10,
            clients,
            per_second: 0,
        };
        Arc::new(Admission::new(caps, &[7; 48]))
    }

    /// A connection that says that it comes from there.
    fn enter(admission: &Arc<Admission>, from: &str) -> Result<Newcomer, &'static Counter> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        admission.enter(socket, SocketAddr::new(from.parse().unwrap(), 1))
    }

    fn is(result: Result<Newcomer, &'static Counter>, counter: &'static Counter) -> bool {
        result.is_err_and(|refused| std::ptr::eq(refused, counter))
    }

    /// `count` that stay, each from an address of its own.
    fn fill(admission: &Arc<Admission>, count: usize) -> Vec<Newcomer> {
        let each = |n| enter(admission, &format!("198.51.{}.{}", n / 250, n % 250));
        (0..count).map(|n| each(n).ok().unwrap()).collect()
    }

    #[test]
    fn a_lone_busy_source_is_never_refused_while_there_is_room() {
        let admission = admission(400, 9);
        let many: Vec<_> = (0..200).map(|_| enter(&admission, "192.0.2.1")).collect();
        assert!(many.iter().all(Result::is_ok));
        // From half on it has its share.
        assert!(is(
            enter(&admission, "192.0.2.1"),
            &STATS.unproven_refused_share
        ));
        drop(many);
        assert_eq!(admission.table.lock().present(), 0);
    }

    #[test]
    fn who_was_passed_on_counts_as_its_own_source() {
        let admission = admission(400, 9);
        // The front itself has no share.
        let mut many: Vec<_> = (0..200)
            .map(|_| enter(&admission, "127.0.0.1").ok().unwrap())
            .collect();
        let from = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 1);
        for (number, newcomer) in many.iter_mut().enumerate() {
            let share = newcomer.comes_from(from("192.0.2.1"));
            // From half of the places on they are scarce; it connects too often before its share is full.
            let expected = number < SOURCE_BURST as usize;
            assert_eq!(share.is_ok(), expected, "{number}");
            assert_eq!(newcomer.peer, from("192.0.2.1"));
        }
        let last = many.last_mut().unwrap();
        assert!(last.comes_from(from("192.0.2.2")).is_ok());
        assert!(last.prove().is_ok());
        let victim = many.remove(0);
        let present = |ip: &str| {
            admission
                .table
                .lock()
                .of_source(source_of(ip.parse().unwrap()))
        };
        assert_eq!(present("192.0.2.1"), SOURCE_BURST as usize);
        assert_eq!(present("192.0.2.2"), 0, "a client has left");
        drop(victim);
        assert_eq!(present("192.0.2.1"), SOURCE_BURST as usize - 1);
        drop(many);
        assert_eq!(admission.table.lock().present(), 0);
    }

    #[test]
    fn a_front_elsewhere_keeps_no_share_of_what_it_passed_on() {
        let admission = admission(400, 9);
        let mut many: Vec<_> = (0..9)
            .map(|_| enter(&admission, "10.0.0.1").ok().unwrap())
            .collect();
        let from = |n: usize| SocketAddr::new(format!("192.0.2.{n}").parse().unwrap(), 1);
        for (n, newcomer) in many.iter_mut().enumerate() {
            newcomer.comes_from(from(n)).unwrap();
        }
        let present = |ip: &str| {
            let source = source_of(ip.parse().unwrap());
            admission.table.lock().of_source(source)
        };
        assert_eq!((present("10.0.0.1"), present("192.0.2.3")), (0, 1));
        drop(many);
        assert_eq!((present("10.0.0.1"), present("192.0.2.3")), (0, 0));
    }

    #[test]
    fn a_source_has_a_rate_while_places_are_scarce() {
        let admission = admission(1000, 9);
        let _others = fill(&admission, 500);
        let refused = |from: &str| {
            let results = (0..60).map(|_| enter(&admission, from));
            results
                .filter(|r| {
                    r.as_ref()
                        .is_err_and(|c| std::ptr::eq(*c, &STATS.unproven_refused_rate))
                })
                .count()
        };
        // Those that were admitted have left again.
        assert!((10..=28).contains(&refused("192.0.2.1")));
        assert!((10..=28).contains(&refused("2001:db8::1")));
        assert_eq!(refused("127.0.0.1"), 0, "it may speak for everybody");
        // The same /64, and the next one.
        assert!(is(
            enter(&admission, "2001:db8::2"),
            &STATS.unproven_refused_rate
        ));
        assert!(enter(&admission, "2001:db8:0:1::2").is_ok());
    }

    /// For those that are there.
    fn seconds_pass(admission: &Admission) {
        for slot in admission.table.lock().slots.iter_mut().flatten() {
            slot.since -= 5 * FIRST_BYTES;
        }
    }

    #[test]
    fn whoever_has_just_come_may_be_silent() {
        let admission = admission(40, 9);
        let mut flood = fill(&admission, 35);
        for stranger in &mut flood {
            // Some have been dropped for others.
            let _ = stranger.has_sent();
        }
        seconds_pass(&admission);
        let client = enter(&admission, "203.0.113.1").ok().unwrap();
        let more: Vec<_> = (0..8)
            .map(|n| enter(&admission, &format!("192.0.2.{n}")))
            .collect();
        assert!(more.iter().all(Result::is_ok));
        assert!(
            admission.table.lock().present() < 35 + 1 + 8,
            "nobody was dropped"
        );
        assert!(client.into_stranger().is_ok(), "it was dropped");
    }

    #[test]
    fn the_silent_of_the_greediest_source_go_first() {
        let admission = admission(40, 9);
        let mut others = fill(&admission, 10);
        for other in &mut others {
            other.has_sent().unwrap();
        }
        let greedy: Vec<_> = (0..30)
            .filter_map(|_| enter(&admission, "192.0.2.1").ok())
            .collect();
        seconds_pass(&admission);
        for n in 0..200 {
            let newcomer = enter(&admission, &format!("203.0.113.{n}"));
            let mut newcomer = newcomer.ok().expect("somebody else goes");
            newcomer.has_sent().unwrap();
            assert!(newcomer.into_stranger().is_ok(), "its place is free again");
        }
        let mut dropped = 0;
        for newcomer in greedy {
            dropped += usize::from(newcomer.ending() == Close::Dropped);
        }
        assert!(dropped > 0, "none was dropped");
        for other in &mut others {
            assert!(
                other.ending() == Close::ClientGone,
                "dropped, though it has sent something"
            );
        }
        assert!(admission.table.lock().present() <= 40);
    }

    #[test]
    fn the_cap_holds_and_the_oldest_makes_room() {
        let admission = admission(20, 9);
        let all: Vec<Newcomer> = fill(&admission, 300);
        assert!(admission.table.lock().present() <= 20);
        let there = |n: &&Newcomer| n.ending() == Close::ClientGone;
        assert_eq!(
            all.iter().filter(there).count(),
            admission.table.lock().present()
        );
        assert!(all.last().is_some_and(|last| there(&last)));
        assert!(!there(&&all[0]));
        // Whoever was dropped is no client.
        let dropped = all.into_iter().next().map(Newcomer::into_client);
        assert!(matches!(dropped, Some(Err(Close::Dropped))));
    }

    #[test]
    fn sources_are_forgotten() {
        let admission = admission(4, 9);
        for n in 0..1000 {
            drop(enter(&admission, &format!("2001:db8:{n:x}::1")));
        }
        assert!(admission.table.lock().sources.len() <= 8);
    }

    #[test]
    fn clients_have_places_of_their_own() {
        let admission = admission(4, 1);
        let mut one = enter(&admission, "192.0.2.1").ok().unwrap();
        one.prove().unwrap();
        one.prove().unwrap();
        assert_eq!(admission.table.lock().present(), 0);
        let other = enter(&admission, "192.0.2.1").ok().unwrap();
        assert!(matches!(other.into_client(), Err(Close::ClientLimit)));
        let (_socket, place) = one.into_client().unwrap();
        drop(place);
        assert!(
            enter(&admission, "192.0.2.1")
                .ok()
                .unwrap()
                .into_client()
                .is_ok()
        );
    }

    #[test]
    fn who_holds_most_for_longest_is_dropped_for_memory() {
        let admission = admission(4096, 9);
        let mut all = fill(&admission, 60);
        let held: Vec<_> = all.iter_mut().map(|n| n.buffer(16_434)).collect();
        let small = all.last_mut().map(|n| n.has_sent());
        assert!(small.is_some_and(|sent| sent.is_ok()));
        let dropped = all.iter().filter(|n| n.ending() == Close::Dropped).count();
        assert_eq!(dropped, 60 - (264 << 10) / 16_896);
        assert!(
            all[..dropped].iter().all(|n| n.ending() == Close::Dropped),
            "the oldest"
        );
        assert!(
            held.iter().all(Result::is_ok),
            "each had its buffer while it was the newest"
        );
    }
}
