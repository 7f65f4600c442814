//! Clients of secrets that have a limit, so that phones whose network went away don't keep others of the
//! secret out until keep-alive finds that: at a full limit the client that has been silent for longest is
//! closed for the new one, if that is long enough. Called by the door on a client's thread; a lock, held
//! for a look at a secret's clients.

use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Condvar;
use std::time::Duration;

use mtproxy::limits::{LIMIT_SILENCE, LIMIT_WAIT};

use crate::base::lock::{self, Mutex};
use crate::base::sys;
use crate::stats::{Account, Close, STATS};

/// Those that are connected.
static LISTED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());
/// Notified when one of them has left.
static LEFT: Condvar = Condvar::new();

struct Entry {
    account: &'static Account,
    /// A second descriptor of its connection.
    socket: TcpStream,
}

/// A client's entry. Removed when dropped.
pub struct Listed(RawFd);

/// Lists a client if its secret has a limit. At the limit, room is made for it if somebody can give way.
#[inline(never)] // an idle client's thread keeps the stack of what is inlined
pub fn enter(account: &'static Account, socket: &TcpStream) -> Option<Listed> {
    account
        .limit()
        .and_then(|limit| list((account, limit as usize), LIMIT_SILENCE, socket))
}

/// Whether there is no room for one more, and nobody would give way; counts it for the secret then.
#[inline(never)] // as above
pub fn is_full(account: &'static Account) -> bool {
    let is_full = account.limit().is_some_and(|limit| {
        let stays = |entry: &Entry| silence(&entry.socket) < LIMIT_SILENCE;
        let listed = LISTED.lock();
        let mut own = listed.iter().filter(|e| std::ptr::eq(e.account, account));
        account.open.value() >= limit && own.all(stays)
    });
    if is_full {
        account.refuse(Close::SecretFull);
    }
    is_full
}

fn list(
    (account, limit): (&'static Account, usize),
    long: Duration,
    socket: &TcpStream,
) -> Option<Listed> {
    let socket = socket.try_clone().ok()?;
    let id = socket.as_raw_fd();
    let mut listed = LISTED.lock();
    let of_secret = |entry: &&Entry| std::ptr::eq(entry.account, account);
    if listed.iter().filter(of_secret).count() >= limit {
        let silent = listed
            .iter()
            .filter(of_secret)
            .map(|entry| (silence(&entry.socket), entry));
        let longest = silent.max_by_key(|(silence, _)| *silence);
        if let Some((_, entry)) = longest.filter(|(silence, _)| *silence >= long) {
            STATS.secret_silent_closed.add(1);
            let _ = entry.socket.shutdown(Shutdown::Both);
            let full = |listed: &mut Vec<Entry>| listed.iter().filter(of_secret).count() >= limit;
            listed = lock::wait_while(&LEFT, listed, LIMIT_WAIT, full);
        }
    }
    listed.push(Entry { account, socket });
    Some(Listed(id))
}

fn silence(socket: &TcpStream) -> Duration {
    sys::silence(socket).unwrap_or_default()
}

impl Drop for Listed {
    fn drop(&mut self) {
        LISTED
            .lock()
            .retain(|entry| entry.socket.as_raw_fd() != self.0);
        LEFT.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::OPEN;
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn at_the_limit_the_longest_silent_gives_way_if_that_is_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pair = || {
            let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (listener.accept().unwrap().0, far)
        };
        let secret = (&OPEN, 2);
        let enter =
            |long: u64, socket: &TcpStream| list(secret, Duration::from_millis(long), socket);
        let ((silent, _far), (speaks, mut far), (new, _new_far)) = (pair(), pair(), pair());
        let first = enter(60_000, &silent);
        let _second = enter(60_000, &speaks);
        thread::sleep(Duration::from_millis(100));
        far.write_all(b"here").unwrap();
        let is_closed = |socket: &TcpStream| {
            socket.set_nonblocking(true).unwrap();
            socket.peek(&mut [0]).is_ok_and(|n| n == 0)
        };
        drop(enter(60_000, &new));
        assert!(!is_closed(&silent), "it was not silent for long enough");
        // As the silent one's thread does.
        let leaving = thread::spawn(move || {
            while !is_closed(&silent) {
                thread::yield_now();
            }
            drop(first);
        });
        let begun = std::time::Instant::now();
        let _third = enter(50, &new);
        assert!(begun.elapsed() < LIMIT_WAIT);
        leaving.join().unwrap();
        let mut listed = LISTED.lock();
        listed.retain(|entry| std::ptr::eq(entry.account, secret.0));
        assert_eq!(listed.len(), 2);
        assert!(!is_closed(&speaks));
    }
}
