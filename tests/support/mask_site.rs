//! A site behind the mask: a listener that records what each of its visitors sends and how it ends, and
//! says what its script or the test tells it to. The proxy's own probes are visitors, too: a test finds
//! the one that it means by what that one has sent.

use super::sockets::{Accepting, is_end, listener};
use super::tls_flight::{Look, is_hello};
use super::wait::{Watch, uninterrupted};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What a visitor hears that has ended its direction in order; then the site closes.
pub const GOODBYE: &[u8] = b"the site has heard all of it";

/// How long this site thinks in the middle of what it says: less than the 250 ms of silence that end a flight
/// for whoever probes it.
const BETWEEN_WRITES: Duration = Duration::from_millis(50);

/// How a visit ended that the site didn't end itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Orderly,
    Broken,
}

/// What the site says once, and what follows.
pub struct Reply {
    /// Each some time after the one before, so that a visitor finds them apart.
    pub writes: Vec<Vec<u8>>,
    pub close: bool,
}

/// Gives the reply as soon as what a visitor has sent so far calls for one.
pub type Script = Box<dyn Fn(&[u8]) -> Option<Reply> + Send + Sync>;

/// Says nothing before its visitor has ended.
pub fn silent() -> Script {
    Box::new(|_| None)
}

/// Answers hellos as a TLS server of this look does, and nothing else.
pub fn tls_server(look: Look) -> Script {
    answering(move |hello| vec![look.answer(hello)], false)
}

/// Answers hellos with what is made of them, and then closes or not.
pub fn answering(
    answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    close: bool,
) -> Script {
    Box::new(move |received| {
        is_hello(received).then(|| Reply {
            writes: answer(received),
            close,
        })
    })
}

pub struct Visit {
    pub received: Vec<u8>,
    pub end: Option<End>,
    stream: Arc<TcpStream>,
    /// What is said, and when the site closes, is left to the test.
    taken: bool,
}

#[derive(Default)]
pub struct State {
    pub visits: Vec<Visit>,
}

pub struct MaskSite {
    pub address: SocketAddr,
    watch: Arc<Watch<State>>,
    accepting: Accepting,
}

impl MaskSite {
    /// On a port of the kernel's choice of 127.0.0.1, as a TLS server.
    pub fn start() -> MaskSite {
        MaskSite::with(tls_server(Look::default()))
    }

    pub fn with(script: Script) -> MaskSite {
        MaskSite::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST), script)
    }

    pub fn start_on(ip: IpAddr, script: Script) -> MaskSite {
        let watch = Arc::new(Watch::<State>::default());
        let (theirs, script) = (Arc::clone(&watch), Arc::new(script));
        let accepting = Accepting::start(listener(ip), move |stream| {
            receive(&theirs, stream, &script);
        });
        MaskSite {
            address: accepting.address,
            watch,
            accepting,
        }
    }

    /// The argument of -D that puts this site behind a name; the name must lead to its address.
    pub fn as_domain(&self, name: &str) -> String {
        format!("{name}:{}", self.address.port())
    }

    /// Sites for three names, on addresses of their own: the usual domain, and two that are addresses. The last two
    /// say nothing.
    pub fn three(first: Script) -> [(MaskSite, &'static str); 3] {
        let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let third = IpAddr::V6(Ipv6Addr::LOCALHOST);
        [
            (MaskSite::with(first), "localhost"),
            (MaskSite::start_on(second, silent()), "127.0.0.2"),
            (MaskSite::start_on(third, silent()), "[::1]"),
        ]
    }

    pub fn with_state<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        self.watch.with(look)
    }

    /// Waits for a visit that is as wanted; gives its number.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Visit) -> bool) -> usize {
        let what = format!("a visitor with {what}");
        let find = |state: &mut State| state.visits.iter().position(&is_it);
        self.watch.wait_telling(&what, find, |state| {
            let visits = state.visits.iter();
            let visits = visits.map(|visit| (visit.received.len(), visit.end));
            format!("bytes and ends are {:?}", visits.collect::<Vec<_>>())
        })
    }

    /// Waits until somebody has sent exactly this.
    pub fn wait_for_bytes(&self, bytes: &[u8]) -> usize {
        let what = format!(
            "{} bytes from {:02x?}",
            bytes.len(),
            &bytes[..bytes.len().min(8)]
        );
        self.wait_for(&what, |visit| visit.received == bytes)
    }

    /// Waits until somebody has sent exactly this and ended its direction in order.
    pub fn wait_for_all(&self, bytes: &[u8]) -> usize {
        let what = format!("{} bytes and the end", bytes.len());
        self.wait_for(&what, |visit| {
            visit.received == bytes && visit.end == Some(End::Orderly)
        })
    }

    pub fn wait_for_end(&self, number: usize) -> End {
        self.watch
            .wait_for("the end of a visit", |state| state.visits[number].end)
    }

    /// Whether somebody has sent something that begins like this.
    pub fn has_heard(&self, bytes: &[u8]) -> bool {
        self.with_state(|state| {
            state
                .visits
                .iter()
                .any(|visit| visit.received.starts_with(bytes))
        })
    }

    /// Says something to one visitor.
    pub fn say(&self, number: usize, bytes: &[u8]) {
        (&*self.stream(number))
            .write_all(bytes)
            .expect("a visitor that listens");
    }

    /// Ends a visit.
    pub fn close(&self, number: usize) {
        self.stream(number)
            .shutdown(Shutdown::Both)
            .expect("end a visit");
    }

    /// From now on the test says what the site says to this visitor, and closes.
    pub fn take(&self, number: usize) -> Arc<TcpStream> {
        self.with_state(|state| state.visits[number].taken = true);
        self.stream(number)
    }

    fn stream(&self, number: usize) -> Arc<TcpStream> {
        self.with_state(|state| Arc::clone(&state.visits[number].stream))
    }
}

impl Drop for MaskSite {
    fn drop(&mut self) {
        self.accepting.close();
        self.with_state(|state| {
            for visit in &state.visits {
                let _ = visit.stream.shutdown(Shutdown::Both);
            }
        });
    }
}

fn receive(watch: &Arc<Watch<State>>, stream: TcpStream, script: &Arc<Script>) {
    let stream = Arc::new(stream);
    let visit = Visit {
        received: Vec::new(),
        end: None,
        stream: Arc::clone(&stream),
        taken: false,
    };
    let number = watch.with(|state| {
        state.visits.push(visit);
        state.visits.len() - 1
    });
    let (watch, script) = (Arc::clone(watch), Arc::clone(script));
    thread::spawn(move || listen(&watch, number, &stream, &script));
}

/// One visit, to its end.
fn listen(watch: &Watch<State>, number: usize, stream: &TcpStream, script: &Script) {
    let mut buffer = vec![0; 64 * 1_024];
    let mut replied = false;
    let end = loop {
        let count = match uninterrupted(|| (&mut &*stream).read(&mut buffer)) {
            Ok(0) => break End::Orderly,
            Ok(count) => count,
            Err(error) if is_end(&error) => break End::Broken,
            Err(error) => panic!("a site's connection: {error}"),
        };
        let reply = watch.with(|state| {
            let received = &mut state.visits[number].received;
            received.extend(&buffer[..count]);
            if replied { None } else { script(received) }
        });
        if let Some(reply) = reply {
            replied = true;
            if !speak(stream, &reply.writes) || reply.close {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    };
    let taken = watch.with(|state| {
        let visit = &mut state.visits[number];
        visit.end = Some(end);
        visit.taken
    });
    if !taken {
        if end == End::Orderly {
            let _ = (&mut &*stream).write_all(GOODBYE);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// False when the visitor has gone.
fn speak(mut stream: &TcpStream, writes: &[Vec<u8>]) -> bool {
    writes.iter().enumerate().all(|(number, bytes)| {
        if number > 0 {
            thread::sleep(BETWEEN_WRITES);
        }
        stream.write_all(bytes).is_ok()
    })
}
