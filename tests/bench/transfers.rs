//! Which transfers are measured: direction, length of the messages, number of clients.

use crate::scenarios::{Load, SMALL};
use crate::wire::Ask;

/// Clients that fetch or send messages of one length.
pub struct Transfer {
    down: bool,
    pub length: usize,
    clients: usize,
}

impl Transfer {
    pub fn load(&self) -> Load {
        let ask = match self.down {
            true => Ask {
                request: SMALL.request,
                answer: self.length,
            },
            false => Ask {
                request: self.length,
                answer: SHORT_ANSWER,
            },
        };
        // A hundred clients keep a server busy with one request each.
        let window = if self.clients < 100 { 4 } else { 1 };
        Load {
            clients: self.clients,
            window,
            ask,
        }
    }

    pub fn name(&self) -> String {
        let direction = if self.down { "down" } else { "up" };
        format!(
            "{direction}, {} KiB, {}",
            self.length / 1024,
            counted(self.clients)
        )
    }
}

/// All of them, in the order of the table.
pub fn transfer_list() -> Vec<Transfer> {
    let mut list = Vec::new();
    // The last number is a crowd, where queues and wake-ups show.
    for (length, numbers) in [
        (128 << 10, &[1, 10, 100, 256][..]),
        (1 << 10, &[1, 10, 100]),
    ] {
        for down in [true, false] {
            list.extend(numbers.iter().map(|&clients| Transfer {
                down,
                length,
                clients,
            }));
        }
    }
    list
}

/// Those that are repeated in fake TLS.
pub fn fake_tls_list() -> Vec<Transfer> {
    let transfer = |down| Transfer {
        down,
        length: 128 << 10,
        clients: 10,
    };
    [true, false].map(transfer).into()
}

/// A number of clients in words.
pub fn counted(clients: usize) -> String {
    if clients == 1 {
        String::from("1 client")
    } else {
        format!("{clients} clients")
    }
}

/// What an upload is answered with.
const SHORT_ANSWER: usize = 48;
