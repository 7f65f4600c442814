//! A middle proxy for tests: a listener with one thread per connection, a record of all that the proxy
//! under test sends, and switches for every kind of trouble. When it is dropped, anything that the proxy
//! did against the protocol fails the test.

use super::middle_link::{self, Link};
use super::middle_wire::Fault;
use super::random::Stream;
use super::rpc::{self, Request};
use super::service::Upload;
use super::sockets::{Accepting, listener};
use super::wait::{ANY_TEST, Watch, until};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// What happens to connections that are accepted from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Behaviour {
    #[default]
    Serve,
    /// Accepts and says nothing.
    Silent,
    CloseAtOnce,
    BrokenNonce(Fault),
    BrokenHandshake(Fault),
    /// Answers the handshake with HANDSHAKE_ERROR.
    RefuseHandshake,
    /// Finishes the handshake, then closes.
    CloseWhenReady,
    /// Answers Diffie-Hellman wrongly.
    WrongDh(DhFault),
}

/// A wrong answer of Diffie-Hellman.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DhFault {
    /// The answer of a middle proxy that does without.
    NotOffered,
    OtherGroup,
    /// A public value of zero.
    Zero,
    /// The prime as public value.
    Prime,
    AllOnes,
    /// A word too short.
    CutOff,
    /// Another exponent's public value, and an answer that is encrypted with whatever comes of it.
    OtherValue,
}

/// What a middle proxy is before it starts.
pub struct Options {
    pub ip: IpAddr,
    pub proxy_secret: Vec<u8>,
    pub behaviour: Behaviour,
    /// Expect Diffie-Hellman, and do it.
    pub dh: bool,
    /// Agree to CRC-32C when it is offered.
    pub crc32c: bool,
    /// Addresses as the outside sees them; both ends are looked up.
    pub nat: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// So many PINGs are answered, then no more.
    pub pongs: usize,
    /// Unencrypted messages are questions, and get an answer instead of coming back.
    pub exchanges_keys: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            proxy_secret: proxy_secret(128),
            behaviour: Behaviour::Serve,
            dh: false,
            crc32c: true,
            nat: Vec::new(),
            pongs: usize::MAX,
            exchanges_keys: false,
        }
    }
}

impl Options {
    pub fn translated(&self, mut address: SocketAddr) -> SocketAddr {
        let rule = self
            .nat
            .iter()
            .find(|(local, _)| address.ip() == IpAddr::V4(*local));
        if let Some((_, global)) = rule {
            address.set_ip(IpAddr::V4(*global));
        }
        address
    }
}

/// A proxy-secret file of this size.
pub fn proxy_secret(size: usize) -> Vec<u8> {
    Stream::new(0x5ec2_e7f1).take(size)
}

/// What the link threads and the test share.
pub struct Shared {
    pub options: Options,
    pub watch: Watch<State>,
}

#[derive(Default)]
pub struct State {
    /// Connections accepted, whatever became of them.
    pub accepted: usize,
    /// Links that finished the handshake, in that order.
    pub links: Vec<Link>,
    /// PROXY_REQs in order, of long messages the beginning only.
    pub requests: Vec<Request>,
    /// Ids of CLOSE_CONNs, in order.
    pub closed: Vec<u64>,
    pub pings: Vec<[u8; 8]>,
    pub pongs: Vec<[u8; 8]>,
    /// What the proxy did against the protocol.
    pub failures: Vec<String>,
    pub uploads: HashMap<u64, Upload>,
    /// The link that each client id came on.
    owners: HashMap<u64, usize>,
    behaviour: Behaviour,
    sockets: Vec<TcpStream>,
    stalled: bool,
    stopping: bool,
}

impl State {
    /// Keeps a request; an id belongs to one link and is not used after its end.
    pub fn record(&mut self, link: usize, request: &Request) -> Result<(), String> {
        let id = request.conn_id;
        let owner = *self.owners.entry(id).or_insert(link);
        if owner != link {
            return Err(format!(
                "client {id:016x} on link {link} after link {owner}"
            ));
        }
        if self.closed.contains(&id) {
            return Err(format!("client {id:016x} after its CLOSE_CONN"));
        }
        let mut request = request.clone();
        request.message.truncate(4_096);
        self.requests.push(request);
        Ok(())
    }
}

impl Shared {
    /// Keeps a link thread from its next read while the test has it stalled.
    pub fn wait_while_stalled(&self) -> Result<(), String> {
        let goes_on = |state: &mut State| (!state.stalled || state.stopping).then_some(());
        self.watch
            .wait_within(ANY_TEST, goes_on)
            .ok_or_else(|| format!("stalled for {ANY_TEST:?}"))
    }
}

pub struct MiddleProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Accepting,
}

impl MiddleProxy {
    /// Serves on a port of the kernel's choice.
    pub fn start(options: Options) -> MiddleProxy {
        let listener = listener(options.ip);
        let state = State {
            behaviour: options.behaviour,
            ..State::default()
        };
        let shared = Arc::new(Shared {
            options,
            watch: Watch::new(state),
        });
        let accepting = accept(Arc::clone(&shared), listener);
        MiddleProxy {
            address: accepting.address,
            shared,
            accepting,
        }
    }

    /// One that serves, on 127.0.0.1.
    pub fn serving() -> MiddleProxy {
        MiddleProxy::start(Options::default())
    }

    pub fn proxy_secret(&self) -> &[u8] {
        &self.shared.options.proxy_secret
    }

    /// The line of a configuration file that names it.
    pub fn config_line(&self, dc: i16) -> String {
        format!("proxy_for {dc} {};\n", self.address)
    }

    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.with(|state| state.behaviour = behaviour);
    }

    /// While stalled no link reads.
    pub fn stall(&self, stalled: bool) {
        self.with(|state| state.stalled = stalled);
    }

    /// Cuts every connection.
    pub fn kill_links(&self) {
        for socket in self.with(|state| std::mem::take(&mut state.sockets)) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Cuts every connection and refuses further ones.
    pub fn stop(&mut self) {
        self.with(|state| state.stopping = true);
        self.accepting.close();
        self.kill_links();
    }

    /// Serves again, on the same port.
    pub fn restart(&mut self) {
        // The kernel may have lent it to some connection meanwhile.
        let listener = until("the same port again", || {
            TcpListener::bind(self.address).ok()
        });
        self.with(|state| state.stopping = false);
        self.accepting = accept(Arc::clone(&self.shared), listener);
    }

    pub fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        self.shared.watch.with(look)
    }

    /// Waits until `look` finds something; panics with `what` when it doesn't.
    pub fn wait_for<R>(&self, what: &str, look: impl FnMut(&mut State) -> Option<R>) -> R {
        self.shared.watch.wait_telling(what, look, |state| {
            format!(
                "middle proxy {} accepted {}, links {}, requests {}, closed {:?}, failures {:?}",
                self.address,
                state.accepted,
                state.links.len(),
                state.requests.len(),
                state.closed,
                state.failures
            )
        })
    }

    /// The request whose message has this tag.
    pub fn request(&self, tag: u32) -> Request {
        let has_tag =
            |request: &&Request| request.message.get(12..16) == Some(&tag.to_le_bytes()[..]);
        self.wait_for("a request", |state| {
            state.requests.iter().find(has_tag).cloned()
        })
    }

    /// The request with exactly this message.
    pub fn request_of(&self, message: &[u8]) -> Request {
        let is_it = |request: &&Request| request.message == message;
        self.wait_for("a message", |state| {
            state.requests.iter().find(is_it).cloned()
        })
    }

    pub fn wait_for_close(&self, conn_id: u64) {
        self.wait_for("CLOSE_CONN", |state| {
            state.closed.contains(&conn_id).then_some(())
        });
    }

    /// The link of a client; waits for its first request.
    pub fn link_of(&self, conn_id: u64) -> Link {
        self.wait_for("a client's link", |state| {
            let owner = *state.owners.get(&conn_id)?;
            state.links.get(owner).cloned()
        })
    }

    /// The link that was ready first, second and so on.
    pub fn link(&self, index: usize) -> Link {
        self.wait_for("a link", |state| state.links.get(index).cloned())
    }

    /// Sends a PING on a link and waits for its PONG: all that came before has been handled then.
    pub fn ping(&self, link: &Link, eight: [u8; 8]) {
        assert!(
            link.send(&[&rpc::with_eight(rpc::PING, eight)]),
            "the link is gone"
        );
        self.wait_for("PONG", |state| state.pongs.contains(&eight).then_some(()));
    }

    /// For tests in which the proxy itself must find the far end wrong.
    pub fn forget_failures(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.failures))
    }
}

impl Drop for MiddleProxy {
    fn drop(&mut self) {
        self.stop();
        let failures = self.forget_failures();
        if !thread::panicking() {
            assert!(
                failures.is_empty(),
                "the proxy broke the protocol: {failures:#?}"
            );
        }
    }
}

fn accept(shared: Arc<Shared>, listener: TcpListener) -> Accepting {
    Accepting::start(listener, move |socket| {
        let copy = socket.try_clone().expect("a second handle");
        let behaviour = shared.watch.with(|state| {
            state.accepted += 1;
            state.sockets.push(copy);
            state.behaviour
        });
        match behaviour {
            // `sockets` keeps it open.
            Behaviour::Silent => {}
            Behaviour::CloseAtOnce => drop(socket.shutdown(Shutdown::Both)),
            behaviour => {
                let shared = Arc::clone(&shared);
                thread::spawn(move || middle_link::run(&shared, socket, behaviour));
            }
        }
    })
}
