//! `mtproxy ping LINK`: acts as a client through any proxy, and says how long each data centre takes or where
//! it failed and why. The link may come from anybody, what its server says is untrusted. A thread for each data
//! centre, one deadline for all.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

use mtproxy::formats::link::{self, Link};
use mtproxy::formats::secret::Form;
use mtproxy::proto::wire::DcId;

use crate::operator::client::{Answer, Failure, Question};
use crate::operator::findings::{self, Finding, Job, Verdict, millis};
use crate::operator::options::Ping;

/// Prints what was found; exit code 0 if every data centre answered, else 1.
pub fn run(ping: &Ping) -> u8 {
    match findings::print(&ask_all(ping), ping.json) {
        Verdict::Ok => 0,
        _ => 1,
    }
}

fn ask_all(ping: &Ping) -> Vec<Finding> {
    let link = match link::parse(&ping.link) {
        Ok(link) => link,
        Err(text) => return vec![failed("link", "link", &text, "")],
    };
    let deadline = Instant::now() + ping.timeout;
    let (host, port) = (link.server.clone(), link.port);
    let name = format!("{host}:{port}");
    // A resolver keeps to no deadline.
    let resolve = Job {
        name: name.clone(),
        run: Box::new(move || match (host.as_str(), port).to_socket_addrs() {
            Ok(found) => Finding {
                addresses: found.collect(),
                ..Finding::default()
            },
            Err(e) => failed(&host, "resolve", &format!("{e}"), "is the name right?"),
        }),
    };
    let resolved = findings::side_by_side(vec![resolve], deadline);
    let addresses = resolved.iter().flat_map(|found| found.addresses.clone());
    let addresses: Vec<SocketAddr> = addresses.collect();
    if addresses.is_empty() {
        return resolved;
    }
    let jobs = ping.dcs.iter().map(|dc| {
        let question = Question {
            addresses: addresses.clone(),
            source: None,
            is_own: false,
            secret: Some(link.secret.secret),
            form: link.secret.form.clone(),
            dc: DcId(*dc),
            count: ping.count,
            deadline,
        };
        let name = format!("DC {dc}");
        Job {
            name: name.clone(),
            run: Box::new(move || finding(name, question.ask())),
        }
    });
    let mut found = findings::side_by_side(jobs.collect(), deadline + GRACE);
    explain(&mut found, &link);
    found
}

/// What came of a question.
pub fn finding(name: String, asked: Result<Answer, Failure>) -> Finding {
    let answer = match asked {
        Ok(answer) => answer,
        Err(failure) => return of_failure(&name, &failure),
    };
    let times: Vec<String> = answer.times.iter().map(|time| millis(*time)).collect();
    let (times, connect) = (times.join(" "), millis(answer.connect));
    let hello = match answer.hello.is_zero() {
        true => String::new(),
        false => format!(", hello {} ms", millis(answer.hello)),
    };
    let text = format!("resPQ after {times} ms (connect {connect} ms{hello})");
    Finding {
        times: answer.times,
        skew: Some(i64::from(answer.server_time) - crate::base::clock::unix() as i64),
        ..Finding::ok(name, text)
    }
}

fn of_failure(name: &str, failure: &Failure) -> Finding {
    let (phase, text, hint) = match failure {
        Failure::Connect(e) if e.kind() == ErrorKind::ConnectionRefused => (
            "connect",
            "connection refused",
            "nothing listens there, or a firewall refuses",
        ),
        Failure::Connect(e) if e.kind() == ErrorKind::TimedOut => (
            "connect",
            "no answer to TCP",
            "wrong address or port, a firewall, or blocked on the way",
        ),
        Failure::Connect(e) => return failed(name, "connect", &format!("{e}"), ""),
        Failure::HelloClosed => (
            "hello",
            "TCP connects, then the hello is answered by an end",
            "no fake TLS there, or something on the way objects to the domain",
        ),
        Failure::HelloSilent => (
            "hello",
            "TCP connects, the hello gets no answer",
            "no fake TLS there, or something on the way swallows the domain",
        ),
        Failure::HelloForeign(true) => (
            "hello",
            "TCP connects, the hello is answered by the real site",
            "wrong secret, a clock that is off (here or there), a domain that isn't served, or not this proxy",
        ),
        Failure::HelloForeign(false) => (
            "hello",
            "TCP connects, the hello is answered, but not in TLS",
            "another program listens there, or a proxy without fake TLS",
        ),
        Failure::Closed => ("answer", "the connection ended without an answer", ""),
        Failure::Silent => ("answer", "no answer", ""),
        Failure::WebServer => (
            "answer",
            "a web server answers",
            "not this proxy, or it serves fake TLS only (ee links)",
        ),
        Failure::Error(code) => {
            let text = format!("Telegram's error {code}");
            return failed(name, "answer", &text, "is there such a data centre?");
        }
        Failure::Wrong => (
            "answer",
            "the answer is no resPQ to our question",
            "wrong secret, or not a proxy",
        ),
    };
    failed(name, phase, text, hint)
}

/// Why there was no answer can be told from the kind of link, and from what others got.
fn explain(found: &mut [Finding], link: &Link) {
    let is_proven = matches!(link.secret.form, Form::FakeTls(_))
        || found.iter().any(|found| found.verdict == Verdict::Ok);
    for found in found
        .iter_mut()
        .filter(|f| f.phase == "answer" && f.hint.is_empty())
    {
        found.hint = match is_proven {
            true => "the secret is right: the proxy can't reach this data centre",
            false => {
                "wrong secret (proxies say nothing then), a kind of link that isn't served there, or the \
                 proxy can't reach Telegram"
            }
        }
        .into();
    }
}

fn failed(name: &str, phase: &'static str, text: &str, hint: &str) -> Finding {
    Finding {
        phase,
        ..Finding::new(Verdict::Fail, name, format!("{phase}: {text}"), hint)
    }
}

/// What ended at the deadline has so long to say so.
const GRACE: std::time::Duration = std::time::Duration::from_millis(500);
