//! The usual set-up of direct mode: one data centre behind one proxy without any files.

use super::client::Client;
use super::dc::{Behaviour, DataCentre};
use super::framing::{Item, Transport};
use super::message::{Command, Message};
use super::proxy::Proxy;
use super::rig::{SECRET, dialer};
use super::service::{confirm_of, receipt};
use super::transfers::Ends;
use super::vectors::to_hex;

pub struct DirectRig {
    pub proxy: Proxy,
    pub centre: DataCentre,
}

impl DirectRig {
    /// One data centre that is DC 2, and thereby every unknown one.
    pub fn start(behaviour: Behaviour) -> DirectRig {
        DirectRig::with(behaviour, &[])
    }

    /// The same with further arguments.
    pub fn with(behaviour: Behaviour, arguments: &[&str]) -> DirectRig {
        let centre = DataCentre::start(behaviour);
        DirectRig {
            proxy: direct_proxy(&[&centre.as_dc(2)], arguments),
            centre,
        }
    }

    pub fn dial(&self, transport: Transport) -> Client {
        dialer(self.proxy.address(), transport).dial()
    }

    /// A new client and its connection at the data centre, which leaves that to the test.
    pub fn ends(&self, transport: Transport) -> Ends {
        Ends::new(self.dial(transport), self.centre.take())
    }
}

/// A proxy in direct mode with the usual secret; `overrides` are arguments of --dc-override.
pub fn direct_proxy(overrides: &[&str], arguments: &[&str]) -> Proxy {
    let secret = to_hex(&SECRET);
    let mut all = vec!["--direct", "-H", "0", "-S", &secret];
    all.extend(overrides.iter().flat_map(|text| ["--dc-override", text]));
    all.extend(arguments);
    Proxy::start_with(&all)
}

/// Every command of the service but the echo; the last one closes.
pub fn use_service(client: &mut Client) {
    let message = Message::echo(40);
    client.send_asking_ack(&message.encode());
    let confirm = confirm_of(message.tag);
    let framed = false;
    assert_eq!(client.receive(), Item::QuickAck { confirm, framed });
    assert_eq!(client.packet(), message.encode());

    for (command, body) in [
        (Command::Upload, b"forty bytes and a few more".to_vec()),
        (Command::UploadEnd, b" for the hash".to_vec()),
    ] {
        let upload = Message::new(command, 0);
        client.send(&Message { body, ..upload }.encode());
    }
    assert_eq!(
        client.packet(),
        receipt(b"forty bytes and a few more for the hash")
    );

    client.send(&Message::stream(7, 10_000, 4_000).encode());
    let lengths: Vec<usize> = (0..3).map(|_| client.packet().len()).collect();
    assert_eq!(lengths, [4_000, 4_000, 2_000]);

    let a = (-429_i32).cast_unsigned();
    let error = Message::new(Command::Error, 0);
    client.send(&Message { a, ..error }.encode());
    assert_eq!(client.packet(), (-429_i32).to_le_bytes());
    client.send(&Message::new(Command::Swallow, 0).encode());
    client.send(&Message::new(Command::Close, 0).encode());
    client.expect_closed();
}
