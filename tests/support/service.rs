//! The service behind the fake middle proxy: understands test messages (message.rs) and answers them as
//! the real one would, with PROXY_ANS, SIMPLE_ACK and CLOSE_EXT.

use super::crypto::{RunningHash, sha256};
use super::message::{Command, Message, res_pq};
use super::middle_link::Link;
use super::middle_proxy::Shared;
use super::random::Stream;
use super::rpc::{self, QUICK_ACK, Request, UNENCRYPTED};
use std::sync::Arc;
use std::thread;

/// What a client has uploaded so far.
#[derive(Default)]
pub struct Upload {
    hash: RunningHash,
    length: u64,
}

/// The answer to an upload that ends with these bytes as its whole.
pub fn receipt(uploaded: &[u8]) -> Vec<u8> {
    [
        &sha256(uploaded)[..],
        &(uploaded.len() as u64).to_le_bytes(),
    ]
    .concat()
}

/// The quick ack for a message.
pub fn confirm_of(tag: u32) -> u32 {
    tag | 0x8000_0000
}

/// Answers one request. Messages that aren't a test's own get no answer, unencrypted ones come back, or get a
/// resPQ.
pub fn serve(shared: &Arc<Shared>, link: &Link, request: &Request) {
    let id = request.conn_id;
    if request.flags & UNENCRYPTED != 0 {
        let res_pq = res_pq(&request.message, 0).filter(|_| shared.options.exchanges_keys);
        link.send(&[&rpc::answer(
            id,
            0,
            res_pq.as_ref().unwrap_or(&request.message),
        )]);
        return;
    }
    let Some(message) = Message::decode(&request.message) else {
        return;
    };
    if request.flags & QUICK_ACK != 0 {
        link.send(&[&rpc::simple_ack(id, confirm_of(message.tag))]);
    }
    match message.command {
        Command::Echo => drop(link.send(&[&rpc::answer(id, 0, &message.encode())])),
        Command::Error => drop(link.send(&[&rpc::answer(id, 0x10, &message.a.to_le_bytes())])),
        Command::Close => drop(link.send(&[&rpc::close_ext(id)])),
        Command::Swallow => {}
        Command::Stream => stream(Arc::clone(shared), link.clone(), id, message),
        Command::Upload => add_to_upload(shared, id, &message.body),
        Command::UploadEnd => {
            add_to_upload(shared, id, &message.body);
            let upload = shared
                .watch
                .with(|state| state.uploads.remove(&id))
                .unwrap_or_default();
            let receipt = [&upload.hash.finish()[..], &upload.length.to_le_bytes()].concat();
            link.send(&[&rpc::answer(id, 0, &receipt)]);
        }
    }
}

fn add_to_upload(shared: &Shared, id: u64, body: &[u8]) {
    shared.watch.with(|state| {
        let upload = state.uploads.entry(id).or_default();
        upload.hash.add(body);
        upload.length += body.len() as u64;
    });
}

/// Sends a long answer from a thread of its own, so that those of several clients mix.
fn stream(shared: Arc<Shared>, link: Link, id: u64, message: Message) {
    thread::spawn(move || {
        let mut stream = Stream::new(message.tag);
        let mut left = message.a as usize;
        while left > 0 && !shared.watch.with(|state| state.closed.contains(&id)) {
            let piece = stream.take(left.min(message.b as usize));
            left -= piece.len();
            if !link.send(&[&rpc::answer(id, 0, &piece)]) {
                return;
            }
        }
    });
}
