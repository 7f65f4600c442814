//! A data centre for direct mode: the far side of the connections that the proxy makes on its own, one for
//! each client (protocol.md 12). It checks and records every header, and then either runs the test service
//! or hands the connection to the test. When it is dropped, anything that the proxy did against the
//! protocol fails the test.

use super::dc_link::{self, Link, Received};
use super::sockets::{Accepting, dial, listener, set_read_deadline};
use super::wait::{PATIENCE, Watch, until};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What happens to connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Runs the test service on the packets of message.rs.
    Serve,
    /// Reads the header and leaves everything else to the test (`take`).
    HandOver,
    /// Accepts and neither reads nor writes.
    Hang,
}

/// What the connections' threads and the test share.
pub struct Shared {
    pub watch: Watch<State>,
}

#[derive(Default)]
pub struct State {
    /// Connections accepted, whatever became of them.
    pub accepted: usize,
    /// The headers that came, in order of arrival.
    pub headers: Vec<Received>,
    /// Connections of the service that have ended.
    pub ended: usize,
    /// What the proxy did against the protocol.
    pub failures: Vec<String>,
    handed: VecDeque<Link>,
    /// Keeps the connections of `Hang` open.
    held: Vec<TcpStream>,
    /// All that a restart cuts, for who restarts.
    cut: Option<Vec<TcpStream>>,
}

pub struct DataCentre {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Accepting,
}

impl DataCentre {
    /// On a port of the kernel's choice of 127.0.0.1.
    pub fn start(behaviour: Behaviour) -> DataCentre {
        DataCentre::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST), behaviour)
    }

    pub fn start_on(ip: IpAddr, behaviour: Behaviour) -> DataCentre {
        let shared = Arc::new(Shared {
            watch: Watch::default(),
        });
        let accepting = accept(&shared, listener(ip), behaviour);
        DataCentre {
            address: accepting.address,
            shared,
            accepting,
        }
    }

    /// One that serves and can be restarted.
    pub fn restarting() -> DataCentre {
        let centre = DataCentre::start(Behaviour::Serve);
        centre.with(|state| state.cut = Some(Vec::new()));
        centre
    }

    /// Cuts every connection, and serves again on the same port. What was cut in the middle of a packet is no
    /// failure.
    pub fn restart(&mut self) {
        self.accepting.close();
        let cut = self.with(|state| state.cut.replace(Vec::new()));
        for socket in cut.expect("one that restarts") {
            let _ = socket.shutdown(Shutdown::Both);
        }
        let listener = until("the same port again", || {
            TcpListener::bind(self.address).ok()
        });
        self.accepting = accept(&self.shared, listener, Behaviour::Serve);
    }

    /// The argument of --dc-override that puts it in the place of a data centre.
    pub fn as_dc(&self, dc: i16) -> String {
        format!("{dc}:{}", self.address)
    }

    pub fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        self.shared.watch.with(look)
    }

    /// Waits until `look` finds something; panics with `what` when it doesn't.
    pub fn wait_for<R>(&self, what: &str, look: impl FnMut(&mut State) -> Option<R>) -> R {
        self.shared.watch.wait_telling(what, look, |state| {
            format!(
                "data centre {} accepted {}, headers {}, ended {}, failures {:?}",
                self.address,
                state.accepted,
                state.headers.len(),
                state.ended,
                state.failures
            )
        })
    }

    /// The next connection that was handed over, once its header is there.
    pub fn take(&self) -> Link {
        self.wait_for("a connection", |state| state.handed.pop_front())
    }

    /// The header that came as number `index`.
    pub fn header(&self, index: usize) -> Received {
        self.wait_for("a header", |state| state.headers.get(index).copied())
    }

    pub fn wait_for_ends(&self, count: usize) {
        self.wait_for("the end of connections", |state| {
            (state.ended >= count).then_some(())
        });
    }
}

impl Drop for DataCentre {
    fn drop(&mut self) {
        self.accepting.close();
        let failures = self.with(|state| std::mem::take(&mut state.failures));
        if !thread::panicking() {
            assert!(
                failures.is_empty(),
                "the proxy broke the protocol: {failures:#?}"
            );
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: TcpListener, behaviour: Behaviour) -> Accepting {
    let shared = Arc::clone(shared);
    Accepting::start(listener, move |socket| take(&shared, socket, behaviour))
}

fn take(shared: &Arc<Shared>, socket: TcpStream, behaviour: Behaviour) {
    shared.watch.with(|state| {
        state.accepted += 1;
        if let Some(cut) = &mut state.cut {
            cut.push(socket.try_clone().expect("a second handle"));
        }
    });
    if behaviour == Behaviour::Hang {
        shared.watch.with(|state| state.held.push(socket));
        return;
    }
    let shared = Arc::clone(shared);
    thread::spawn(move || run(&shared, socket, behaviour));
}

/// One connection, from its header on.
fn run(shared: &Shared, socket: TcpStream, behaviour: Behaviour) {
    let mut link = match Link::accept(socket) {
        Ok(Some(link)) => link,
        // It went before it said anything: a client that left while the proxy was connecting.
        Ok(None) => return,
        Err(failure) => {
            shared.watch.with(|state| {
                if state.cut.is_none() {
                    state.failures.push(failure);
                }
            });
            return;
        }
    };
    shared.watch.with(|state| state.headers.push(link.header));
    if behaviour == Behaviour::HandOver {
        // Now it is the test that waits.
        set_read_deadline(&link.stream, PATIENCE);
        shared.watch.with(|state| state.handed.push_back(link));
        return;
    }
    let failure = dc_link::serve(&mut link).err();
    let _ = link.stream.shutdown(Shutdown::Both);
    shared.watch.with(|state| {
        state.ended += 1;
        state
            .failures
            .extend(failure.filter(|_| state.cut.is_none()));
    });
}

/// An address that refuses every connection for as long as this lives: the port belongs to a connection,
/// so nobody else can come to listen on it.
pub struct Refusing {
    pub address: SocketAddr,
    _holding: (TcpListener, TcpStream),
}

impl Refusing {
    pub fn new() -> Refusing {
        let listener = listener(Ipv4Addr::LOCALHOST.into());
        let stream = dial(listener.local_addr().expect("its address"));
        let address = stream.local_addr().expect("its address");
        Refusing {
            address,
            _holding: (listener, stream),
        }
    }
}

/// An address that doesn't answer connections at all: the kernel drops them while the listener's queue,
/// which nobody empties, is full.
pub struct Unanswering {
    pub address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Unanswering {
    pub fn new() -> Unanswering {
        let listener = listener(Ipv4Addr::LOCALHOST.into());
        let address = listener.local_addr().expect("its address");
        let mut queue = Vec::new();
        // One attempt may be late on a busy machine; not two in a row.
        let mut unanswered = 0;
        while unanswered < 2 {
            match TcpStream::connect_timeout(&address, UNANSWERED) {
                Ok(stream) => {
                    queue.push(stream);
                    unanswered = 0;
                }
                Err(_) => unanswered += 1,
            }
            assert!(queue.len() < 10_000, "the listener's queue is never full");
        }
        Unanswering {
            address,
            _listener: listener,
            _queue: queue,
        }
    }
}

/// How long an answer on loopback can't take. Less than PATIENCE, since nothing is expected.
const UNANSWERED: Duration = Duration::from_secs(PATIENCE.as_secs() / 60);
