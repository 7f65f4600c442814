//! Servers of Debian's that stand before the proxy or behind it: haproxy and nginx's stream module in front,
//! microsocks and dante on the way to Telegram. And a SOCKS5 server of the tests' own (RFC 1928), which says of
//! its connections whatever a test wants.

use super::programs::{Kept, end_of, missing, not_tested, run};
use super::proxy::Files;
use super::sockets::{Accepting, free_address, is_listening, listener, read_bytes};
use super::wait::until;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

/// A server that ends with the test.
pub struct Server {
    pub address: SocketAddr,
    child: Kept,
    _files: Files,
}

impl Server {
    /// Starts a program on a free port, for which `command` is made. None, and a line that says so, if the
    /// program is missing.
    pub fn start(program: &str, command: impl Fn(&Files, SocketAddr) -> Command) -> Option<Server> {
        if missing(program) {
            return None;
        }
        // Somebody else may get the port first: once more, then.
        for _ in 0..20 {
            if let Some(server) = Server::start_at(program, free_address(), &command) {
                return Some(server);
            }
        }
        panic!("{program} finds no free port")
    }

    /// None: it has ended instead.
    pub fn start_at(
        program: &str,
        address: SocketAddr,
        command: &dyn Fn(&Files, SocketAddr) -> Command,
    ) -> Option<Server> {
        let files = Files::new();
        let mut command = command(&files, address);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().expect("start a server");
        let listens = until(&format!("{program} to listen or end"), || {
            match child.try_wait().expect("its exit status") {
                Some(_) => Some(false),
                None => is_listening(address).then_some(true),
            }
        });
        if !listens {
            end_of(&mut child, program);
            return None;
        }
        Some(Server {
            address,
            child: Kept(child),
            _files: files,
        })
    }

    /// Ends it; gives where it was.
    pub fn end(self) -> SocketAddr {
        self.address
    }
}

/// By SIGTERM first: some have children, which they end then.
impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.0.id().to_string();
        let _ = run("sh", &["-c", "kill -s TERM \"$0\"", &pid], b"");
        end_of(&mut self.child.0, "a server");
    }
}

/// haproxy before these servers, with a PROXY header of version 2; a checksum in every second one's.
pub fn haproxy(servers: &[SocketAddr]) -> Option<Server> {
    let lines: String = servers
        .iter()
        .enumerate()
        .map(|(number, address)| {
            let checksum = [" proxy-v2-options crc32c", ""][number % 2];
            format!(" server s{number} {address} check inter 500 send-proxy-v2{checksum}\n")
        })
        .collect();
    Server::start("haproxy", move |files, address| {
        let config = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n \
             retries 3\n option redispatch 1\n\
             listen front\n bind {address}\n balance roundrobin\n{lines}"
        );
        let config = files.write("haproxy.cfg", config.as_bytes());
        let mut command = Command::new("haproxy");
        // In the foreground, and without its warnings.
        command
            .args(["-db", "-q", "-f", &config])
            .stderr(Stdio::null());
        command
    })
}

/// nginx before this server, with a PROXY header of version 1.
pub fn nginx_stream(server: SocketAddr) -> Option<Server> {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if !std::path::Path::new(MODULE).exists() {
        not_tested(&format!(
            "{MODULE} is missing, install Debian's package libnginx-mod-stream"
        ));
        return None;
    }
    Server::start("nginx", move |files, address| {
        let config = format!(
            "load_module {MODULE};\ndaemon off; master_process off; pid {}; error_log stderr crit;\n\
             events {{ worker_connections 64; }}\n\
             stream {{ server {{ listen {address}; proxy_pass {server}; proxy_protocol on; }} }}\n",
            files.path("pid")
        );
        let config = files.write("nginx.conf", config.as_bytes());
        let mut command = Command::new("nginx");
        command.args(["-p", &files.path(""), "-c", &config, "-e", "stderr"]);
        command
    })
}

/// microsocks, perhaps for one user with a password only.
pub fn microsocks(login: Option<(&str, &str)>) -> Option<Server> {
    Server::start("microsocks", |_, address| microsocks_at(address, login))
}

/// The command, for one that comes back at its old place.
pub fn microsocks_at(address: SocketAddr, login: Option<(&str, &str)>) -> Command {
    let mut command = Command::new("microsocks");
    command.args(["-i", "127.0.0.1", "-p", &address.port().to_string()]);
    if let Some((user, password)) = login {
        command.args(["-u", user, "-P", password]);
    }
    command.stderr(Stdio::null());
    command
}

/// dante, which tells where its connections come from.
pub fn dante() -> Option<Server> {
    Server::start("danted", |files, address| {
        let config = format!(
            "logoutput: {}\ninternal: 127.0.0.1 port = {}\nexternal: 127.0.0.1\n\
             clientmethod: none\nsocksmethod: none\n\
             client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n\
             socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}\n",
            files.path("log"),
            address.port()
        );
        let config = files.write("danted.conf", config.as_bytes());
        let mut command = Command::new("danted");
        command.args(["-f", &config, "-p", &files.path("pid")]);
        command.stderr(Stdio::null());
        command
    })
}

/// The tests' own SOCKS5 server; it says that its connections come from this address, and from the port that
/// they do come from.
pub fn socks(says: Ipv4Addr) -> Accepting {
    Accepting::start(listener(IpAddr::V4(Ipv4Addr::LOCALHOST)), move |near| {
        thread::spawn(move || {
            // A client that gives up is no failure of the test.
            let _ = serve_socks(near, says);
        });
    })
}

fn serve_socks(mut near: TcpStream, says: Ipv4Addr) -> io::Result<()> {
    let [version, count] = bytes(&near);
    assert_eq!(version, 5, "a greeting");
    let methods = read_bytes(&near, count.into(), "methods");
    assert!(methods.contains(&0), "{methods:?}");
    near.write_all(&[5, 0])?;
    let request: [u8; 4] = bytes(&near);
    assert_eq!(request, [5, 1, 0, 1], "a request to connect to IPv4");
    let ip: [u8; 4] = bytes(&near);
    let target = SocketAddr::from((ip, u16::from_be_bytes(bytes(&near))));
    let far = TcpStream::connect(target)?;
    let port = far.local_addr()?.port();
    let reply = [&[5, 0, 0, 1][..], &says.octets(), &port.to_be_bytes()];
    near.write_all(&reply.concat())?;
    let (from, to) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || pass(from, to));
    pass(far, near);
    Ok(())
}

fn bytes<const N: usize>(stream: &TcpStream) -> [u8; N] {
    let bytes = read_bytes(stream, N, "what a client of SOCKS5 says");
    bytes.try_into().expect("so many")
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
