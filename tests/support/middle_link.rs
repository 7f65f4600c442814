//! One connection of the fake middle proxy: nonce, handshake, then frames until it ends. Runs in a thread
//! of its own; what the proxy does wrong is recorded as a failure of the test.

use super::crypto::{Checksum, Derivation, as_array};
use super::dh;
use super::middle_proxy::{Behaviour, DhFault, Shared};
use super::middle_wire::{Fault, FrameReader, FrameWriter};
use super::random::random_bytes;
use super::rpc::{self, Request};
use super::service;
use super::sockets::is_over;
use super::wait::{ANY_TEST, uninterrupted};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The sending half of a ready link; any thread may use it.
#[derive(Clone)]
pub struct Link {
    pub index: usize,
    /// The proxy's end.
    pub peer: SocketAddr,
    socket: Arc<TcpStream>,
    writer: Arc<Mutex<FrameWriter>>,
}

impl Link {
    /// Sends these payloads in one flush; false when the link is gone.
    pub fn send(&self, payloads: &[&[u8]]) -> bool {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = writer.flush(payloads);
        (&*self.socket).write_all(&bytes).is_ok()
    }

    /// Sends a frame all but whose last bytes; the proxy may close before it has all of that.
    pub fn send_all_but(&self, last: usize, payload: &[u8]) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = writer.flush(&[payload]);
        let _ = (&*self.socket).write_all(&bytes[..bytes.len() - last]);
    }

    /// Sends a frame that is broken on purpose.
    pub fn send_broken(&self, fault: Fault) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = writer.flush_broken(&rpc::with_eight(rpc::PING, *b"a broken"), fault);
        // The proxy may be quicker and have closed.
        let _ = (&*self.socket).write_all(&bytes);
    }
}

/// What a link thread holds while it reads.
struct Reading<'a> {
    shared: &'a Arc<Shared>,
    socket: Arc<TcpStream>,
    /// Our end and the proxy's.
    ends: (SocketAddr, SocketAddr),
    reader: FrameReader,
    buffer: Vec<u8>,
}

/// The life of an accepted connection.
pub fn run(shared: &Arc<Shared>, socket: TcpStream, behaviour: Behaviour) {
    let socket = Arc::new(socket);
    if let Err(failure) = serve(shared, &socket, behaviour) {
        shared.watch.with(|state| state.failures.push(failure));
    }
    let _ = socket.shutdown(Shutdown::Both);
}

fn serve(
    shared: &Arc<Shared>,
    socket: &Arc<TcpStream>,
    behaviour: Behaviour,
) -> Result<(), String> {
    let (Ok(own), Ok(peer)) = (socket.local_addr(), socket.peer_addr()) else {
        // Gone already.
        return Ok(());
    };
    let mut reading = Reading {
        shared,
        socket: Arc::clone(socket),
        ends: (own, peer),
        reader: FrameReader::new(),
        buffer: vec![0; 256 * 1024],
    };
    let mut writer = FrameWriter::new();
    let Some(nonce) = reading.frame()? else {
        return Ok(());
    };
    if !exchange_nonces(&mut reading, &mut writer, &nonce, behaviour)? {
        return reading.until_the_end();
    }
    let Some(handshake) = reading.frame()? else {
        return Ok(());
    };
    if !answer_handshake(&mut reading, &mut writer, &handshake, behaviour)? {
        return reading.until_the_end();
    }
    if behaviour == Behaviour::CloseWhenReady {
        return Ok(());
    }
    let writer = Arc::new(Mutex::new(writer));
    let link = shared.watch.with(|state| {
        let link = Link {
            index: state.links.len(),
            peer: reading.ends.1,
            socket: Arc::clone(socket),
            writer,
        };
        state.links.push(link.clone());
        link
    });
    while let Some(payload) = reading.frame()? {
        take(shared, &link, &payload)?;
    }
    Ok(())
}

/// Checks the proxy's nonce, sends ours, sets the keys. False when the behaviour ends the talk here.
fn exchange_nonces(
    reading: &mut Reading,
    writer: &mut FrameWriter,
    nonce: &[u8],
    behaviour: Behaviour,
) -> Result<bool, String> {
    let options = &reading.shared.options;
    let selector = &options.proxy_secret[..4];
    let (schema, length) = if options.dh { (3, 296) } else { (1, 32) };
    let right = nonce.len() == length
        && nonce[..4] == rpc::NONCE.to_le_bytes()
        && nonce[4..8] == *selector
        && nonce[8..12] == [schema, 0, 0, 0];
    if !right || now().abs_diff(u32::from_le_bytes(as_array(&nonce[12..]))) > 30 {
        return Err(format!("nonce packet {nonce:02x?}"));
    }
    let dh = options.dh.then(|| answer_dh(&nonce[32..])).transpose()?;
    let (shared, dh_answer) = dh.unzip();
    let ours = random_bytes::<16>();
    let mut answer = [
        &rpc::words(&[rpc::NONCE]),
        selector,
        &rpc::words(&[schema.into(), now()]),
        &ours,
        &dh_answer.unwrap_or_default(),
    ]
    .concat();
    match behaviour {
        Behaviour::BrokenNonce(fault) => {
            reading.write(&writer.flush_broken(&answer, fault));
            return Ok(false);
        }
        Behaviour::WrongDh(fault) => {
            spoil(&mut answer, fault);
            reading.write(&writer.flush(&[&answer]));
            if fault == DhFault::OtherValue {
                // Its handshake, which nobody can read, and an answer to it.
                let _ = (&*reading.socket).read(&mut reading.buffer);
                reading.write(&random_bytes::<64>());
            }
            return Ok(false);
        }
        _ => {}
    }
    let derivation = Derivation {
        nonce_server: ours,
        nonce_client: as_array(&nonce[16..]),
        client_timestamp: as_array(&nonce[12..]),
        server: options.translated(reading.ends.0),
        client: options.translated(reading.ends.1),
        proxy_secret: &options.proxy_secret,
        shared,
    };
    // The keys come first: nothing that follows the answer may be read in clear.
    reading.reader.decrypt_with(&derivation.client_writes())?;
    reading.write(&writer.flush(&[&answer]));
    writer.encrypt_with(&derivation.server_writes());
    Ok(true)
}

/// What both sides know after the proxy's offer, and our part: no selectors, the group, our public value.
fn answer_dh(offer: &[u8]) -> Result<([u8; 256], Vec<u8>), String> {
    let head = [&[0; 4][..], &dh::GROUP].concat();
    let theirs: [u8; 256] = as_array(&offer[8..]);
    let (first, prime) = (&theirs[..8], dh::prime());
    if offer[..8] != head || first == [0; 8] || first >= &prime[..8] {
        return Err(format!("offer of Diffie-Hellman {offer:02x?}"));
    }
    // Shorter than the proxy's, to save time.
    let exponent = random_bytes::<48>();
    let answer = [&head[..], &dh::public(&exponent)].concat();
    Ok((dh::power(&theirs, &exponent), answer))
}

/// Makes an answer with Diffie-Hellman a wrong one.
fn spoil(answer: &mut Vec<u8>, fault: DhFault) {
    let value = answer.len() - 256;
    match fault {
        DhFault::NotOffered => {
            answer.truncate(32);
            answer[8] = 1;
        }
        DhFault::OtherGroup => answer[value - 4] ^= 1,
        DhFault::Zero => answer[value..].fill(0),
        DhFault::Prime => answer[value..].copy_from_slice(&dh::prime()),
        DhFault::AllOnes => answer[value..].fill(0xff),
        DhFault::CutOff => drop(answer.drain(value - 8..value - 4)),
        DhFault::OtherValue => answer[value..].copy_from_slice(&dh::public(&[0x55; 32])),
    }
}

/// Checks the proxy's handshake and answers it. False when the behaviour ends the talk here.
fn answer_handshake(
    reading: &mut Reading,
    writer: &mut FrameWriter,
    theirs: &[u8],
    behaviour: Behaviour,
) -> Result<bool, String> {
    if theirs.len() != 32 || theirs[..4] != rpc::HANDSHAKE.to_le_bytes() {
        return Err(format!("handshake packet {theirs:02x?}"));
    }
    if theirs[4..8] != [0, 8, 0, 0] {
        return Err(format!(
            "handshake flags {:02x?} instead of the CRC-32C offer",
            &theirs[4..8]
        ));
    }
    let own_id = process_id(reading.ends.0);
    let crc32c = reading.shared.options.crc32c;
    let flags = if crc32c { 0x800 } else { 0 };
    let answer = [
        &rpc::words(&[rpc::HANDSHAKE, flags]),
        &own_id[..],
        &theirs[8..20],
    ]
    .concat();
    match behaviour {
        Behaviour::BrokenHandshake(fault) => {
            reading.write(&writer.flush_broken(&answer, fault));
            return Ok(false);
        }
        Behaviour::RefuseHandshake => {
            let refusal = [
                &rpc::words(&[rpc::HANDSHAKE_ERROR, 0xffff_fffc]),
                &own_id[..],
            ]
            .concat();
            reading.write(&writer.flush(&[&refusal]));
            return Ok(false);
        }
        _ => {}
    }
    let checksum = if crc32c {
        Checksum::Crc32c
    } else {
        Checksum::Crc32
    };
    reading.reader.check_with(checksum);
    reading.write(&writer.flush(&[&answer]));
    writer.check_with(checksum);
    Ok(true)
}

/// What a ready link does with one payload.
fn take(shared: &Arc<Shared>, link: &Link, payload: &[u8]) -> Result<(), String> {
    let kind = u32::from_le_bytes(as_array(payload));
    if kind == rpc::PROXY_REQ {
        let request = Request::decode(payload)?;
        shared
            .watch
            .with(|state| state.record(link.index, &request))?;
        service::serve(shared, link, &request);
        return Ok(());
    }
    let eight: [u8; 8] = payload[4..]
        .try_into()
        .map_err(|_| format!("RPC {kind:08x} of {}", payload.len()))?;
    match kind {
        rpc::PING => {
            let seen = shared.watch.with(|state| {
                state.pings.push(eight);
                state.pings.len()
            });
            if seen <= shared.options.pongs {
                link.send(&[&rpc::with_eight(rpc::PONG, eight)]);
            }
        }
        rpc::PONG => shared.watch.with(|state| state.pongs.push(eight)),
        rpc::CLOSE_CONN => shared
            .watch
            .with(|state| state.closed.push(u64::from_le_bytes(eight))),
        _ => return Err(format!("RPC type {kind:08x}")),
    }
    Ok(())
}

impl Reading<'_> {
    /// The next frame's payload, None at the end of the connection.
    fn frame(&mut self) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(payload) = self.reader.next()? {
                return Ok(Some(payload));
            }
            self.shared.wait_while_stalled()?;
            match uninterrupted(|| (&*self.socket).read(&mut self.buffer)) {
                Err(error) if is_over(&error) => {
                    return Err(format!("nothing from the proxy for {ANY_TEST:?}"));
                }
                Ok(0) | Err(_) => return Ok(None),
                Ok(count) => self.reader.feed(&self.buffer[..count]),
            }
        }
    }

    /// Waits for the proxy to close; it has nothing more to say.
    fn until_the_end(&mut self) -> Result<(), String> {
        match (&*self.socket).read(&mut self.buffer) {
            // A proxy that sent its own HANDSHAKE_ERROR would be right, too.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn write(&self, bytes: &[u8]) {
        // When the proxy has gone the next read says so.
        let _ = (&*self.socket).write_all(bytes);
    }
}

/// A process id of ours, as the real service fills it: address, port, number, start time.
fn process_id(own: SocketAddr) -> [u8; 12] {
    let address = match own.ip() {
        IpAddr::V4(v4) => u32::from(v4),
        IpAddr::V6(_) => 0,
    };
    let mut id = [0; 12];
    id[..4].copy_from_slice(&address.to_le_bytes());
    id[4..6].copy_from_slice(&own.port().to_le_bytes());
    id[6..8].copy_from_slice(&4242_u16.to_le_bytes());
    id[8..].copy_from_slice(&now().to_le_bytes());
    id
}

fn now() -> u32 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    u32::try_from(since.as_secs()).expect("a clock before 2106")
}
