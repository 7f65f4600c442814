//! The way down to one client: what its middle-proxy connection has for it, in order, encrypted by
//! the client's own stream, without ever blocking the backend reader that delivers it.
//!
//! A delivery to an idle outbox encrypts in place and sends at once what the socket takes; only the
//! rest is kept and a writer thread is started for it. While a writer is busy, deliveries queue as
//! plaintext. The writer encrypts under the lock, writes without it, and leaves only under the lock
//! with an empty queue: so the order holds, and a slow client never holds the lock.
//!
//! In fake TLS and for a web page's lane what is sent at once is cut into pieces on its way to the socket. What
//! queues has room left in it for the heads of full pieces, which are written when it is encrypted. A lane's
//! client says how much it takes: without credit the writer leaves, and the next WINDOW calls one again.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::TcpStream;

use mtproxy::crypto::ctr::Ctr;
use mtproxy::limits::CLOSE_DRAIN;

use crate::base::buffers::{self, Account, Buffer};
use crate::base::records::{MAX_HEAD, Wrap};
use crate::base::{clock, sys};

/// What became of a delivery, and what it needs the caller to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Nothing: it was sent, or is not wanted any more.
    Done,
    /// Nothing but to look at the memory: a writer will send it.
    Queued,
    /// The socket is full: a writer must be started.
    StartWriter,
    /// The client left more than its cap unread.
    Flood,
    /// The client's connection is broken.
    Broken,
}

/// The way down to one client. Guarded by the client's lock.
pub struct Outbox {
    cipher: Ctr,
    /// There while a writer is busy.
    backlog: Option<Box<Backlog>>,
    /// Since when, in seconds of the clock. Not an `Instant`: each idle client has one of these, and
    /// with a few bytes less it fits a smaller size class of musl's malloc.
    closing: Option<u32>,
    /// What is put around.
    wrap: Wrap,
}

/// What waits for a writer, in order: buffers' filled parts, and whether they are encrypted already.
#[derive(Default)]
struct Backlog {
    queue: VecDeque<(Buffer, Form)>,
    bytes: usize,
    /// A lane's client takes no more for now, and the writer has left.
    starved: bool,
}

/// In what form bytes wait.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// As they are to be sent.
    Sealed,
    /// Still to be encrypted.
    Plain,
    /// Still to be encrypted, with room for the head of each piece.
    PlainPieces,
}

impl Outbox {
    /// An idle outbox whose stream is at its start.
    pub fn new(cipher: Ctr, wrap: Wrap) -> Outbox {
        Outbox {
            cipher,
            backlog: None,
            closing: None,
            wrap,
        }
    }

    /// One that sends bytes as they are.
    pub fn clear() -> Outbox {
        Outbox::new(Ctr::clear(), Wrap::Nothing)
    }

    /// Sends or queues a framed packet; encrypts it in place if it is sent at once, which it isn't if a writer
    /// is to pace it.
    pub fn deliver(&mut self, socket: &TcpStream, packet: &mut [u8], is_paced: bool) -> Delivery {
        if self.closing.is_some() {
            return Delivery::Done;
        }
        let is_busy = self.backlog.is_some();
        if is_paced {
            self.backlog.get_or_insert_default();
        }
        if let Some(backlog) = &mut self.backlog {
            if backlog.bytes + packet.len() > buffers::outbox_cap() {
                return Delivery::Flood;
            }
            return match backlog.append(packet, &self.wrap, false) {
                Ok(()) if is_busy => Delivery::Queued,
                Ok(()) => Delivery::StartWriter,
                Err(_) => Delivery::Broken,
            };
        }
        let now = match &self.wrap {
            Wrap::Lane(down) => packet.len().min(down.credit as usize),
            _ => packet.len(),
        };
        let (now, later) = packet.split_at_mut(now);
        self.cipher.apply(now);
        // The one I/O under a lock: it cannot block.
        let rest = match &mut self.wrap {
            Wrap::Nothing => send(socket, now),
            wrap => send_pieces(wrap, socket, now),
        };
        let rest = rest.and_then(|mut rest| {
            rest.append(later, &self.wrap, false)?;
            Ok(rest)
        });
        self.keep(rest)
    }

    /// Sends what the client is to be told besides its answers, and takes note of what it takes more.
    pub fn control(&mut self, socket: &TcpStream, granted: u32, bytes: &[u8]) -> Delivery {
        if let Wrap::Lane(down) = &mut self.wrap
            && !down.grant(granted)
        {
            return Delivery::Broken;
        }
        let Some(backlog) = &mut self.backlog else {
            return self.keep(send(socket, bytes));
        };
        if backlog.bytes + bytes.len() > buffers::outbox_cap() {
            return Delivery::Flood;
        }
        if !bytes.is_empty() {
            // Ahead of all answers, but not in the middle of a piece.
            let is_open = |(_, form): &(Buffer, Form)| *form != Form::Sealed;
            let place = backlog.queue.iter().position(is_open);
            let place = place.unwrap_or(backlog.queue.len());
            // Short ones share a buffer: else they would take far more memory than is counted.
            let before = place.checked_sub(1);
            let rest = match before.and_then(|at| backlog.queue.get_mut(at)) {
                Some((last, _)) => fill_up_to(last, bytes, last.len(), &mut backlog.bytes),
                None => bytes,
            };
            if !rest.is_empty() {
                let buffer = Buffer::with_bytes(0, rest);
                backlog.queue.insert(place, (buffer, Form::Sealed));
                backlog.bytes += rest.len();
            }
        }
        match std::mem::take(&mut backlog.starved) {
            true => Delivery::StartWriter,
            false => Delivery::Done,
        }
    }

    /// Tells a lane's client that nothing more comes. To be called when the outbox is drained.
    pub fn farewell(&self, socket: &TcpStream) {
        self.wrap.farewell(socket);
    }

    /// Whether this is a lane's.
    pub fn is_lane(&self) -> bool {
        matches!(self.wrap, Wrap::Lane(_))
    }

    /// What the socket has not taken is the new backlog.
    fn keep(&mut self, rest: io::Result<Backlog>) -> Delivery {
        match rest {
            Ok(backlog) if backlog.bytes == 0 => Delivery::Done,
            Ok(backlog) => {
                self.backlog = Some(Box::new(backlog));
                Delivery::StartWriter
            }
            Err(_) => Delivery::Broken,
        }
    }

    /// What the writer has to write next. None: nothing waits any more, or a lane's client takes no more, and
    /// the writer must leave.
    pub fn next(&mut self) -> Option<Buffer> {
        let backlog = self.backlog.as_mut();
        let Some((mut buffer, form)) = backlog.and_then(|backlog| backlog.queue.pop_front()) else {
            self.backlog = None;
            return None;
        };
        match form {
            Form::Sealed => {}
            Form::Plain => self.cipher.apply(buffer.filled_mut()),
            Form::PlainPieces if self.is_lane() => return self.next_of_lane(buffer),
            Form::PlainPieces => self.seal(buffer.filled_mut()),
        }
        Some(buffer)
    }

    /// Encrypts queued pieces and writes their heads.
    fn seal(&mut self, filled: &mut [u8]) {
        let (room, most) = self.wrap.shape();
        for piece in filled.chunks_mut(room + most) {
            let (head, payload) = piece.split_at_mut(room);
            let mut bytes = [0; MAX_HEAD];
            self.wrap.head(payload.len(), &mut bytes);
            head.copy_from_slice(&bytes[MAX_HEAD - room..]);
            self.cipher.apply(payload);
        }
    }

    /// As much of a lane's piece as its client takes; the rest waits on.
    #[inline(never)] // not of every client
    fn next_of_lane(&mut self, mut buffer: Buffer) -> Option<Buffer> {
        let (Wrap::Lane(down), Some(backlog)) = (&mut self.wrap, &mut self.backlog) else {
            return None;
        };
        let payload = buffer.filled.start + MAX_HEAD..buffer.filled.end;
        let len = down.take(payload.len());
        let end = payload.start + len;
        if len < payload.len() {
            let part = match len {
                0 => None,
                _ => Buffer::of(Account::Clients, MAX_HEAD + len),
            };
            if let Some(part) = part {
                let mut part = part;
                part[MAX_HEAD..MAX_HEAD + len].copy_from_slice(&buffer[payload.start..end]);
                part.filled = 0..MAX_HEAD + len;
                backlog.bytes += MAX_HEAD;
                let mut rest = std::mem::replace(&mut buffer, part);
                rest.filled.start += len;
                backlog.queue.push_front((rest, Form::PlainPieces));
            } else {
                backlog.queue.push_front((buffer, Form::PlainPieces));
                backlog.starved = true;
                return None;
            }
        }
        let filled = buffer.filled_mut();
        let (head, payload) = filled.split_first_chunk_mut::<MAX_HEAD>()?;
        let at = down.head(payload.len(), head);
        self.cipher.apply(payload);
        buffer.filled.start += at;
        backlog.bytes = backlog.bytes.saturating_sub(at);
        Some(buffer)
    }

    /// `n` bytes of what [`Outbox::next`] gave have been written.
    pub fn written(&mut self, n: usize) {
        if let Some(backlog) = &mut self.backlog {
            // discard() may have come in between.
            backlog.bytes = backlog.bytes.saturating_sub(n);
        }
    }

    /// Takes nothing more. True if it is drained.
    pub fn close(&mut self) -> bool {
        self.closing.get_or_insert_with(clock::seconds);
        self.is_drained()
    }

    /// Whether it is closed and nothing waits, so that the connection may be closed now.
    pub fn is_drained(&self) -> bool {
        self.closing.is_some() && self.backlog.is_none()
    }

    /// Whether the client has had its time to fetch what was left when the outbox closed.
    pub fn is_overdue(&self) -> bool {
        let late = |since| clock::seconds().saturating_sub(since) >= CLOSE_DRAIN.as_secs() as u32;
        self.closing.is_some_and(late)
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Forgets what waits; the connection is broken.
    pub fn discard(&mut self) {
        self.closing.get_or_insert_with(clock::seconds);
        if let Some(backlog) = &mut self.backlog {
            **backlog = Backlog::default();
        }
    }
}

/// Sends bytes as they are; what the socket doesn't take is the new backlog.
fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<Backlog> {
    let mut backlog = Backlog::default();
    if !bytes.is_empty() {
        let sent = sys::send_now(socket, &[IoSlice::new(bytes)])?;
        backlog.append(&bytes[sent..], &Wrap::Nothing, true)?;
    }
    Ok(backlog)
}

/// Sends an encrypted packet in pieces; what the socket doesn't take is the new backlog.
fn send_pieces(wrap: &mut Wrap, socket: &TcpStream, packet: &[u8]) -> io::Result<Backlog> {
    let mut backlog = Backlog::default();
    wrap.cut(packet, |mut parts| {
        if backlog.bytes == 0 {
            let sent = sys::send_now(socket, parts)?;
            IoSlice::advance_slices(&mut parts, sent);
        }
        parts
            .iter()
            .try_for_each(|part| backlog.append(part, &Wrap::Nothing, true))
    })?;
    Ok(backlog)
}

impl Backlog {
    /// Queues bytes behind what is there, encrypted already or still to be; small packets share a buffer, and
    /// where there are pieces, a piece. Without memory for all of them the stream is broken.
    fn append(&mut self, mut bytes: &[u8], wrap: &Wrap, sealed: bool) -> io::Result<()> {
        let shape = wrap.shape();
        let form = match (sealed, shape.0) {
            (true, _) => Form::Sealed,
            (false, 0) => Form::Plain,
            (false, _) => Form::PlainPieces,
        };
        if let Some((last, _)) = self.queue.back_mut().filter(|(_, own)| *own == form) {
            bytes = fill(last, bytes, shape, &mut self.bytes);
        }
        while !bytes.is_empty() {
            let size = (shape.0 + bytes.len()).min(QUEUE_BUFFER);
            let buffer = Buffer::of(Account::Clients, size);
            let mut buffer = buffer.ok_or(io::ErrorKind::OutOfMemory)?;
            bytes = fill(&mut buffer, bytes, shape, &mut self.bytes);
            self.queue.push_back((buffer, form));
        }
        Ok(())
    }
}

/// Moves as much of `bytes` as fits behind the filled part, and counts it; returns the rest. With room for a
/// head wherever a piece begins: only the last one of a buffer may be shorter than a full one.
fn fill<'a>(
    buffer: &mut Buffer,
    mut bytes: &'a [u8],
    (room, most): (usize, usize),
    count: &mut usize,
) -> &'a [u8] {
    if room == 0 {
        return fill_up_to(buffer, bytes, buffer.len(), count);
    }
    let piece = room + most;
    let end = buffer.len().min(QUEUE_BUFFER / piece * piece);
    while !bytes.is_empty() && buffer.filled.end < end {
        let at = buffer.filled.end;
        if at.is_multiple_of(piece) {
            if end - at <= room {
                break;
            }
            buffer.filled.end += room;
            *count += room;
        }
        bytes = fill_up_to(buffer, bytes, end.min(at / piece * piece + piece), count);
    }
    bytes
}

fn fill_up_to<'a>(buffer: &mut Buffer, bytes: &'a [u8], end: usize, count: &mut usize) -> &'a [u8] {
    let at = buffer.filled.end;
    let n = bytes.len().min(end - at);
    let (now, later) = bytes.split_at(n);
    buffer[at..at + n].copy_from_slice(now);
    buffer.filled.end = at + n;
    *count += n;
    later
}

/// Size of queue buffers: a writer's unit of work.
const QUEUE_BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy::crypto::ctr::StreamKey;
    use mtproxy::proto::faketls::record::{HEADER, MAX_RECORD, Sizer};
    use std::io::Read;
    use std::net::TcpListener;

    fn cipher() -> Ctr {
        Ctr::new(&StreamKey {
            key: [1; 32],
            iv: [2; 16],
        })
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn an_idle_outbox_sends_at_once() {
        let (ours, mut theirs) = pair();
        let mut outbox = Outbox::new(cipher(), Wrap::Nothing);
        assert_eq!(
            outbox.deliver(&ours, &mut b"hello".to_vec(), false),
            Delivery::Done
        );
        let mut got = [0; 5];
        theirs.read_exact(&mut got).unwrap();
        cipher().apply(&mut got);
        assert_eq!(&got, b"hello");
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.close());
    }

    /// The payloads of a stream of records, together, and the length of each.
    fn without_records(wire: &[u8]) -> (Vec<u8>, Vec<usize>) {
        let (mut rest, mut payload, mut lengths) = (wire, Vec::new(), Vec::new());
        while let Some((head, behind)) = rest.split_first_chunk() {
            let [0x17, 3, 3, high, low] = *head else {
                panic!("{head:02x?}")
            };
            let len = usize::from(u16::from_be_bytes([high, low]));
            payload.extend(&behind[..len]);
            lengths.push(len);
            rest = &behind[len..];
        }
        (payload, lengths)
    }

    #[test]
    fn what_a_lane_is_told_takes_the_memory_that_is_counted() {
        let (ours, _theirs) = pair();
        let mut outbox = Outbox::new(cipher(), Wrap::Lane(mtproxy::proto::lane::Down::new(1)));
        outbox.backlog = Some(Box::default()); // a writer is busy
        let mut wanted = Vec::new();
        for number in 0..10_000_u16 {
            let bytes = number.to_be_bytes();
            wanted.extend(bytes);
            assert_eq!(outbox.control(&ours, 0, &bytes), Delivery::Done);
        }
        assert_eq!(outbox.bytes(), wanted.len());
        let queued = outbox.backlog.as_ref().unwrap().queue.len();
        assert!(queued <= wanted.len() / 256, "{queued} buffers");
        let buffers = std::iter::from_fn(|| outbox.next());
        let got: Vec<u8> = buffers.flat_map(|b| b.filled().to_vec()).collect();
        assert!(got == wanted);
    }

    #[test]
    fn a_full_socket_queues_in_order() {
        queue_and_drain(false, &[300_000; 40]);
    }

    #[test]
    fn a_full_socket_queues_in_order_in_records() {
        let all = queue_and_drain(true, &[300_000; 40]);
        let (_, lengths) = without_records(&all);
        assert_eq!(lengths[..2], [1369, 2738]);
        assert!(lengths.iter().all(|len| (1..=MAX_RECORD).contains(len)));
        let full = lengths.iter().filter(|len| **len == MAX_RECORD).count();
        assert!(full > lengths.len() / 2, "{full} of {}", lengths.len());
        // Lengths around those of records and of queue buffers.
        let near = |n: usize| (n - 7)..(n + 7);
        let odd = near(MAX_RECORD)
            .chain(near(3 * (HEADER + MAX_RECORD)))
            .chain(near(1 << 14))
            .chain(1..20);
        let lengths: Vec<usize> = [300_000; 20].into_iter().chain(odd).collect();
        queue_and_drain(true, &lengths);
    }

    /// Delivers packets of these lengths to a socket that nobody reads, then reads everything while a
    /// writer writes; returns it as it came.
    fn queue_and_drain(tls: bool, lengths: &[usize]) -> Vec<u8> {
        let (ours, mut theirs) = pair();
        let wrap = match tls {
            true => Wrap::Tls(Sizer::new()),
            false => Wrap::Nothing,
        };
        let mut outbox = Outbox::new(cipher(), wrap);
        let packet = |(i, len): (usize, &usize)| vec![i as u8; *len];
        let mut busy = false;
        for each in lengths.iter().enumerate() {
            let outcome = outbox.deliver(&ours, &mut packet(each), false);
            let wanted = match busy {
                true => &[Delivery::Queued][..],
                false => &[Delivery::Done, Delivery::StartWriter],
            };
            assert!(wanted.contains(&outcome), "{outcome:?}");
            busy |= outcome == Delivery::StartWriter;
        }
        assert!(busy && outbox.bytes() > 0);
        assert!(!outbox.close());
        let taken_no_more = outbox.deliver(&ours, &mut [0; 8], false);
        assert_eq!(taken_no_more, Delivery::Done, "closing");
        let writer = std::thread::spawn(move || {
            while let Some(buffer) = outbox.next() {
                std::io::Write::write_all(&mut &ours, buffer.filled()).unwrap();
                outbox.written(buffer.filled().len());
            }
            assert_eq!(outbox.bytes(), 0);
        });
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        writer.join().unwrap();
        let mut plain = match tls {
            true => without_records(&all).0,
            false => all.clone(),
        };
        cipher().apply(&mut plain);
        let sent: Vec<u8> = lengths.iter().enumerate().flat_map(packet).collect();
        assert!(plain == sent);
        all
    }

    #[test]
    fn more_than_the_cap_is_a_flood() {
        let (ours, _theirs) = pair();
        let mut outbox = Outbox::new(cipher(), Wrap::Nothing);
        let mut packet = vec![0; 1 << 20];
        let mut total = 0;
        let end = loop {
            match outbox.deliver(&ours, &mut packet, false) {
                Delivery::Flood => break outbox.bytes(),
                _ => total += packet.len(),
            }
            assert!(total < 1 << 30);
        };
        assert!(end <= buffers::outbox_cap() && end + packet.len() > buffers::outbox_cap());
    }
}
