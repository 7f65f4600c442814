//! The command lines of the commands that look at a server or write for one: `ping`, `doctor`, `service` and
//! `migrate`. Called by `parse`, without the command's own word. Nothing here reads a file.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::Arg;
use mtproxy::limits::{PING_COUNT, PING_MOST, PING_TIME};
use mtproxy::proto::wire::decimal;

use super::config::{Command, Doctor, Kind, Ping, UsageError};

/// `ping [--dc N,N] [--count N] [--timeout SECONDS] [--json] LINK`
pub fn ping(args: Vec<OsString>) -> Result<Command, UsageError> {
    let mut ping = Ping {
        link: String::new(),
        dcs: (1..=5).collect(),
        count: 1,
        timeout: PING_TIME,
        json: false,
    };
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(wrong)? {
        let name = match arg {
            Arg::Value(link) if ping.link.is_empty() => {
                ping.link = link.into_string().unwrap_or_default();
                continue;
            }
            Arg::Long(name @ ("dc" | "count" | "timeout" | "json" | "help")) => name.to_owned(),
            Arg::Short('h') => "help".to_owned(),
            // It isn't repeated: it may be a part of the link.
            _ => return Err(UsageError::new(format!("ping: {ONE_LINK}\n{PING}"))),
        };
        match name.as_str() {
            "json" => ping.json = true,
            "help" => return Ok(Command::Usage(PING)),
            _ => ping.set(&name, &parser.value().map_err(wrong)?.to_string_lossy())?,
        }
    }
    match ping.link.is_empty() {
        true => Err(UsageError::new(format!("ping: {ONE_LINK}\n{PING}"))),
        false => Ok(Command::Ping(ping)),
    }
}

/// `doctor [--json] [--own] [--ntp HOST] FLAGS`: its own flags, and the rest.
pub fn doctor(mut args: Vec<OsString>) -> Result<(Doctor, Vec<OsString>), UsageError> {
    let mut ntp = None;
    if let Some(at) = args.iter().position(|arg| arg == "--ntp") {
        let value = args.drain(at..(at + 2).min(args.len())).nth(1);
        ntp = value.and_then(|host| host.into_string().ok());
        if ntp.is_none() {
            let text = "doctor --ntp: expected a time server, such as ntp.example";
            return Err(UsageError::new(text));
        }
    }
    let mut take = |flag: &str| {
        let before = args.len();
        args.retain(|arg| arg != flag);
        args.len() < before
    };
    let how = Doctor {
        json: take("--json"),
        own: take("--own"),
        ntp,
    };
    Ok((how, args))
}

/// The word behind `service`; None asks for help.
pub fn kind(word: Option<OsString>) -> Result<Option<Kind>, UsageError> {
    match word.as_ref().and_then(|word| word.to_str()) {
        Some("systemd") => Ok(Some(Kind::Systemd)),
        Some("openwrt") => Ok(Some(Kind::Openwrt)),
        Some("docker") => Ok(Some(Kind::Docker)),
        Some("-h" | "--help") => Ok(None),
        _ => Err(UsageError::new(format!(
            "service: expected systemd, openwrt, docker, nginx or caddy first\n{SERVICE}"
        ))),
    }
}

/// `migrate FILE`
pub fn migrate(args: Vec<OsString>) -> Result<Command, UsageError> {
    match args.as_slice() {
        [word] if word == "-h" || word == "--help" => Ok(Command::Usage(MIGRATE)),
        [file] => Ok(Command::Migrate(file.into())),
        _ => Err(UsageError::new(format!(
            "migrate: expected one file\n{MIGRATE}"
        ))),
    }
}

impl Ping {
    fn set(&mut self, name: &str, value: &str) -> Result<(), UsageError> {
        let number =
            |most: u32| decimal::<u32>(value.as_bytes()).filter(|n| (1..=most).contains(n));
        let taken = match name {
            "count" => number(PING_COUNT).map(|count| self.count = count),
            "timeout" => number(PING_MOST.as_secs() as u32)
                .map(|seconds| self.timeout = Duration::from_secs(seconds.into())),
            _ => {
                let ids = value.split(',').map(|id| id.parse().ok());
                ids.collect::<Option<Vec<i16>>>()
                    .filter(|ids| ids.len() <= 16)
                    .map(|ids| self.dcs = ids)
            }
        };
        taken.ok_or_else(|| {
            let what = match name {
                "count" => "a number from 1 to 20",
                "timeout" => "seconds from 1 to 300",
                _ => "at most 16 data centres with commas between, such as 2,4,203",
            };
            UsageError::new(format!("ping --{name}: expected {what}, got {value:?}"))
        })
    }
}

fn wrong(error: lexopt::Error) -> UsageError {
    UsageError::new(error.to_string())
}

const ONE_LINK: &str = "expected one link, in quotes";

const PING: &str = "usage: mtproxy ping [--dc N,N...] [--count N] [--timeout SECONDS] [--json] LINK

Acts as a client through the proxy of a tg://proxy or https://t.me/proxy link (quote it: it has & in
it), asks data centres 1 to 5, or those of --dc, for the first step of a key exchange, and shows how
long that took, or where it failed and the likely cause. --count asks so often, up to 20 times;
--timeout is for all together, default 10. Exit 0 if all answered, else 1.";

pub const DOCTOR: &str = "usage: mtproxy doctor [--json] [--own] [--ntp HOST] FLAGS

Takes the flags of the server and looks at what it needs, within 5 s: files and their age, the clock,
each middle proxy and data centre, IPv6, NAT, the sites of fake TLS, the own port at the address of
--server, limits, the sandbox. A line each, with what to do. --own looks at the own port alone: a
health check. --ntp asks a time server for the time, too. Exit 0 if all is well, 1 if anything failed, 2 for warnings.";

pub const SERVICE: &str = "usage: mtproxy service systemd|openwrt|docker FLAGS
       mtproxy service nginx|caddy --web HOST[/PATH] [--web-listen ADDRESS:PORT]

Prints a unit of systemd, a script that sets the server up on OpenWrt, or a compose file with the
image's Dockerfile in it, for a server with these flags. None of them holds a secret: what is to be
written where is said on standard error. Or the configuration of a web server in front of --web.";

const MIGRATE: &str = "usage: mtproxy migrate FILE

Prints the command line, and the lines for --config, that do what the configuration file of
teleproxy, mtg or telemt says, or a systemd unit or command line of the C program. What has no
equivalent is listed.";
