//! What is put around a client's bytes on their way to it: nothing, the records of fake TLS, or the messages
//! of a lane of a web page. `outbox` and `direct` cut bytes so before they send them.

use std::io::IoSlice;
use std::net::TcpStream;

use mtproxy::proto::faketls::record::{self, HEADER, MAX_RECORD, Sizer};
use mtproxy::proto::lane;

use crate::base::{clock, sys};

/// Pieces that are sent at once.
const BATCH: usize = 16;
/// What is left over is not made a record of fewer bytes than this.
const SHORTEST: usize = 17;
/// The longest head of a piece.
pub const MAX_HEAD: usize = lane::MAX_HEAD;

/// What a client is sent in.
pub enum Wrap {
    /// Bytes as they are.
    Nothing,
    /// Records of fake TLS.
    Tls(Sizer),
    /// Messages of a lane.
    Lane(lane::Down),
}

impl Wrap {
    /// Tells a lane's client that nothing more comes, if its socket takes that at once.
    pub fn farewell(&self, socket: &TcpStream) {
        if let Wrap::Lane(down) = self {
            let _ = sys::send_now(socket, &[IoSlice::new(&down.farewell())]);
        }
    }

    /// Room that each piece needs in front, and the most bytes behind that of one that has to wait.
    pub fn shape(&self) -> (usize, usize) {
        match self {
            Wrap::Nothing => (0, usize::MAX),
            Wrap::Tls(_) => (HEADER, MAX_RECORD),
            Wrap::Lane(_) => (lane::MAX_HEAD, mtproxy::limits::WEB_PIECE),
        }
    }

    /// Cuts off the next piece, and credit for it; at most `len` bytes.
    fn next(&mut self, len: usize, now: u32) -> usize {
        match self {
            Wrap::Nothing => len,
            Wrap::Tls(sizer) => {
                let piece = sizer.next(now).min(len);
                // No record of a real server is shorter than its type and tag.
                let is_cut = (1..SHORTEST).contains(&(len - piece)) && piece > SHORTEST;
                piece - if is_cut { SHORTEST } else { 0 }
            }
            Wrap::Lane(down) => down.take(len),
        }
    }

    /// Writes the head of a piece of `len` bytes to the end of `out`; where it begins there.
    pub fn head(&self, len: usize, out: &mut [u8; MAX_HEAD]) -> usize {
        match self {
            Wrap::Nothing => MAX_HEAD,
            Wrap::Tls(_) => {
                let at = MAX_HEAD - HEADER;
                out[at..].copy_from_slice(&record::header(len));
                at
            }
            Wrap::Lane(down) => down.head(len, out),
        }
    }

    /// Writes the head of a piece of `len` bytes, which fit one, as [`Wrap::head`].
    pub fn single(&mut self, len: usize, out: &mut [u8; MAX_HEAD]) -> usize {
        self.next(len, clock::millis());
        self.head(len, out)
    }

    /// Cuts `bytes` into pieces and gives them to `send`, heads and payloads, a batch at a time. Of a lane
    /// there is credit for all of it.
    pub fn cut<E>(
        &mut self,
        mut bytes: &[u8],
        mut send: impl FnMut(&mut [IoSlice]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            let now = clock::millis();
            let mut heads = [[0; MAX_HEAD]; BATCH];
            let mut starts = [0; BATCH];
            let mut payloads = [&bytes[..0]; BATCH];
            let mut count = 0;
            while count < BATCH && !bytes.is_empty() {
                let len = self.next(bytes.len(), now);
                starts[count] = self.head(len, &mut heads[count]);
                (payloads[count], bytes) = bytes.split_at(len);
                count += 1;
            }
            let mut parts = [IoSlice::new(&[]); 2 * BATCH];
            for (at, pair) in parts.chunks_mut(2).enumerate() {
                pair[0] = IoSlice::new(&heads[at][starts[at]..]);
                pair[1] = IoSlice::new(payloads[at]);
            }
            send(&mut parts[..2 * count])?;
        }
        Ok(())
    }
}
