//! Bytes for a client of fake TLS, cut into records: what `outbox` and `direct` have in common.

use std::io::IoSlice;

use mtproxy::proto::faketls::record::{self, HEADER, Sizer};

use crate::base::clock;

/// Records that are sent at once.
const BATCH: usize = 16;
/// What is left over is not made a record of fewer bytes than this.
const SHORTEST: usize = 17;

/// Cuts `bytes` into records and gives them to `send`, headers and payloads, a batch at a time.
pub fn cut<E>(
    sizer: &mut Sizer,
    mut bytes: &[u8],
    mut send: impl FnMut(&mut [IoSlice]) -> Result<(), E>,
) -> Result<(), E> {
    while !bytes.is_empty() {
        let now = clock::millis();
        let mut heads = [[0; HEADER]; BATCH];
        let mut payloads = [&bytes[..0]; BATCH];
        let mut count = 0;
        for (head, payload) in heads.iter_mut().zip(&mut payloads) {
            if bytes.is_empty() {
                break;
            }
            let mut len = sizer.next(now).min(bytes.len());
            // No record of a real server is shorter than its type and tag.
            if (1..SHORTEST).contains(&(bytes.len() - len)) && len > SHORTEST {
                len -= SHORTEST;
            }
            (*payload, bytes) = bytes.split_at(len);
            *head = record::header(len);
            count += 2;
        }
        let mut parts = [IoSlice::new(&[]); 2 * BATCH];
        for (pair, (head, payload)) in parts.chunks_mut(2).zip(heads.iter().zip(payloads)) {
            pair[0] = IoSlice::new(head);
            pair[1] = IoSlice::new(payload);
        }
        send(&mut parts[..count])?;
    }
    Ok(())
}
