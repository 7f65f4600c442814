//! The sets of measurements, each on the proxy in its two modes and on the relay in turn.

use crate::engine::Engine;
use crate::report::{Figures, Report, SERVERS, progress};
use crate::scenarios::{self, Load, SMALL, Sample};
use crate::server::{self, Files, Recipe, Server};
use crate::sys;
use crate::telegram::Role;
use crate::transfers::{Transfer, counted};
use crate::wire::Ask;
use std::path::Path;

/// Everything that lasts for the whole run.
pub struct Suite {
    recipes: [Recipe; SERVERS],
    pub report: Report,
    engine: Engine,
    /// Seconds of one measurement, and how many there are of each.
    seconds: f64,
    rounds: usize,
    /// Seconds of silence.
    silence: f64,
    /// Seconds under load, and the CPU that others used meanwhile.
    loaded: f64,
    others: f64,
    // Removed at the end.
    _files: Files,
}

/// All servers, running.
pub type Servers = [Server; SERVERS];

impl Suite {
    /// `quick` takes a quarter of the time.
    pub fn new(quick: bool) -> std::io::Result<Suite> {
        sys::raise_descriptor_limit()?;
        if sys::pin(server::SERVER_CORE)
            .and(sys::pin(server::OWN_CORE))
            .is_err()
        {
            eprintln!("bench: this machine doesn't give two cores: expect unsteady figures");
        }
        let secret: &'static [u8] = Box::leak(Box::new(server::proxy_secret()));
        let mut engine = Engine::new(secret)?;
        // As many data centres as Telegram has; for the relay their number only spreads the ports.
        let mut listen = |role| {
            (0..5)
                .map(|_| engine.listen(role))
                .collect::<std::io::Result<Vec<u16>>>()
        };
        let (middle_ports, centre_ports) = (listen(Role::MiddleProxy)?, listen(Role::DataCentre)?);
        let files = Files::new()?;
        let (seconds, rounds, silence) = if quick { (0.4, 1, 1.0) } else { (0.8, 3, 4.0) };
        Ok(Suite {
            recipes: [
                Recipe::middle(&files, &middle_ports)?,
                Recipe::direct(&centre_ports),
                Recipe::relay(&centre_ports)?,
            ],
            report: Report::default(),
            engine,
            seconds,
            rounds,
            silence,
            loaded: 0.0,
            others: 0.0,
            _files: files,
        })
    }

    /// The proxy that is measured.
    pub fn program(&self) -> &Path {
        self.recipes[0].program()
    }

    /// Starts all servers for the sets that share them.
    pub fn start_all(&mut self) -> Result<Servers, String> {
        start_each(&mut self.engine, &self.recipes)
    }

    /// The same for clients in fake TLS; those of the relay speak without.
    pub fn start_in_fake_tls(&mut self) -> Result<Servers, String> {
        let mask = self.engine.listen(Role::Mask);
        let mask = mask.map_err(|error| format!("no mask: {error}"))?;
        let [middle, direct, relay] = &self.recipes;
        let recipes = [
            middle.in_fake_tls("middle in fake TLS", mask),
            direct.in_fake_tls("direct in fake TLS", mask),
            relay.clone(),
        ];
        start_each(&mut self.engine, &recipes)
    }

    /// Time from the start of a process to its first service.
    pub fn start(&mut self) -> Result<(), String> {
        let mut times = [const { Vec::new() }; SERVERS];
        for round in 1..=STARTS {
            for (recipe, list) in self.recipes.iter().zip(&mut times) {
                progress(&format!(
                    "start of the {} ({round} of {STARTS})",
                    recipe.name
                ));
                let time = scenarios::start(&mut self.engine, recipe);
                list.push(time.map_err(|text| format!("start of the {}: {text}", recipe.name))?);
            }
        }
        let times = times.map(|list| {
            let (connected, answered): (Vec<f64>, Vec<f64>) = list.into_iter().unzip();
            (median(connected), median(answered))
        });
        self.report.begin("Start, median of 5");
        let (connected, answered) = (times.map(|time| time.0), times.map(|time| time.1));
        self.report
            .row("first connection accepted", "ms", connected, NO_LOAD);
        self.report
            .row("first request answered", "ms", answered, NO_LOAD);
        Ok(())
    }

    /// CPU and speed of bulk traffic, in a section each.
    pub fn transfers(
        &mut self,
        servers: &Servers,
        list: &[Transfer],
        [cpu_section, speed_section]: [&'static str; 2],
    ) -> Result<(), String> {
        self.verify(servers, "transfers", &ECHOES)?;
        let mut done = Vec::new();
        for transfer in list {
            let load = transfer.load();
            let name = transfer.name();
            let samples = self.alternate(servers, &name, |suite, server| {
                scenarios::transfer(&mut suite.engine, server, load, suite.seconds)
            })?;
            done.push((name, transfer.length as f64, samples));
        }
        self.report.begin(cpu_section);
        for (name, length, samples) in &done {
            let cost = |sample: &Sample| sample.cpu / (sample.answers * length) * 1e9;
            self.report
                .row(name, "s/GB", figures(samples, cost), generator(samples));
        }
        self.report.begin(speed_section);
        for (name, length, samples) in &done {
            let speed = |sample: &Sample| sample.rate() * length / 1e6;
            self.report
                .row(name, "MB/s", figures(samples, speed), generator(samples));
        }
        Ok(())
    }

    /// Delay and CPU of short requests with short answers.
    pub fn small_requests(&mut self, servers: &Servers) -> Result<(), String> {
        self.verify(servers, "small requests", &ECHOES[..4])?;
        self.report.begin("Small requests, 96 bytes each way");
        for clients in [1, 64] {
            let name = counted(clients);
            let ask = SMALL;
            let load = Load {
                clients,
                window: 1,
                ask,
            };
            let step = format!("small requests, {name}");
            let mut samples = self.alternate(servers, &step, |suite, server| {
                scenarios::transfer(&mut suite.engine, server, load, suite.seconds)
            })?;
            let load = generator(&samples);
            for (share, word) in [(0.5, "p50"), (0.99, "p99")] {
                let delays = samples.each_mut().map(|sample| sample.quantile(share));
                self.report
                    .row(&format!("{name}, delay {word}"), "us", delays, load);
            }
            let cpu = figures(&samples, Sample::microseconds_each);
            self.report
                .row(&format!("{name}, CPU"), "us/answer", cpu, load);
            let rate = figures(&samples, Sample::rate);
            self.report
                .row(&format!("{name}, rate"), "answers/s", rate, load);
        }
        Ok(())
    }

    /// Connections that live for one round trip.
    pub fn connections(&mut self, servers: &Servers, section: &'static str) -> Result<(), String> {
        self.verify(servers, "connections", &ECHOES[..4])?;
        let samples = self.alternate(servers, "connections", |suite, server| {
            scenarios::connections(&mut suite.engine, server, suite.seconds)
        })?;
        let load = generator(&samples);
        self.report.begin(section);
        let rate = figures(&samples, Sample::rate);
        self.report
            .row("16 at a time, rate", "connections/s", rate, load);
        let cpu = figures(&samples, Sample::microseconds_each);
        self.report
            .row("16 at a time, CPU", "us/connection", cpu, load);
        Ok(())
    }

    /// How well a secret's rate is kept over 20 s, or 4 in a hurry: what arrives of what it allows.
    pub fn rate(&mut self) -> Result<(), String> {
        self.report.begin("A secret's rate of 4 MiB/s");
        let ask = Ask {
            request: SMALL.request,
            answer: 16 << 10,
        };
        for clients in [1, 10] {
            let load = Load {
                clients,
                window: 4,
                ask,
            };
            let [middle, direct, _] = self.recipes.clone();
            let seconds = if self.rounds == 1 { 4.0 } else { 20.0 };
            let mut measure = |recipe: &Recipe, name| {
                let recipe = recipe.with_rate(name, " rate=4m");
                progress(&format!("a rate, {}: {name}", counted(clients)));
                let server = recipe.start(&mut self.engine)?;
                server.await_ready(&mut self.engine)?;
                let sample = scenarios::transfer(&mut self.engine, &server, load, seconds)
                    .map_err(|text| self.failed(&server, "a rate", &text))?;
                let bytes = (ask.request + ask.answer) as f64;
                Ok::<f64, String>(sample.rate() * bytes / f64::from(4 << 20) * 100.0)
            };
            let kept = [
                measure(&middle, "middle with a rate")?,
                measure(&direct, "direct with a rate")?,
                f64::NAN,
            ];
            let name = format!("down, 16 KiB, {}", counted(clients));
            self.report.row(&name, "% of the rate", kept, NO_LOAD);
        }
        Ok(())
    }

    /// What clients cost that say nothing. Each server is a fresh one.
    pub fn idle(&mut self) -> Result<(), String> {
        let mut measure = |recipe: &Recipe| {
            progress(&format!(
                "{SILENT_CLIENTS} silent clients of the {}",
                recipe.name
            ));
            let idle = scenarios::idle(&mut self.engine, recipe, SILENT_CLIENTS, self.silence);
            idle.map_err(|text| format!("silent clients of the {}: {text}", recipe.name))
        };
        let [middle, direct, relay] = &self.recipes;
        let all = [measure(middle)?, measure(direct)?, measure(relay)?];
        let report = &mut self.report;
        report.begin("1000 silent clients");
        let at_start = all.each_ref().map(|idle| idle.resident_at_start);
        report.row(
            "resident at start, without clients",
            "KiB",
            at_start,
            NO_LOAD,
        );
        let process = all.each_ref().map(|idle| idle.resident_each);
        report.row("resident for each client", "KiB", process, NO_LOAD);
        let kernel = all.each_ref().map(|idle| idle.kernel_each);
        report.row("kernel for each client, both ends", "KiB", kernel, NO_LOAD);
        report.row(
            "threads",
            "",
            all.each_ref().map(|idle| idle.threads),
            NO_LOAD,
        );
        let cpu = all.each_ref().map(|idle| idle.cpu_percent);
        report.row("CPU in silence", "% of a core", cpu, NO_LOAD);
        Ok(())
    }

    fn verify(&mut self, servers: &Servers, what: &str, lengths: &[usize]) -> Result<(), String> {
        for server in servers {
            progress(&format!(
                "{what}: are the bytes right through the {}",
                server.name
            ));
            let checked = scenarios::verify(&mut self.engine, server, lengths);
            checked.map_err(|text| self.failed(server, what, &text))?;
        }
        Ok(())
    }

    /// Measures all servers in turn, round by round, so that a noisy neighbour meets all of them.
    fn alternate(
        &mut self,
        servers: &Servers,
        name: &str,
        measure: impl Fn(&mut Suite, &Server) -> Result<Sample, String>,
    ) -> Result<Samples, String> {
        let mut samples = Samples::default();
        for round in 1..=self.rounds {
            for (server, sum) in servers.iter().zip(&mut samples) {
                progress(&format!(
                    "{name}: {} ({round} of {})",
                    server.name, self.rounds
                ));
                let sample = measure(self, server);
                let sample = sample.map_err(|text| self.failed(server, name, &text))?;
                self.loaded += sample.seconds;
                self.others += sample.others_cpu;
                sum.add(sample);
            }
        }
        Ok(samples)
    }

    /// Share of a core that other processes used while anything was measured under load.
    pub fn others(&self) -> f64 {
        (self.others / self.loaded).max(0.0)
    }

    fn failed(&mut self, server: &Server, what: &str, text: &str) -> String {
        format!(
            "{what} through the {}: {text}.{}",
            server.name,
            server.last_words(&mut self.engine)
        )
    }
}

fn start_each(engine: &mut Engine, recipes: &[Recipe; SERVERS]) -> Result<Servers, String> {
    let mut start = |recipe: &Recipe| {
        let server = recipe.start(engine)?;
        server.await_ready(engine)?;
        Ok::<Server, String>(server)
    };
    let [middle, direct, relay] = recipes;
    Ok([start(middle)?, start(direct)?, start(relay)?])
}

type Samples = [Sample; SERVERS];

fn figures(samples: &Samples, figure: impl Fn(&Sample) -> f64) -> Figures {
    samples.each_ref().map(figure)
}

fn generator(samples: &Samples) -> Figures {
    figures(samples, Sample::generator)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const STARTS: usize = 5;
const SILENT_CLIENTS: usize = 1000;
const NO_LOAD: Figures = [f64::NAN; SERVERS];
/// Lengths of echoed messages, shortest first, up to the longest that a client may send with padding.
const ECHOES: [usize; 12] = [
    64, 100, 504, 508, 512, 1024, 4096, 16_384, 65_536, 131_072, 524_288, 1_044_464,
];
