//! Bytes on their way into a socket that may refuse some of them for now.

use std::io::{ErrorKind, Result, Write};

/// A send queue: everything before `sent` has left.
#[derive(Default)]
pub struct Outgoing {
    pub bytes: Vec<u8>,
    sent: usize,
    /// The socket took less than it was given: write again when it can take more.
    pub blocked: bool,
}

impl Outgoing {
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Writes `bytes` and keeps what the socket doesn't take.
    pub fn send(&mut self, mut socket: impl Write, mut bytes: &[u8]) -> Result<()> {
        while self.waiting() == 0 && !bytes.is_empty() {
            match socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.extend_from_slice(bytes);
        self.blocked = !self.bytes.is_empty();
        Ok(())
    }

    /// Writes until the queue is empty or the socket is full.
    pub fn flush(&mut self, mut socket: impl Write) -> Result<()> {
        while self.waiting() > 0 {
            match socket.write(&self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // What has left makes room now and then, not at each turn.
                    if self.sent > 1 << 20 {
                        self.bytes.drain(..self.sent);
                        self.sent = 0;
                    }
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        self.blocked = false;
        Ok(())
    }
}
