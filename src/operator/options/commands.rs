//! The command lines of the commands that look at a server or write for one: `ping`, `doctor`, `service` and
//! `migrate`. Called by `parse`, without the command's own word. Nothing here reads a file.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::Arg;
use mtproxy::limits::{PING_COUNT, PING_MOST, PING_TIME};
use mtproxy::proto::wire::decimal;

use super::config::{Command, Ping, UsageError};

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
