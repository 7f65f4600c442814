//! `/metrics`: everything that is counted, in Prometheus's text format 0.0.4. Each counter of the table
//! is a family of its own; what is counted by reason, data centre or secret has labels.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use mtproxy::limits::TIME_BUCKETS;
use mtproxy::proto::transport::Transport;
use mtproxy::proto::wire::DcId;

use crate::base::threads;
use crate::middle::link::Link;
use crate::operator::pages::exposition::Value::{Micros, Whole};
use crate::operator::pages::exposition::{Text, Value};
use crate::operator::pages::live::{Facts, Figure, Live, open, sum};
use crate::stats::{self, Close, Histogram, Traffic};

/// The page.
pub fn render(facts: &Facts, live: &Live) -> String {
    let mut text = Text::new();
    process(&mut text, facts, live);
    clients(&mut text, facts, live);
    counters(&mut text);
    by_dc(&mut text, live);
    by_secret(&mut text, live);
    backends(&mut text, facts, live);
    times(&mut text);
    memory(&mut text, live);
    files(&mut text, facts);
    text.out
}

fn process(text: &mut Text, facts: &Facts, live: &Live) {
    text.gauge("build_info", "the version that runs");
    let version = env!("CARGO_PKG_VERSION");
    text.sample(&[("version", version)], Whole(1));
    text.gauge("start_time_seconds", "when the process started, unix time");
    text.sample(&[], Whole(facts.start_time));
    text.counter("cpu_seconds", "time that processors worked for the process");
    text.sample(&[], Micros(live.cpu * 1000));
    text.gauge("threads", "threads of the process");
    text.sample(&[], Whole(live.threads));
    let (running, most) = threads::running();
    text.gauge(
        "client_threads",
        "threads that serve clients or wait for one",
    );
    text.sample(&[], Whole(running as u64));
    text.gauge("client_threads_limit", "how many of them there may be");
    text.sample(&[], Whole(most as u64));
}

fn clients(text: &mut Text, facts: &Facts, live: &Live) {
    text.gauge(
        "connections",
        "clients connected, by phase and, once that is known, by transport",
    );
    let handshakes = live.clients.saturating_sub(live.open);
    let phase = |phase| ("phase", phase);
    text.sample(&[phase("handshake"), ("transport", "")], Whole(handshakes));
    for (transport, name) in [
        (Some(Transport::Abridged), "abridged"),
        (Some(Transport::Intermediate), "intermediate"),
        (Some(Transport::PaddedIntermediate), "padded_intermediate"),
        (None, "http"),
    ] {
        let open = sum(&live.traffic, &|t| t.transport == transport, open);
        text.sample(&[phase("open"), ("transport", name)], Whole(open));
    }
    text.gauge(
        "connections_limit",
        "clients that may be connected at a time",
    );
    text.sample(&[], Whole(facts.most_clients.into()));
    text.gauge(
        "http_pending_queries",
        "packets over HTTP that are not answered yet",
    );
    text.sample(&[], Whole(stats::PENDING.value().into()));
    text.gauge("direct_connections", "connections to data centres");
    text.sample(&[], Whole(live.direct));
    let Some(replays) = &facts.replays else {
        return;
    };
    text.gauge("mask_open_connections", "strangers at mask sites");
    text.sample(&[], Whole(stats::STRANGERS.value().into()));
    text.gauge(
        "replay_entries",
        "accepted fake-TLS hellos and headers that are remembered",
    );
    let (seen, most) = replays.fill();
    text.sample(&[], Whole(seen as u64));
    text.gauge("replay_entries_limit", "how many are");
    text.sample(&[], Whole(most as u64));
}

/// Every row of the table.
fn counters(text: &mut Text) {
    for (name, help, value) in stats::rows() {
        text.counter(name.strip_prefix("tot_").unwrap_or(name), help);
        text.sample(&[], Whole(value));
    }
    text.counter("connections_closed", "clients that are gone, by reason");
    for (word, _, value) in Close::rows() {
        text.sample(&[("reason", word)], Whole(value));
    }
    text.counter(
        "handshake_refusals",
        "clients that were not served, by reason",
    );
    for (word, value) in stats::refusal_rows() {
        text.sample(&[("reason", word)], Whole(value));
    }
}

/// Sums a figure of all traffic that fits.
fn sum_of(live: &Live, fits: &dyn Fn(&Traffic) -> bool, of: Figure) -> Value {
    Whole(sum(&live.traffic, fits, of))
}

fn by_dc(text: &mut Text, live: &Live) {
    let mut dcs: Vec<DcId> = Vec::new();
    for traffic in &live.traffic {
        if !dcs.contains(&traffic.dc) {
            dcs.push(traffic.dc);
        }
    }
    let each = |text: &mut Text, directions: &[(&str, Figure)]| {
        for dc in &dcs {
            let name = dc.0.to_string();
            for (direction, of) in directions {
                let both = [("dc", name.as_str()), ("direction", direction)];
                let labels = &both[..if direction.is_empty() { 1 } else { 2 }];
                text.sample(labels, sum_of(live, &|t| t.dc == *dc, *of));
            }
        }
    };
    text.gauge("dc_connections", "clients connected, by data centre");
    each(text, &[("", open)]);
    text.counter(
        "dc_bytes",
        "bytes of clients' packets, or in direct mode of their stream",
    );
    each(
        text,
        &[("up", Traffic::up_bytes), ("down", Traffic::down_bytes)],
    );
    text.counter(
        "dc_packets",
        "packets of clients; direct mode doesn't look at them",
    );
    each(
        text,
        &[
            ("up", |t| t.queries.value()),
            ("down", |t| t.answers.value()),
        ],
    );
}

fn by_secret(text: &mut Text, live: &Live) {
    let each = |text: &mut Text, direction: &str, of: &dyn Fn(usize) -> Value| {
        for (number, label) in stats::labels().iter().enumerate() {
            let shown = (number + 1).to_string();
            let all = [
                ("secret", shown.as_str()),
                ("label", &label.name),
                ("direction", direction),
            ];
            let labels = &all[..if direction.is_empty() { 2 } else { 3 }];
            text.sample(labels, of(number));
        }
    };
    let label = |number: usize| stats::labels().get(number);
    text.gauge("secret_connections", "clients connected, by secret");
    let used = |n| label(n).map_or(0, |l| l.open.load(Ordering::Relaxed).into());
    each(text, "", &|n| Whole(used(n)));
    text.gauge(
        "secret_connections_limit",
        "clients that may be; 0: no limit",
    );
    each(text, "", &|n| {
        Whole(label(n).and_then(|l| l.limit).unwrap_or(0).into())
    });
    text.counter(
        "secret_clients",
        "clients whose handshake was accepted, by secret",
    );
    each(text, "", &|n| {
        sum_of(live, &|t| t.secret == n, |t| t.clients.value())
    });
    text.counter("secret_refusals", "clients refused because of that limit");
    each(text, "", &|n| {
        Whole(label(n).map_or(0, |l| l.refused.value()))
    });
    text.counter("secret_bytes", "bytes of clients, by secret");
    each(text, "up", &|n| {
        sum_of(live, &|t| t.secret == n, Traffic::up_bytes)
    });
    each(text, "down", &|n| {
        sum_of(live, &|t| t.secret == n, Traffic::down_bytes)
    });
}

fn backends(text: &mut Text, facts: &Facts, live: &Live) {
    let sets = || {
        facts
            .sets
            .iter()
            .map(|set| set.dc.0.to_string())
            .zip(&live.sets)
    };
    text.gauge(
        "backend_slots",
        "connections to middle proxies, by state and by the first data centre that they serve",
    );
    for (dc, set) in sets() {
        let ready = set.ready.len();
        for (state, count) in [
            ("ready", ready),
            ("dialing", set.started.saturating_sub(ready)),
            ("unused", set.slots.saturating_sub(set.started)),
        ] {
            text.sample(&[("dc", &dc), ("state", state)], Whole(count as u64));
        }
    }
    text.gauge("backend_waiting", "clients that wait for such a connection");
    for (dc, set) in sets() {
        text.sample(&[("dc", &dc)], Whole(set.waiting as u64));
    }
    let each = |text: &mut Text, of: &dyn Fn(&Link) -> Option<Value>| {
        for (dc, set) in sets() {
            for link in &set.ready {
                let target = link.target().map_or(String::new(), |t| t.to_string());
                let slot = link.slot.to_string();
                if let Some(value) = of(link) {
                    text.sample(&[("dc", &dc), ("slot", &slot), ("target", &target)], value);
                }
            }
        }
    };
    text.gauge("backend_clients", "clients of each ready connection");
    each(text, &|link| {
        Some(Whole(link.clients.load(Ordering::Relaxed) as u64))
    });
    text.gauge(
        "backend_round_trip_seconds",
        "what the last answered ping took",
    );
    each(text, &|link| {
        link.round_trip().map(|micros| Micros(micros.into()))
    });
}

fn times(text: &mut Text) {
    let all = stats::all_dials();
    let each = |text: &mut Text, of: &dyn Fn(&stats::Dials) -> &Histogram| {
        for dials in &all {
            histogram(text, &dials.dc.0.to_string(), of(dials));
        }
    };
    text.family(
        "connect_seconds",
        "histogram",
        "TCP connects to Telegram that succeeded, by data centre",
    );
    each(text, &|dials| &dials.connect);
    text.family(
        "handshake_seconds",
        "histogram",
        "handshakes with middle proxies that succeeded, by data centre",
    );
    each(text, &|dials| &dials.handshake);
}

fn histogram(text: &mut Text, dc: &str, histogram: &Histogram) {
    let counts = histogram.cumulative();
    let all = counts.last().copied().unwrap_or(0);
    for (most, count) in TIME_BUCKETS.iter().zip(counts) {
        let bound = format!("{}.{:03}", most / 1000, most % 1000);
        text.suffixed("_bucket", &[("dc", dc), ("le", &bound)], Whole(count));
    }
    text.suffixed("_bucket", &[("dc", dc), ("le", "+Inf")], Whole(all));
    text.suffixed("_sum", &[("dc", dc)], Micros(histogram.micros()));
    text.suffixed("_count", &[("dc", dc)], Whole(all));
}

fn memory(text: &mut Text, live: &Live) {
    text.gauge("memory_bytes", "memory of the process");
    for (kind, bytes) in ["virtual", "resident", "data"].iter().zip(live.memory) {
        text.sample(&[("kind", kind)], Whole(bytes));
    }
    text.gauge(
        "buffer_bytes",
        "packet buffers, and the budget of those in use",
    );
    let buffers = &live.buffers;
    for (state, bytes) in [
        ("used", buffers.bytes),
        ("free", buffers.free_bytes),
        ("budget", buffers.budget),
    ] {
        text.sample(&[("state", state)], Whole(bytes as u64));
    }
    text.gauge(
        "queue_bytes",
        "bytes that wait for middle proxies, and for clients",
    );
    for (direction, bytes) in ["up", "down"].iter().zip(live.queued) {
        text.sample(&[("direction", direction)], Whole(bytes));
    }
}

fn files(text: &mut Text, facts: &Facts) {
    text.gauge(
        "file_age_seconds",
        "time since Telegram's files, as they were read, were written",
    );
    for (file, name) in [
        (&facts.config, "config"),
        (&facts.proxy_secret, "proxy_secret"),
    ] {
        let modified = file.as_ref().and_then(|file| file.modified);
        if let Some(modified) = modified {
            let age = SystemTime::now().duration_since(modified);
            text.sample(&[("file", name)], Whole(age.map_or(0, |age| age.as_secs())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_everything() {
        let (mut text, times) = (Text::new(), Histogram::default());
        for millis in [1, 7, 60_000] {
            times.add(std::time::Duration::from_millis(millis));
        }
        text.family("t_seconds", "histogram", "help");
        histogram(&mut text, "2", &times);
        for line in [
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"0.005\"} 1\n",
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"0.010\"} 2\n",
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"5.000\"} 2\n",
            "mtproxy_t_seconds_bucket{dc=\"2\",le=\"+Inf\"} 3\n",
            "mtproxy_t_seconds_sum{dc=\"2\"} 60.008000\n",
            "mtproxy_t_seconds_count{dc=\"2\"} 3\n",
        ] {
            assert!(text.out.contains(line), "{line} in {}", text.out);
        }
    }
}
