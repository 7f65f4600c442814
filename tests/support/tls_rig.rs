//! The usual set-up of fake TLS: a proxy in either mode, whoever serves its clients, and a site behind the
//! mask.

use super::client::{Client, Dialer};
use super::dc::{Behaviour, DataCentre};
use super::direct_rig::direct_proxy;
use super::framing::Transport;
use super::mask_site::MaskSite;
use super::middle_proxy::{MiddleProxy, Options};
use super::proxy::{Event, Proxy};
use super::rig::{Rig, SECRET, dialer};
use super::sockets::dial;
use super::tls_client::{Answer, Tls, handshake};
use super::tls_flight::Flight;
use super::tls_hello::Kind;
use std::net::SocketAddr;

/// The domain of the usual set-up: a name with letters that leads to this machine everywhere.
pub const DOMAIN: &str = "localhost";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Middle,
    Direct,
}

pub const MODES: [Mode; 2] = [Mode::Middle, Mode::Direct];

/// Whoever serves the clients.
pub enum Far {
    Middle(MiddleProxy),
    Direct(DataCentre),
}

/// A proxy that serves clients, with arguments of the test's own.
pub struct Served {
    // The proxy goes first, so that the far side sees an end rather than a wrong beginning.
    pub proxy: Proxy,
    pub far: Far,
}

pub struct TlsRig {
    pub served: Served,
    pub site: MaskSite,
}

impl Served {
    /// With the usual secret, and a far side that runs the test service.
    pub fn start(mode: Mode, arguments: &[&str]) -> Served {
        Served::handing_over(mode, arguments, Behaviour::Serve)
    }

    /// In direct mode the far side may leave its connections to the test.
    pub fn handing_over(mode: Mode, arguments: &[&str], behaviour: Behaviour) -> Served {
        match mode {
            Mode::Direct => {
                let centre = DataCentre::start(behaviour);
                let proxy = direct_proxy(&[&centre.as_dc(2)], arguments);
                let far = Far::Direct(centre);
                Served { proxy, far }
            }
            Mode::Middle => {
                assert_eq!(behaviour, Behaviour::Serve, "what a middle proxy does");
                let Rig { proxy, middle } = Rig::with(arguments, Options::default());
                let far = Far::Middle(middle);
                Served { proxy, far }
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.proxy.address()
    }

    /// Where direct mode's clients go.
    pub fn centre(&self) -> &DataCentre {
        match &self.far {
            Far::Direct(centre) => centre,
            Far::Middle(_) => panic!("a data centre is the far side"),
        }
    }

    pub fn dialer(&self, kind: Kind) -> Dialer {
        tls_dialer(self.address(), kind)
    }

    /// A client in fake TLS as of today.
    pub fn dial(&self) -> Client {
        self.dialer(Kind::Today).dial()
    }

    /// Waits until the proxy says that it knows the site of this domain; gives what it says.
    pub fn wait_until_probed(&self, domain: &str) -> String {
        let sign = format!("mask domain={domain} ");
        let what = format!("what it has learnt of {domain}");
        self.proxy.wait_for_line(&what, |line| line.contains(&sign))
    }

    /// Connections or requests that reached the far side.
    pub fn forwarded(&self) -> usize {
        match &self.far {
            Far::Middle(middle) => middle.with(|state| state.requests.len()),
            Far::Direct(centre) => centre.with(|state| state.accepted),
        }
    }

    /// Stops the proxy; gives its counters.
    pub fn stop(self) -> Event {
        self.proxy.stop()
    }
}

impl TlsRig {
    pub fn start(mode: Mode) -> TlsRig {
        TlsRig::with(mode, &[])
    }

    pub fn with(mode: Mode, arguments: &[&str]) -> TlsRig {
        TlsRig::before(MaskSite::start(), mode, arguments)
    }

    /// In front of this site.
    pub fn before(site: MaskSite, mode: Mode, arguments: &[&str]) -> TlsRig {
        let domain = site.as_domain(DOMAIN);
        let served = Served::start(mode, &[&["-D", &domain], arguments].concat());
        TlsRig { served, site }
    }

    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    pub fn dial(&self) -> Client {
        self.served.dial()
    }

    /// Waits until the proxy says that it knows the site.
    pub fn wait_until_probed(&self) {
        self.served.wait_until_probed(DOMAIN);
    }

    /// Stops the proxy; gives its counters.
    pub fn stop(self) -> Event {
        self.served.stop()
    }
}

/// A client of DC 2 with the usual secret, in fake TLS.
pub fn tls_dialer(address: SocketAddr, kind: Kind) -> Dialer {
    let mut dialer = dialer(address, Transport::Padded);
    dialer.tls = Some(Tls::new(kind, DOMAIN));
    dialer
}

/// The answer to a hello of this kind, taken apart.
pub fn ask(address: SocketAddr, kind: Kind, name: &str) -> (Answer, Flight) {
    let hello = kind.signed(name, &SECRET);
    let answer = handshake(&dial(address), &hello, &SECRET);
    let flight = Flight::parse(&answer.bytes, &hello).expect("a first flight");
    assert!(flight.session_echoed && flight.change_cipher_spec);
    assert_eq!(flight.records.len(), 1);
    (answer, flight)
}
