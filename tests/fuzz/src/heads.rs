//! What stands at the beginning of a connection: hellos and what sites answer to them, heads of HTTP, PROXY
//! headers, a SOCKS5 server's answers.

use std::net::SocketAddr;
use std::sync::OnceLock;

use mtproxy::limits::{MAX_HELLO, MAX_HTTP_HEAD, MAX_PROXY_HEADER};
use mtproxy::proto::faketls::client_hello::{
    Cipher, ClientHello, Progress, RANDOM_AT, RANDOM_END, as_one_record, is_same_name, progress,
    server_name, sign,
};
use mtproxy::proto::faketls::probe::{self, Kind};
use mtproxy::proto::faketls::server_hello::{
    Judgement, Look, first_flight_len, judge, public_key, put_first_flight,
};
use mtproxy::proto::http::{Request, fields_item, head_len, is_request};
use mtproxy::proto::proxy_protocol::{Header, behind_header, parse, v2_header, version};
use mtproxy::proto::secret::Secret;
use mtproxy::proto::socks5::{self, Reply};

use crate::{noise, pieces, split};

const SECRET: Secret = Secret::new(*b"sixteen bytes ok");

/// A hello is judged the same however it comes, and who signs it is known by it.
pub fn client_hello(data: &[u8]) {
    let (bytes, cut) = split(data);
    let whole = progress(bytes);
    let mut there = 0;
    for piece in pieces(bytes, cut) {
        there += piece.len();
        match (progress(&bytes[..there]), whole) {
            (Progress::Incomplete, Progress::Complete(len)) => assert!(there < len),
            (Progress::Incomplete, _) => {}
            (now, _) => assert_eq!(now, whole, "after {there} bytes"),
        }
    }
    assert_ne!(
        (whole, there > MAX_HELLO + 50),
        (Progress::Incomplete, true)
    );
    // Of one that is cut off, too.
    let _ = server_name(bytes).map(|name| is_same_name(name, "example.org"));
    let Progress::Complete(len) = whole else {
        assert!(as_one_record(bytes).is_none());
        return;
    };
    let record = as_one_record(&bytes[..len]).expect("a whole hello");
    assert_eq!(progress(&record), Progress::Complete(record.len()));
    if ClientHello::parse(&record).is_some() {
        answered(record.into_owned(), cut);
    }
}

/// A hello that may be a client's, signed: its answer proves the secret.
fn answered(mut record: Vec<u8>, cut: u8) {
    let now = 1_800_000_000;
    sign(&mut record, &SECRET, now).expect("it has a random");
    let hello = ClientHello::parse(&record).expect("as before");
    assert_eq!(hello.verify(&SECRET), Some(now));
    assert_eq!(hello.verify(&Secret::new([cut; 16])), None);
    assert!(hello.offers(hello.first_cipher));
    let look = Look {
        cipher: hello.first_cipher,
        hybrid: hello.has_hybrid_share(),
        versions_first: cut & 1 == 1,
    };
    let encrypted = 1_000 + usize::from(cut);
    let mut flight = vec![0; first_flight_len(&look, encrypted)];
    let key = public_key([cut; 32]);
    let mut fill = noise(cut);
    put_first_flight(&mut flight, &hello, &SECRET, &look, &key, &mut fill).expect("it fits");
    let proven = Judgement::Proven(flight.len());
    assert_eq!(judge(&flight, hello.random, &SECRET), proven);
    if let Ok(read) = probe::read(&flight, &record) {
        assert_eq!((read.look, read.encrypted), (look, encrypted));
    } else {
        // A real site would not have chosen what isn't in the hello.
        assert!(!hello.has_x25519_share());
    }
}

/// What a site answers is judged the same however it comes; what can be imitated fits the hello.
pub fn site_flight(data: &[u8]) {
    let (bytes, cut) = split(data);
    let kind = Kind {
        hybrid: cut & 1 == 1,
        first: [Cipher::Aes128, Cipher::Aes256, Cipher::ChaCha20][usize::from(cut >> 1) % 3],
    };
    // Its key share takes longer than all else here.
    static SENT: [OnceLock<Vec<u8>>; 6] = [const { OnceLock::new() }; 6];
    let sent = SENT[kind.index()].get_or_init(|| probe::hello("example.org", kind, &mut noise(0)));
    let hello = ClientHello::parse(sent).expect("our own hello");
    assert_eq!(server_name(sent), Some(&b"example.org"[..]));
    let random = &sent[RANDOM_AT..RANDOM_END];
    // Any answer, and one that differs from a real one in a few places only.
    let look = Look {
        cipher: kind.first,
        hybrid: kind.hybrid,
        versions_first: cut & 8 == 8,
    };
    let mut real = vec![0; first_flight_len(&look, 900)];
    let mut fill = noise(cut);
    put_first_flight(&mut real, &hello, &SECRET, &look, &[9; 32], &mut fill).expect("it fits");
    for change in bytes.chunks_exact(3).take(4) {
        let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % real.len();
        real[place] ^= change[2];
    }
    for flight in [bytes, &real] {
        let whole = judge(flight, random, &SECRET);
        let mut there = 0;
        for piece in pieces(flight, cut) {
            there += piece.len();
            match (judge(&flight[..there], random, &SECRET), whole) {
                (Judgement::Incomplete, Judgement::Proven(len)) => assert!(there < len),
                (Judgement::Incomplete, _) => {}
                (now, _) => assert_eq!(now, whole, "after {there} bytes"),
            }
        }
        match probe::read(flight, sent) {
            Ok(read) => {
                assert!(hello.offers(read.look.cipher) && read.encrypted <= flight.len());
                assert!(kind.hybrid || !read.look.hybrid);
            }
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
}

/// The end of a head is found where it is, however it comes; what a request says is in its head.
pub fn http_head(data: &[u8]) {
    let (bytes, cut) = split(data);
    let _ = bytes.first_chunk().map(is_request);
    let whole = head_len(bytes, 0);
    let (mut there, mut stepped) = (0, Ok(None));
    for piece in pieces(bytes, cut) {
        let before = there;
        there += piece.len();
        stepped = head_len(&bytes[..there], before);
        if stepped != Ok(None) {
            break;
        }
    }
    assert_eq!(stepped, whole);
    let Ok(Some(len)) = whole else {
        return;
    };
    assert!(len <= bytes.len() && len <= MAX_HTTP_HEAD);
    if let Ok(request) = Request::parse(&bytes[..len]) {
        assert!(!request.target.is_empty());
        for name in ["Origin", "referer", "Content-Length"] {
            let only = request.only(name);
            assert!(only.is_none() || only == request.field(name) && only == request.last(name));
        }
        let length = request.field("content-length").is_some();
        assert_eq!(length, request.content_length.is_some());
        let item =
            fields_item(["Origin", "X", "Y"].map(|name| request.field(name).unwrap_or_default()));
        assert_eq!(item.len() % 4, 0);
    }
}

/// A header is read to its end and not a byte further; ours is read as what it is.
pub fn proxy_header(bytes: &[u8]) {
    let mut there = 0;
    loop {
        match parse(&bytes[..there]) {
            Header::Needs(more) => {
                assert!(more > 0 && there + more <= MAX_PROXY_HEADER);
                there += more;
                if there > bytes.len() {
                    break;
                }
            }
            Header::From(_) => {
                assert!(version(&bytes[..there]).is_some());
                if bytes.starts_with(b"\r") {
                    assert!(behind_header(bytes) == &bytes[there..]);
                }
                break;
            }
            Header::Malformed => break,
        }
    }
    // Of any bytes, whoever read them.
    let _ = parse(bytes);
    if let Some((address, rest)) = bytes.split_first_chunk::<18>() {
        let [ip @ .., high, low] = *address;
        let ip: [u8; 16] = ip.try_into().unwrap_or_default();
        let client = SocketAddr::from((ip, u16::from_be_bytes([high, low])));
        let header = v2_header(client, SocketAddr::from(([127, 0, 0, 1], 1)));
        let Header::From(Some(read)) = parse(&header) else {
            panic!("our own header");
        };
        assert_eq!(read.ip().to_canonical(), client.ip().to_canonical());
        assert_eq!(read.port(), client.port());
        assert!(behind_header(&[&header, rest].concat()) == rest);
    }
}

/// An answer is read to its end and not a byte further.
pub fn socks_reply(bytes: &[u8]) {
    let mut there = 0;
    while let Ok(Reply::Needs(more)) = socks5::accept_reply(&bytes[..there]) {
        assert!(more > 0 && there + more <= 5 + 255 + 2);
        there += more;
        if there > bytes.len() {
            break;
        }
    }
    let _ = socks5::accept_reply(bytes);
    let login = (b"name".to_vec(), bytes.to_vec());
    if let Some((answer, rest)) = bytes.split_first_chunk() {
        let _ = socks5::accept_method(*answer, None);
        if let Ok(Some(said)) = socks5::accept_method(*answer, Some(&login)) {
            assert!(said.len() <= 3 + 2 * 255 && said.starts_with(b"\x01\x04name"));
        }
        let _ = rest
            .first_chunk()
            .map(|answer| socks5::accept_login(*answer));
    }
}
