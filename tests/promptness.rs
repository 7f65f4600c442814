//! Nothing is held back in the hope of more: each packet arrives without any further traffic on the link
//! or from the client, whatever its length is to the cipher's blocks.

use crate::support::framing::TRANSPORTS;
use crate::support::message::{Command, KEY_ID, Message};
use crate::support::random::random_bytes;
use crate::support::rig::Rig;
use crate::support::rpc;

#[test]
fn a_single_answer_arrives() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        let first = Message::new(Command::Swallow, u32::from_le_bytes(random_bytes()));
        client.send(&first.encode());
        let conn_id = rig.middle.request(first.tag).conn_id;
        let link = rig.middle.link_of(conn_id);
        // 4 is an error code; from 16 on lengths that leave 0 to 3 no-op words in the last block.
        for length in [4, 16, 20, 24, 28, 32, 1_000, 1_004, 1_008, 1_012, 65_536] {
            let data = vec![0x7c; length];
            assert!(link.send(&[&rpc::answer(conn_id, 0, &data)]));
            assert_eq!(client.packet(), data, "{transport:?}");
        }
    }
}

#[test]
fn a_single_request_arrives() {
    let rig = Rig::start();
    for transport in TRANSPORTS {
        let mut client = rig.dial(transport);
        for length in [56, 60, 64, 68, 72, 1_000, 1_004, 1_008, 1_012, 3_000] {
            let mut message = KEY_ID.to_vec();
            message.resize(length, 0x7c);
            client.send_raw(&transport.frame(&message, false, &[]));
            rig.middle.request_of(&message);
            rig.middle.with(|state| state.requests.clear());
        }
    }
}
