//! What web pages send: WebSocket frames, and the lanes in them.

use mtproxy::proto::lane::{MAX_REPLY, Up};
use mtproxy::proto::websocket::{Code, Deframer, Found, MAX_CONTROL};

use crate::{pieces, split};

#[derive(PartialEq, Debug)]
enum Event {
    Message(Vec<u8>),
    /// Opcode and payload, and how much of a message had come before.
    Control(u8, Vec<u8>, usize),
    Wrong(Code),
}

/// The same frames whole, in pieces, and around the input.
pub fn websocket(data: &[u8]) {
    let (bytes, cut) = split(data);
    for bytes in [bytes.to_vec(), masked(bytes)] {
        let whole = events([&bytes[..]].into_iter());
        assert_eq!(events(pieces(&bytes, cut)), whole);
    }
    let framed = events([&masked(bytes)[..]].into_iter());
    assert_eq!(framed, [Event::Message(bytes.to_vec())]);
}

fn events<'a>(stream: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut deframer = Deframer::default();
    let (mut all, mut message) = (Vec::new(), Vec::new());
    for piece in stream {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        while !rest.is_empty() {
            let (taken, found) = deframer.next(rest);
            assert!(taken > 0 && taken <= rest.len());
            match found {
                Found::Part => {}
                Found::Payload(len, ends) => {
                    assert!(len <= taken);
                    message.extend(&rest[..len]);
                    if ends {
                        all.push(Event::Message(std::mem::take(&mut message)));
                    }
                }
                Found::Control(opcode) => {
                    let payload = deframer.control().to_vec();
                    assert!(payload.len() <= MAX_CONTROL);
                    all.push(Event::Control(opcode, payload, message.len()));
                }
                Found::Wrong(code) => {
                    all.push(Event::Wrong(code));
                    return all;
                }
            }
            rest = &mut rest[taken..];
        }
    }
    all
}

/// One message as a client sends it.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![0x82];
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, m)| byte ^ m),
    );
    out
}

/// A lane gives the same bytes, the same end and the same answers whole and in pieces.
pub fn lane(data: &[u8]) {
    let (bytes, cut) = split(data);
    for bytes in [bytes.to_vec(), masked(bytes)] {
        let whole = outcome([&bytes[..]].into_iter());
        assert_eq!(outcome(pieces(&bytes, cut)), whole);
    }
}

fn outcome<'a>(stream: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<Code>, u32, Vec<u8>) {
    let mut up = Up::new(1);
    let mut stream_inside = Vec::new();
    for piece in stream {
        let mut piece = piece.to_vec();
        let len = up.deframe(&mut piece);
        stream_inside.extend(&piece[..len]);
    }
    let mut reply = [0; MAX_REPLY];
    let len = up.reply(&mut reply);
    let mut down = up.down();
    let granted = up.granted();
    // Not more than there is, however much was granted.
    down.grant(granted);
    assert!(down.take(usize::MAX) > 0);
    (stream_inside, up.ended(), granted, reply[..len].to_vec())
}
