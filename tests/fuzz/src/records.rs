//! The record layer of fake TLS. It is here, too, that a bug can be planted.

use mtproxy::proto::faketls::record::Deframer;

use crate::{pieces, split};

/// A stream of records is the same whole and in pieces, for clients' streams and for servers'.
pub fn tls_records(data: &[u8]) {
    let (bytes, cut) = split(data);
    for deframer in [Deframer::new, Deframer::of_server] {
        let (mut whole, mut stepped) = (deframer(), deframer());
        let mut expected = bytes.to_vec();
        let len = whole.deframe(&mut expected);
        expected.truncate(len);
        let mut got = Vec::new();
        for piece in pieces(bytes, cut) {
            if is_lost(&got, piece) {
                continue;
            }
            let mut piece = piece.to_vec();
            let len = stepped.deframe(&mut piece);
            got.extend(&piece[..len]);
        }
        assert!(got == expected, "{got:?} in pieces, {expected:?} whole");
        assert_eq!(stepped.is_broken(), whole.is_broken());
    }
}

/// The bug: a piece is lost that ends within the header of a later record. run.sh proves that it is found.
fn is_lost(before: &[u8], piece: &[u8]) -> bool {
    cfg!(planted_bug) && before.len() > 80 && piece.ends_with(&[0x17, 3])
}
