//! `/metrics`: everything that is counted, in Prometheus's text format 0.0.4, one row a family. Counters
//! and gauges without labels come from the rows of `stats`; what has labels, or is only known when the
//! page is asked for, has its row here.
//!
//! A refused client is counted in `handshake_refusals` alone, by reason, so that no sum counts it twice;
//! `/stats` and the summary have the counters behind it by their own names.

use std::sync::atomic::Ordering;

use mtproxy::proto::{transport::Transport, wire::DcId};

use super::exposition::{Text, millionths, thousandths};
use super::live::{Live, open};
use crate::base::threads;
use crate::door::sites::Look;
use crate::operator::proc::{self, number_behind};
use crate::stats::{self, Account, Close, Traffic};

/// Writes families. A row is kind, name, labels, help, and what writes the samples.
macro_rules! families {
    ($text:ident: $($kind:ident $name:ident [$($label:ident)*] $help:literal $samples:expr;)*) => {
        $(
            $text.row(concat!(
                stringify!($kind), "\n", stringify!($name), "\n", stringify!($($label)*), "\n", $help
            ));
            $samples;
        )*
    };
}

/// The page.
pub fn render(live: &Live) -> String {
    let mut text = Text::default();
    process(&mut text, live);
    clients(&mut text, live);
    counters(&mut text);
    by_dc(&mut text, live);
    by_secret(&mut text, live);
    middle(&mut text, live);
    rest(&mut text, live);
    sites(&mut text, live);
    text.out
}

fn process(text: &mut Text, live: &Live) {
    let start = live.facts.start_time;
    let cpu = thousandths(live.cpu);
    let (running, most) = threads::running();
    let [size, resident, _] = live.memory;
    let open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count());
    let most_fds = number_behind(&proc::text("/proc/self/limits"), "Max open files");
    families! { text:
        gauge build_info [version] "the version that runs"
            text.sample(&[env!("CARGO_PKG_VERSION")], &1);
        gauge start_time_seconds [] "when the process started, unix time" text.value(&start);
        gauge process_start_time_seconds [] "when the process started, unix time" text.value(&start);
        counter cpu_seconds [] "time that processors worked for the process" text.value(&cpu);
        counter process_cpu_seconds [] "time that processors worked for the process" text.value(&cpu);
        gauge process_virtual_memory_bytes [] "address space of the process" text.value(&size);
        gauge process_resident_memory_bytes [] "memory of the process" text.value(&resident);
        gauge process_open_fds [] "descriptors that are open" text.value(&open_fds);
        gauge process_max_fds [] "descriptors that may be open" text.value(&most_fds.unwrap_or(0));
        gauge threads [] "threads of the process" text.value(&live.threads);
        gauge client_threads [] "threads that serve clients or wait for one" text.value(&running);
        gauge client_threads_limit [] "how many of them there may be" text.value(&most);
    }
}

fn clients(text: &mut Text, live: &Live) {
    families! { text:
        gauge connections [phase transport]
            "clients connected, by phase and, once that is known, by transport" {
            text.sample(&["handshake", ""], &live.clients.saturating_sub(live.open));
            for (transport, name) in [
                (Some(Transport::Abridged), "abridged"),
                (Some(Transport::Intermediate), "intermediate"),
                (Some(Transport::PaddedIntermediate), "padded_intermediate"),
                (None, "http"),
            ] {
                text.sample(&["open", name], &live.sum(&|t| t.transport == transport, open));
            }
        };
        gauge connections_limit [] "clients that may be connected at a time"
            text.value(&live.facts.most_clients);
    }
    for row in stats::gauges() {
        text.family("gauge", row.name, "", row.help);
        text.value(&row.value);
    }
    let (entries, most) = live.rules.replays.fill();
    families! { text:
        gauge replay_entries [] "accepted fake-TLS hellos and headers that are remembered"
            text.value(&entries);
        gauge replay_entries_limit [] "how many are" text.value(&most);
    }
}

/// Every counter without labels, the ends and the refusals by reason.
fn counters(text: &mut Text) {
    for row in stats::counters() {
        if row.refusal.is_empty() {
            let name = row.name.strip_prefix("tot_").unwrap_or(row.name);
            text.family("counter", name, "", row.help);
            text.value(&row.value);
        }
    }
    families! { text:
        counter connections_closed [reason] "clients that are gone, by reason"
            Close::rows().iter().for_each(|row| text.sample(&[row.name], &row.value));
        counter handshake_refusals [reason] "clients that were not served, by reason"
            stats::refusals().iter().for_each(|row| text.sample(&[row.refusal], &row.value));
    }
}

fn by_dc(text: &mut Text, live: &Live) {
    let mut dcs: Vec<DcId> = Vec::new();
    for traffic in &live.traffic {
        if !dcs.contains(&traffic.dc) {
            dcs.push(traffic.dc);
        }
    }
    let each = |text: &mut Text, figures: &[(&str, stats::Figure)]| {
        for dc in &dcs {
            for (direction, figure) in figures {
                let value = live.sum(&|t| t.dc == *dc, *figure);
                text.sample(&[&dc.0.to_string(), direction], &value);
            }
        }
    };
    families! { text:
        gauge dc_connections [dc] "clients connected, by data centre" each(text, &[("", open)]);
        counter dc_bytes [dc direction] "bytes of clients' packets, or in direct mode of their stream"
            each(text, &[("up", Traffic::up_bytes), ("down", Traffic::down_bytes)]);
        counter dc_packets [dc direction] "packets of clients; direct mode doesn't look at them"
            each(text, &[("up", |t| t.queries.value()), ("down", |t| t.answers.value())]);
    }
}

fn by_secret(text: &mut Text, live: &Live) {
    let each = |text: &mut Text, direction: &str, figure: &dyn Fn(&'static Account) -> u64| {
        for (number, account) in (1..).zip(&live.rules.accounts) {
            let labels = [&format!("{number}"), account.label.as_str(), direction];
            text.sample(&labels, &figure(account));
        }
    };
    let sum = |account, figure| live.sum(&|t| t.is_of(account), figure);
    families! { text:
        gauge secret_connections [secret label] "clients connected, by secret"
            each(text, "", &|account| account.open.value().into());
        gauge secret_connections_limit [secret label] "clients that may be; 0: no limit"
            each(text, "", &|account| account.limit().unwrap_or(0).into());
        counter secret_clients [secret label] "clients whose handshake was accepted, by secret"
            each(text, "", &|account| sum(account, |t| t.clients.value()));
        counter secret_refusals [secret label] "clients refused because of that limit"
            each(text, "", &|account| account.refused[0].value());
        counter secret_bytes [secret label direction] "bytes of clients, by secret" {
            each(text, "up", &|account| sum(account, Traffic::up_bytes));
            each(text, "down", &|account| sum(account, Traffic::down_bytes));
        };
        counter secret_refusals_by_reason [secret label reason] "clients refused by what the secret allows"
            for (place, (_, word)) in stats::REFUSALS.iter().enumerate() {
                each(text, word, &|account| account.refused[place].value());
            };
        gauge secret_addresses [secret label] "addresses that clients come from, if max-ips limits them"
            each(text, "", &|account| account.addresses() as u64);
        gauge secret_quota_left_bytes [secret label] "bytes left of the quota, where there is one"
            for (number, account) in (1..).zip(&live.rules.accounts) {
                if let Some(left) = account.quota_left() {
                    text.sample(&[&format!("{number}"), account.label.as_str()], &left);
                }
            };
    }
}

fn middle(text: &mut Text, live: &Live) {
    let sets = live.rules.sets().iter();
    let first = |place| live.rules.dcs().map_or(0, |dcs| dcs.first_of(place).0);
    let dcs = (0..sets.len()).map(|place| first(place).to_string());
    let sets: Vec<_> = dcs.zip(&live.sets).collect();
    let mut links = Vec::new();
    for (dc, set) in &sets {
        for link in &set.ready {
            let target = link.target.to_string();
            links.push((link, [dc.clone(), link.slot.to_string(), target]));
        }
    }
    families! { text:
        gauge backend_slots [dc state]
            "connections to middle proxies, by state and by the first data centre that they serve" {
            for (dc, set) in &sets {
                let ready = set.ready.len();
                text.sample(&[dc, "ready"], &ready);
                text.sample(&[dc, "dialing"], &set.started.saturating_sub(ready));
                text.sample(&[dc, "unused"], &set.slots.saturating_sub(set.started));
            }
        };
        gauge backend_waiting [dc] "clients that wait for such a connection"
            sets.iter().for_each(|(dc, set)| text.sample(&[dc], &set.waiting));
        gauge backend_clients [dc slot target] "clients of each ready connection" {
            for (link, [dc, slot, target]) in &links {
                text.sample(&[dc, slot, target], &link.clients.load(Ordering::Relaxed));
            }
        };
        gauge backend_round_trip_seconds [dc slot target] "what the last answered ping took" {
            for (link, [dc, slot, target]) in &links {
                if let Some(micros) = link.round_trip() {
                    text.sample(&[dc, slot, target], &millionths(micros.into()));
                }
            }
        };
    }
}

fn rest(text: &mut Text, live: &Live) {
    let dials = stats::all_dials();
    let ([size, resident, data], [up, down], buffers) = (live.memory, live.queued, &live.buffers);
    families! { text:
        histogram connect_seconds [dc le] "TCP connects to Telegram that succeeded, by data centre"
            dials.iter().for_each(|dials| text.histogram(dials.dc, &dials.connect));
        counter connect_failures [dc] "connections to Telegram that failed, by data centre"
            for dials in &dials {
                text.sample(&[&dials.dc.0.to_string()], &dials.failures.value());
            };
        histogram handshake_seconds [dc le]
            "handshakes with middle proxies that succeeded, by data centre"
            dials.iter().for_each(|dials| text.histogram(dials.dc, &dials.handshake));
        gauge memory_bytes [kind] "memory of the process"
            text.samples(&[("virtual", size), ("resident", resident), ("data", data)]);
        gauge buffer_bytes [state] "packet buffers, and the budget of those in use"
            text.samples(&[("used", buffers.bytes), ("free", buffers.free_bytes), ("budget", buffers.budget)]);
        gauge queue_bytes [direction] "bytes that wait for middle proxies, and for clients"
            text.samples(&[("up", up), ("down", down)]);
        gauge file_age_seconds [file] "time since Telegram's files, as they were read, were written" {
            for (name, file) in live.telegram.files() {
                if let Some(age) = file.age() {
                    text.sample(&[name], &age.as_secs());
                }
            }
        };
        gauge last_reload_seconds [] "when a reload was applied last, in seconds since 1970; 0: never"
            text.value(&live.telegram.reloaded);
    }
}

/// The sites of -D, once they have been looked at; other clocks; where clients come from.
fn sites(text: &mut Text, live: &Live) {
    let sites = live.rules.tls.as_ref().map(|tls| &tls.sites.sites);
    let looks = sites
        .into_iter()
        .flatten()
        .map(|site| (site.name.as_str(), site.look()));
    let looks: Vec<(&str, Look)> = looks.filter(|(_, look)| look.at > 0).collect();
    let each = |text: &mut Text, figure: fn(&Look) -> u64| {
        for (name, look) in &looks {
            text.sample(&[name], &figure(look));
        }
    };
    families! { text:
        gauge mask_site_known [domain]
            "whether the last look at a site of -D found all that answers to clients are modelled on"
            each(text, |look| look.is_well.into());
        gauge mask_site_last_look_timestamp_seconds [domain] "when that was, unix time"
            each(text, |look| look.at);
        gauge mask_site_tls13 [domain] "whether the site speaks TLS 1.3" each(text, |look| look.tls13.into());
        gauge mask_site_mlkem [domain] "whether the site takes X25519MLKEM768"
            each(text, |look| look.mlkem.into());
        gauge clock_skew_seconds [against]
            "how far another clock was ahead of this one when it was last seen" {
            for (name, skew) in [("middle_proxy", &stats::MIDDLE_SKEW), ("client", &stats::HELLO_SKEW)] {
                if let Some(seconds) = skew.seconds() {
                    text.sample(&[name], &seconds);
                }
            }
        };
        gauge client_addresses [] "addresses that clients with a proven secret come from; an IPv6 /64 is one"
            text.value(&stats::addresses());
    }
}
