//! Connections to the outside: to Telegram and to mask sites, through the SOCKS5 server of --socks5 if
//! there is one. Called on the threads of clients, slots and the mask. That server is the operator's, but its
//! bytes are parsed like a stranger's (`proto::socks5`).
//!
//! Its name is looked up at start, and again by a thread of its own when it can't be reached, never on a
//! client's. One lock, around its addresses.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mtproxy::proto::socks5::{self, Login, Refusal, Reply};

use super::clock::Rarely;
use super::gauge::Counter;
use super::lock::Mutex;
use super::{log, net, sys, threads};

/// --socks5
#[derive(Clone, PartialEq, Eq)]
pub struct Socks5 {
    /// A name or an IP address, and the port.
    pub server: (String, u16),
    pub login: Option<Login>,
}

/// Without the password.
impl fmt::Debug for Socks5 {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}, login: {}", self.server, self.login.is_some())
    }
}

/// A connection.
pub struct Dialled {
    pub socket: TcpStream,
    /// Which address it leads to.
    pub target: SocketAddr,
    /// Where the target sees it come from, as far as that is known here.
    pub local: Option<SocketAddr>,
}

/// Connections that the SOCKS5 server failed to make.
pub static FAILURES: Counter = Counter::new();

/// The SOCKS5 server, if all goes through one.
static SERVER: OnceLock<Server> = OnceLock::new();

struct Server {
    flag: &'static Socks5,
    addresses: Mutex<Vec<SocketAddr>>,
}

/// Why it made no connection.
enum Failure {
    Io(io::Error),
    Refused(Refusal),
}

/// From now on [`dial_any`] goes through this server; false if its name leads nowhere. To be called once,
/// at start.
pub fn go_through(flag: &'static Socks5) -> bool {
    let addresses = Mutex::new(look_up(flag));
    let is_known = !addresses.lock().is_empty();
    let _ = SERVER.set(Server { flag, addresses });
    is_known
}

/// Connects to the first of several addresses that answers, within one deadline for all: a silent
/// address takes its share of the time only. The error is the last one. The socket keeps a write timeout.
#[inline(never)] // an idle thread's stack keeps what is inlined above it
pub fn dial_any(
    addresses: &[SocketAddr],
    source: Option<IpAddr>,
    within: Duration,
) -> io::Result<Dialled> {
    match SERVER.get() {
        None => dial_here(addresses, source, within),
        Some(server) => first(addresses, within, &|target, within| {
            server.dial(target, source, within)
        }),
    }
}

/// The same, past the SOCKS5 server.
pub fn dial_here(
    addresses: &[SocketAddr],
    source: Option<IpAddr>,
    within: Duration,
) -> io::Result<Dialled> {
    first(addresses, within, &|target, within| {
        let socket = sys::dial(target, source, within)?;
        let local = socket.local_addr().ok();
        Ok(Dialled {
            socket,
            target,
            local,
        })
    })
}

fn first(
    addresses: &[SocketAddr],
    within: Duration,
    dial: &dyn Fn(SocketAddr, Duration) -> io::Result<Dialled>,
) -> io::Result<Dialled> {
    let deadline = Instant::now() + within;
    let mut error = ErrorKind::AddrNotAvailable.into();
    for (to_try, address) in (1..=addresses.len() as u32).rev().zip(addresses) {
        let Some(left) = net::left(deadline) else {
            break;
        };
        match dial(*address, left / to_try) {
            Ok(dialled) => return Ok(dialled),
            Err(e) => error = e,
        }
    }
    Err(error)
}

impl Server {
    fn dial(
        &'static self,
        target: SocketAddr,
        source: Option<IpAddr>,
        within: Duration,
    ) -> io::Result<Dialled> {
        let deadline = Instant::now() + within;
        let reached = self.reach(source, within);
        let made = reached.and_then(|socket| {
            let local = negotiate(&socket, target, self.flag.login.as_ref(), deadline)?;
            socket.set_read_timeout(None).map_err(Failure::Io)?;
            Ok(Dialled {
                socket,
                target,
                local,
            })
        });
        made.map_err(|failure| self.failed(failure))
    }

    fn reach(
        &'static self,
        source: Option<IpAddr>,
        within: Duration,
    ) -> Result<TcpStream, Failure> {
        let addresses = self.addresses.lock().clone();
        // From an address of the outside nobody reaches this machine's own.
        let is_here = addresses.iter().any(|address| address.ip().is_loopback());
        let source = source.filter(|_| !is_here);
        let reached = dial_here(&addresses, source, within);
        reached.map(|dialled| dialled.socket).map_err(|e| {
            static LOOKED_UP: Rarely = Rarely::new();
            let is_name = self.flag.server.0.parse::<IpAddr>().is_err();
            if is_name && LOOKED_UP.is_due() {
                // Without a thread it stays where it was.
                let _ = threads::spawn("resolve", || {
                    let found = look_up(self.flag);
                    if !found.is_empty() {
                        *self.addresses.lock() = found;
                    }
                });
            }
            Failure::Io(e)
        })
    }

    /// Counts a failure, and says it once a minute. A target that can't be reached is none of the server's.
    fn failed(&self, failure: Failure) -> io::Error {
        static FAILED: Rarely = Rarely::new();
        let text = match failure {
            Failure::Refused(Refusal { what, of_target }) if of_target => {
                let text = format!("{what}, says the SOCKS5 server");
                return io::Error::new(ErrorKind::HostUnreachable, text);
            }
            Failure::Refused(refusal) => refusal.what.to_string(),
            Failure::Io(e) => match e.kind() {
                ErrorKind::TimedOut => "it is silent".to_string(),
                ErrorKind::UnexpectedEof => "it closed the connection".to_string(),
                _ => e.to_string(),
            },
        };
        FAILURES.add(1);
        if FAILED.is_due() {
            let ((host, port), failures) = (&self.flag.server, FAILURES.value());
            log::event(format_args!(
                "socks_failed server={host}:{port} error=\"{text}\" failures={failures}"
            ));
        }
        io::Error::other(format!("the SOCKS5 server fails: {text}"))
    }
}

/// Asks for a connection to the target; where that comes from.
fn negotiate(
    socket: &TcpStream,
    target: SocketAddr,
    login: Option<&Login>,
    deadline: Instant,
) -> Result<Option<SocketAddr>, Failure> {
    let say = |bytes: &[u8]| net::write_before(deadline, socket, bytes).map_err(Failure::Io);
    let hear = |place: &mut [u8]| {
        let mut len = 0;
        while len < place.len() {
            let read = net::read_more(deadline, socket, &mut place[len..]);
            len += read.map_err(Failure::Io)?;
        }
        Ok(())
    };
    let mut answer = [0; 2];
    say(socks5::greeting(login))?;
    hear(&mut answer)?;
    if let Some(said) = socks5::accept_method(answer, login).map_err(Failure::Refused)? {
        say(&said)?;
        hear(&mut answer)?;
        socks5::accept_login(answer).map_err(Failure::Refused)?;
    }
    say(&socks5::request(target))?;
    let mut reply = Vec::new();
    loop {
        match socks5::accept_reply(&reply).map_err(Failure::Refused)? {
            Reply::Connected(local) => return Ok(local),
            Reply::Needs(more) => {
                let len = reply.len();
                reply.resize(len + more, 0);
                hear(&mut reply[len..])?;
            }
        }
    }
}

fn look_up(flag: &Socks5) -> Vec<SocketAddr> {
    let (host, port) = &flag.server;
    let here = net::hosts_file(host).into_iter();
    let here: Vec<SocketAddr> = here.map(|ip| (ip, *port).into()).collect();
    if !here.is_empty() {
        return here;
    }
    let found = (host.as_str(), *port).to_socket_addrs();
    found.map_or(Vec::new(), Iterator::collect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_refusing_address_is_passed_over() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listen().local_addr().unwrap();
        let open = listen();
        let address = open.local_addr().unwrap();
        let dial = |addresses: &[SocketAddr]| dial_here(addresses, None, Duration::from_secs(5));
        let dialled = dial(&[closed, address]).unwrap();
        assert_eq!(dialled.socket.peer_addr().unwrap(), address);
        assert_eq!(dialled.target, address);
        let refused = dial(&[closed]).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(dial(&[]).is_err());
    }
}
