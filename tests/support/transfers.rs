//! Long transfers, checked by hash: seeded streams of raw bytes between the two ends of a direct connection,
//! uploads to the test service and downloads from it, and many clients that ask at the same time.

use super::client::{Client, Half, Held};
use super::crypto::{RunningHash, sha256};
use super::dc_link::Link;
use super::framing::MAX_UP;
use super::message::{Command, Message};
use super::random::{Stream, random_bytes};
use super::service::receipt;
use std::thread;
use std::time::Duration;

/// Bodies of an upload, over and over: the largest possible, tiny ones, and some between. The service's
/// 28 bytes and at most 15 of padding come on top.
pub const PIECES: [usize; 7] = [MAX_UP - 28 - 16, 1, 57_001, 1_024, 333_333, 40, 128 * 1_024];

/// How long nothing must move for a sender to count as held back. Not a limit of the proxy's.
const HELD: Duration = Duration::from_secs(3);

/// More than all sockets between a client and a far end that doesn't read can take.
const TOO_MUCH: usize = 64 << 20;

/// The ends of both directions of a direct connection: the client's and the data centre's.
pub struct Ends {
    pub up: Half,
    pub down: Half,
    pub sending: Half,
    pub receiving: Half,
}

impl Ends {
    pub fn new(client: Client, link: Link) -> Ends {
        let (up, down) = client.halves();
        let (sending, receiving) = link.halves();
        Ends {
            up,
            down,
            sending,
            receiving,
        }
    }

    /// So many bytes to the data centre.
    pub fn pass_up(&mut self, total: usize) {
        pass(&mut self.up, &mut self.receiving, total);
    }

    /// So many bytes to the client.
    pub fn pass_down(&mut self, total: usize) {
        pass(&mut self.sending, &mut self.down, total);
    }

    /// So many each way, at once.
    pub fn pass_both_ways(&mut self, total: usize) {
        self.both_ways(pass, total);
    }

    /// The last bytes that way, and its end.
    pub fn end_up(&mut self, total: usize) {
        pass_and_end(&mut self.up, &mut self.receiving, total);
    }

    pub fn end_down(&mut self, total: usize) {
        pass_and_end(&mut self.sending, &mut self.down, total);
    }

    pub fn end_both_ways(&mut self, total: usize) {
        self.both_ways(pass_and_end, total);
    }

    fn both_ways(&mut self, pass: fn(&mut Half, &mut Half, usize), total: usize) {
        let (up, down) = (&mut self.up, &mut self.down);
        let (sending, receiving) = (&mut self.sending, &mut self.receiving);
        thread::scope(|scope| {
            scope.spawn(|| pass(sending, down, total));
            pass(up, receiving, total);
        });
    }
}

/// So many bytes one way, of a stream that no other transfer has.
fn pass(from: &mut Half, to: &mut Half, total: usize) {
    let seed = u32::from_le_bytes(random_bytes());
    thread::scope(|scope| {
        scope.spawn(|| send_stream(from, seed, total));
        expect_stream(to, seed, total);
    });
}

fn pass_and_end(from: &mut Half, to: &mut Half, total: usize) {
    let seed = u32::from_le_bytes(random_bytes());
    thread::scope(|scope| {
        scope.spawn(|| send_stream_and_end(from, seed, total));
        expect_stream_and_end(to, seed, total);
    });
}

/// Sends the first `total` bytes of a seeded stream in writes of many lengths.
pub fn send_stream(half: &mut Half, seed: u32, total: usize) {
    let mut stream = Stream::new(seed);
    let mut left = total;
    for piece in [8, 1_024, 262_144, 65_536, 40, 16_384].iter().cycle() {
        let bytes = stream.take(left.min(*piece));
        half.send(&bytes);
        left -= bytes.len();
        if left == 0 {
            return;
        }
    }
}

/// Sends such a stream and ends this direction behind it.
pub fn send_stream_and_end(half: &mut Half, seed: u32, total: usize) {
    send_stream(half, seed, total);
    half.finish();
}

/// Reads exactly these bytes.
pub fn expect_stream(half: &mut Half, seed: u32, total: usize) {
    let mut buffer = vec![0; 128 * 1_024];
    let mut hash = RunningHash::default();
    let mut left = total;
    while left > 0 {
        let room = left.min(buffer.len());
        let count = half.read_some(&mut buffer[..room]);
        assert!(count > 0, "the stream of {total} bytes ends {left} early");
        hash.add(&buffer[..count]);
        left -= count;
    }
    let wanted = sha256(&Stream::new(seed).take(total));
    assert!(hash.finish() == wanted, "other bytes than were sent");
}

/// Reads exactly these bytes, and then the orderly end.
pub fn expect_stream_and_end(half: &mut Half, seed: u32, total: usize) {
    expect_stream(half, seed, total);
    let more = half.read_some(&mut [0; 16]);
    assert_eq!(more, 0, "bytes that nobody sent behind {total}");
}

/// Uploads so many bytes to the service in messages with bodies of these lengths, over and over.
pub fn upload(client: &mut Client, total: usize, pieces: &[usize]) {
    let bytes = Stream::new(3).take(total);
    send_pieces(client, &bytes, pieces);
    assert_eq!(client.packet(), receipt(&bytes));
}

/// The same without waiting for the receipt.
pub fn send_pieces(client: &mut Client, bytes: &[u8], pieces: &[usize]) {
    let mut rest = bytes;
    for piece in pieces.iter().cycle() {
        let (body, after) = rest.split_at((*piece).min(rest.len()));
        let command = if after.is_empty() {
            Command::UploadEnd
        } else {
            Command::Upload
        };
        let message = Message {
            body: body.to_vec(),
            ..Message::new(command, 0)
        };
        client.send(&message.encode());
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// Uploads in messages with bodies of this length until the proxy takes no more.
pub fn upload_until_held(client: &mut Client, body: usize) {
    let message = Message {
        body: vec![0x3c; body],
        ..Message::new(Command::Upload, 0)
    };
    let frame = client.transport.frame(&message.encode(), false, &[]);
    send_until_held(client, &frame);
}

/// Sends these bytes again and again until the proxy takes no more.
pub fn send_until_held(client: &mut Client, bytes: &[u8]) {
    let sent = client.send_until_held(bytes, TOO_MUCH, HELD);
    assert!(
        sent < TOO_MUCH,
        "nothing held the client back: {sent} bytes"
    );
}

/// The same for a data centre.
pub fn centre_until_held(link: &mut Link, bytes: &[u8]) -> Held {
    let held = link.send_until_held(bytes, TOO_MUCH, HELD);
    assert!(held.sent < TOO_MUCH, "nothing held the data centre back");
    held
}

/// Downloads so many bytes from the service in packets of this length.
pub fn download(client: &mut Client, total: usize, packet: usize) {
    client.send(&Message::stream(11, total, packet).encode());
    let (mut hash, mut left) = (RunningHash::default(), total);
    while left > 0 {
        let payload = client.packet();
        assert_eq!(payload.len(), left.min(packet));
        left -= payload.len();
        hash.add(&payload);
    }
    assert_eq!(hash.finish(), sha256(&Stream::new(11).take(total)));
    // Nothing is left over behind it.
    client.echo(64);
}

/// All of these clients ask before the first of them reads, round by round; bodies grow by `step`.
pub fn echo_interleaved(mut clients: Vec<Client>, rounds: usize, step: usize) {
    for round in 0..rounds {
        let messages: Vec<Vec<u8>> = (0..clients.len())
            .map(|number| Message::echo(number * round * step).encode())
            .collect();
        for (client, message) in clients.iter_mut().zip(&messages) {
            client.send(message);
        }
        for (client, message) in clients.iter_mut().zip(&messages) {
            assert!(client.packet() == *message, "somebody else's answer");
        }
    }
}
