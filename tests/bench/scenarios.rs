//! What is measured, one server at a time. Each scenario opens its own clients, lets every request be
//! answered and closes them, so that nothing is left over for the next one.

use crate::clients::Answer;
use crate::engine::Engine;
use crate::server::{Recipe, Server, kernel_memory, machine_cpu, own_cpu};
use crate::sys::now;
use crate::wire::Ask;

/// Clients that keep `window` requests open each.
#[derive(Clone, Copy)]
pub struct Load {
    pub clients: usize,
    pub window: usize,
    pub ask: Ask,
}

/// What some seconds of load have brought. Samples of several rounds are added up.
#[derive(Default)]
pub struct Sample {
    pub seconds: f64,
    pub answers: f64,
    pub cpu: f64,
    pub own_cpu: f64,
    /// CPU of everything else on the machine.
    pub others_cpu: f64,
    /// Nanoseconds between request and answer.
    pub delays: Vec<u64>,
}

impl Sample {
    pub fn add(&mut self, other: Sample) {
        self.seconds += other.seconds;
        self.answers += other.answers;
        self.cpu += other.cpu;
        self.own_cpu += other.own_cpu;
        self.others_cpu += other.others_cpu;
        self.delays.extend(other.delays);
    }

    /// Microseconds of CPU for each answer.
    pub fn microseconds_each(&self) -> f64 {
        self.cpu * 1e6 / self.answers
    }

    /// Answers in a second.
    pub fn rate(&self) -> f64 {
        self.answers / self.seconds
    }

    /// The share of its core that the load generator used.
    pub fn generator(&self) -> f64 {
        self.own_cpu / self.seconds
    }

    /// The delay that a share of the answers stays below, in microseconds.
    pub fn quantile(&mut self, share: f64) -> f64 {
        self.delays.sort_unstable();
        let last = self.delays.len().saturating_sub(1) as f64;
        let delay = self.delays.get((last * share).round() as usize);
        delay.map_or(f64::NAN, |delay| *delay as f64 / 1e3)
    }
}

/// The begin of a sample.
struct Mark {
    time: u64,
    cpu: f64,
    own_cpu: f64,
    machine_cpu: f64,
}

impl Mark {
    fn new(server: &Server) -> Mark {
        Mark {
            time: now(),
            cpu: server.cpu(),
            own_cpu: own_cpu(),
            machine_cpu: machine_cpu(),
        }
    }

    fn until_now(&self, server: &Server, delays: Vec<u64>) -> Sample {
        let end = Mark::new(server);
        let cpu = end.cpu - self.cpu;
        let own_cpu = end.own_cpu - self.own_cpu;
        Sample {
            seconds: (end.time - self.time) as f64 / 1e9,
            answers: delays.len() as f64,
            cpu,
            own_cpu,
            others_cpu: end.machine_cpu - self.machine_cpu - cpu - own_cpu,
            delays,
        }
    }
}

/// Echoes messages of many lengths through two clients at once and compares every byte.
pub fn verify(engine: &mut Engine, server: &Server, lengths: &[usize]) -> Result<(), String> {
    let clients = [engine.connect(server.door)?, engine.connect(server.door)?];
    for length in lengths {
        for client in clients {
            let echo = Ask {
                request: *length,
                answer: 0,
            };
            engine.ask(client, echo)?;
        }
        drain(engine).map_err(|text| format!("echo of {length} bytes: {text}"))?;
    }
    engine.close_all_clients();
    Ok(())
}

/// Keeps a load up for `seconds`, after a third as long that doesn't count.
pub fn transfer(
    engine: &mut Engine,
    server: &Server,
    load: Load,
    seconds: f64,
) -> Result<Sample, String> {
    for client in open(engine, server, load.clients)? {
        for _ in 0..load.window {
            engine.ask(client, load.ask)?;
        }
    }
    run(engine, load.ask, seconds / 3.0)?;
    let mark = Mark::new(server);
    let delays = run(engine, load.ask, seconds)?;
    let sample = mark.until_now(server, delays);
    drain(engine)?;
    engine.close_all_clients();
    Ok(sample)
}

/// Answers each answer with the next request.
fn run(engine: &mut Engine, ask: Ask, seconds: f64) -> Result<Vec<u64>, String> {
    let end = now() + (seconds * 1e9) as u64;
    let mut delays = Vec::new();
    let mut answers = Vec::new();
    let mut patience = Patience::new();
    while now() < end {
        turn(engine, &mut answers, &mut patience)?;
        for answer in answers.drain(..) {
            delays.push(answer.nanoseconds);
            engine.ask(answer.client, ask)?;
        }
    }
    Ok(delays)
}

/// Opens clients, each proven by one small round trip, and returns them when all are through.
fn open(engine: &mut Engine, server: &Server, count: usize) -> Result<Vec<usize>, String> {
    let mut opened = Vec::with_capacity(count);
    let mut through = 0;
    let mut answers = Vec::new();
    let mut patience = Patience::new();
    while through < count {
        while opened.len() < count && opened.len() - through < 16 {
            let client = engine.connect(server.door)?;
            engine.ask(client, SMALL)?;
            opened.push(client);
        }
        turn(engine, &mut answers, &mut patience)?;
        through += answers.drain(..).count();
    }
    Ok(opened)
}

/// Waits until nobody waits for an answer.
fn drain(engine: &mut Engine) -> Result<(), String> {
    let mut answers = Vec::new();
    let mut patience = Patience::new();
    while engine.waits() {
        turn(engine, &mut answers, &mut patience)?;
        answers.clear();
    }
    Ok(())
}

/// Connect, handshake, one small round trip, close; 16 at a time.
pub fn connections(engine: &mut Engine, server: &Server, seconds: f64) -> Result<Sample, String> {
    let mark = Mark::new(server);
    let end = mark.time + (seconds * 1e9) as u64;
    let mut delays = Vec::new();
    let mut answers = Vec::new();
    let mut patience = Patience::new();
    for _ in 0..16 {
        let client = engine.connect(server.door)?;
        engine.ask(client, SMALL)?;
    }
    while now() < end {
        turn(engine, &mut answers, &mut patience)?;
        for answer in answers.drain(..) {
            delays.push(answer.nanoseconds);
            engine.close(answer.client);
            let client = engine.connect(server.door)?;
            engine.ask(client, SMALL)?;
        }
    }
    let sample = mark.until_now(server, delays);
    drain(engine)?;
    engine.close_all_clients();
    Ok(sample)
}

/// What a server costs that does nothing.
pub struct Idle {
    /// KiB of the process before the first client.
    pub resident_at_start: f64,
    /// KiB of the process and of the kernel for each client. The kernel's share holds the sockets of all
    /// ends, since all ends are on this machine.
    pub resident_each: f64,
    pub kernel_each: f64,
    pub threads: f64,
    /// Per cent of a core while nobody says anything.
    pub cpu_percent: f64,
}

/// Starts a fresh server and holds `clients` silent connections for `seconds`.
pub fn idle(
    engine: &mut Engine,
    recipe: &Recipe,
    clients: usize,
    seconds: f64,
) -> Result<Idle, String> {
    let server = recipe.start(engine)?;
    server.await_ready(engine)?;
    pause(engine, 0.5)?;
    let (resident_at_start, _) = server.memory();
    let kernel_before = kernel_memory();
    let opened = open(engine, &server, clients);
    opened.map_err(|text| format!("{text}{}", server.last_words(engine)))?;
    pause(engine, seconds.min(2.0))?;
    let (resident, threads) = server.memory();
    let kernel = kernel_memory();
    let mark = Mark::new(&server);
    pause(engine, seconds)?;
    let silence = mark.until_now(&server, Vec::new());
    engine.close_all_clients();
    Ok(Idle {
        resident_at_start,
        resident_each: (resident - resident_at_start) / clients as f64,
        kernel_each: (kernel - kernel_before) / clients as f64,
        threads,
        cpu_percent: silence.cpu / silence.seconds * 100.0,
    })
}

fn pause(engine: &mut Engine, seconds: f64) -> Result<(), String> {
    let end = now() + (seconds * 1e9) as u64;
    let mut answers = Vec::new();
    while now() < end {
        engine.turn(20, &mut answers)?;
    }
    Ok(())
}

/// Milliseconds from the start of the process to the first connection, and to the first answer on it.
pub fn start(engine: &mut Engine, recipe: &Recipe) -> Result<(f64, f64), String> {
    let server = recipe.start(engine)?;
    let client = engine.connect(server.door)?;
    let connected = now();
    engine.ask(client, SMALL)?;
    let answered = drain(engine);
    answered.map_err(|text| format!("{text}{}", server.last_words(engine)))?;
    let end = now();
    engine.close_all_clients();
    let milliseconds = |time: u64| (time - server.spawned) as f64 / 1e6;
    Ok((milliseconds(connected), milliseconds(end)))
}

/// One turn of the loop that fails after a long time without any answer.
fn turn(
    engine: &mut Engine,
    answers: &mut Vec<Answer>,
    patience: &mut Patience,
) -> Result<(), String> {
    engine.turn(20, answers)?;
    if !answers.is_empty() {
        patience.last = now();
    }
    if now() - patience.last > STALL_LIMIT {
        return Err("no answer for 10 seconds".into());
    }
    Ok(())
}

struct Patience {
    last: u64,
}

impl Patience {
    fn new() -> Patience {
        Patience { last: now() }
    }
}

/// The small request: as long as a short MTProto query and its short answer.
pub const SMALL: Ask = Ask {
    request: 96,
    answer: 96,
};
const STALL_LIMIT: u64 = 10_000_000_000;
