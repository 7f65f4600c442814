//! The clock of a time server, asked by `doctor --ntp HOST`: one packet of SNTP each way (RFC 4330), a few
//! times. The answer is untrusted: it must repeat a random number.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};

use mtproxy::limits::{NTP_ASKED, NTP_WAIT};

use crate::base::{clock, sys};
use crate::operator::findings::{Finding, Job, Verdict};

/// Length of a packet without extensions.
const PACKET: usize = 48;
/// Version 4, from a client.
const QUESTION: u8 = 4 << 3 | 3;
/// From 1900, where NTP begins to count, to 1970; seconds.
const TO_UNIX: u64 = 2_208_988_800;

/// A job that asks `server`, a host with or without a port.
pub fn job(server: &'static str) -> Job {
    let name = format!("NTP {server}");
    let run = Box::new(move || {
        let name = format!("NTP {server}");
        match ask(server) {
            Ok((stratum, skew)) => Finding {
                skew: Some(skew),
                ..Finding::ok(name, format!("answers, stratum {stratum}"))
            },
            Err(e) => {
                let hint = "is the name right, and does a firewall let UDP port 123 through?";
                Finding::new(Verdict::Fail, name, e.to_string(), hint)
            }
        }
    });
    Job { name, run }
}

/// How far the server is from a clock that is right, and the seconds by which its clock is ahead of ours.
fn ask(server: &str) -> io::Result<(u8, i64)> {
    // A port may be there, and the colons of IPv6 are none.
    let addresses = server.to_socket_addrs();
    let addresses = addresses.or_else(|_| (server, 123).to_socket_addrs())?;
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses.cycle().take(NTP_ASKED) {
        match ask_once(address) {
            Ok(answer) => return Ok(answer),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                failed = io::Error::new(io::ErrorKind::TimedOut, "no answer");
            }
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

fn ask_once(address: SocketAddr) -> io::Result<(u8, i64)> {
    let ours: SocketAddr = match address {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(ours)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(NTP_WAIT))?;
    // Random in place of the time: the server only repeats it.
    let number: [u8; 8] = sys::random_array()?;
    let mut packet = [0; PACKET];
    packet[0] = QUESTION;
    packet[PACKET - number.len()..].copy_from_slice(&number);
    socket.send(&packet)?;
    let len = socket.recv(&mut packet)?;
    let ours = clock::unix().wrapping_add(TO_UNIX) as u32; // counted in 32 bits there, from 2036 on anew
    read(&packet[..len], &number, ours).ok_or_else(|| {
        let text = "its answer is none, or it has no time itself";
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

/// Stratum and skew in an answer to the question with this number, at the second `ours` of NTP.
fn read(packet: &[u8], number: &[u8; 8], ours: u32) -> Option<(u8, i64)> {
    let [first, stratum, ..] = *packet.first_chunk::<PACKET>()?;
    let (is_set, is_answer) = (first >> 6 != 3, first & 7 == 4);
    let is_ours = packet[24..32] == *number;
    let theirs = u32::from_be_bytes(*packet[40..].first_chunk()?);
    let skew = i64::from(theirs.wrapping_sub(ours) as i32);
    let is_well = is_set && is_answer && is_ours && (1..16).contains(&stratum) && theirs != 0;
    is_well.then_some((stratum, skew))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_only_whole_and_for_its_question() {
        let number = [7; 8];
        let mut right = [0; PACKET];
        (right[0], right[1]) = (4 << 3 | 4, 2);
        right[24..32].copy_from_slice(&number);
        right[40..44].copy_from_slice(&5_u32.to_be_bytes());
        assert_eq!(read(&right, &number, 3), Some((2, 2)));
        assert_eq!(read(&right, &number, 8), Some((2, -3)));
        assert_eq!(read(&right, &number, u32::MAX), Some((2, 6)), "2036");
        assert_eq!(read(&right[..47], &number, 3), None);
        assert_eq!(read(&right, &[8; 8], 3), None);
        for (at, value) in [(0, QUESTION), (0, 0xe4), (1, 0), (1, 16), (43, 0)] {
            let mut wrong = right;
            wrong[at] = value;
            assert_eq!(read(&wrong, &number, 3), None, "{at} {value}");
        }
    }
}
