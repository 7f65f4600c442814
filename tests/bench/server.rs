//! The servers under measurement as child processes on their own core, and what the kernel says
//! about them.

use crate::clients::Door;
use crate::engine::Engine;
use crate::fake_tls::DOMAIN;
use crate::sys;
use crate::wire::Secret;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Where servers run, and where everything else runs.
pub const SERVER_CORE: usize = 0;
pub const OWN_CORE: usize = 1;

/// How a server is started.
#[derive(Clone)]
pub struct Recipe {
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    secret: Option<Secret>,
    /// As in `Door`: the connections of direct mode spread over the ports of the data centres as the
    /// relay's do, so that port numbers don't run out.
    centres: u16,
    fake_tls: bool,
}

impl Recipe {
    /// The proxy in middle mode.
    pub fn middle(files: &Files, middle_ports: &[u16]) -> std::io::Result<Recipe> {
        let mut config = String::from("default 2;\n");
        for (index, port) in middle_ports.iter().enumerate() {
            let dc = index + 1;
            config +=
                &format!("proxy_for {dc} 127.0.0.1:{port};\nproxy_for -{dc} 127.0.0.1:{port};\n");
        }
        let secret_path = files.write("proxy-secret", &proxy_secret())?;
        let config_path = files.write("proxy-multi.conf", config.as_bytes())?;
        let arguments = ["--aes-pwd", &secret_path, &config_path];
        Ok(Recipe::proxy("middle", 0, arguments.map(String::from)))
    }

    /// The proxy in direct mode, with ports of ours in the place of data centres 1, 2 and so on.
    pub fn direct(centre_ports: &[u16]) -> Recipe {
        let centres = (1..).zip(centre_ports).flat_map(|(dc, port)| {
            let address = format!("{dc}:127.0.0.1:{port}");
            [String::from("--dc-override"), address]
        });
        let arguments = std::iter::once(String::from("--direct")).chain(centres);
        Recipe::proxy("direct", centre_ports.len() as u16, arguments)
    }

    /// The program that this package builds, or the one that MTPROXY_BIN names.
    fn proxy(
        name: &'static str,
        centres: u16,
        arguments: impl IntoIterator<Item = String>,
    ) -> Recipe {
        let program = std::env::var_os("MTPROXY_BIN").map(PathBuf::from);
        let secret_text: String = CLIENT_SECRET
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let usual = ["-H", "0", "-S", &secret_text].map(String::from);
        Recipe {
            name,
            program: program.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_mtproxy"))),
            arguments: usual.into_iter().chain(arguments).collect(),
            secret: Some(CLIENT_SECRET),
            centres,
            fake_tls: false,
        }
    }

    /// The same proxy for clients in fake TLS, with a mask at a port of ours.
    pub fn in_fake_tls(&self, name: &'static str, mask_port: u16) -> Recipe {
        let mask = format!("127.0.0.1:{mask_port}");
        let more = ["-D", DOMAIN, "--mask", &mask].map(String::from);
        Recipe {
            name,
            arguments: more.into_iter().chain(self.arguments.clone()).collect(),
            fake_tls: true,
            ..self.clone()
        }
    }

    /// The same proxy with a rate for its secret.
    pub fn with_rate(&self, name: &'static str, rate: &str) -> Recipe {
        let mut arguments = self.arguments.clone();
        if let Some(place) = arguments.iter().position(|argument| argument == "-S") {
            arguments[place + 1] += rate;
        }
        Recipe {
            name,
            arguments,
            ..self.clone()
        }
    }

    /// This program again, as the plain relay.
    pub fn relay(centre_ports: &[u16]) -> std::io::Result<Recipe> {
        let ports = centre_ports.iter().map(u16::to_string);
        Ok(Recipe {
            name: "relay",
            program: std::env::current_exe()?,
            arguments: std::iter::once(String::from("relay"))
                .chain(ports)
                .collect(),
            secret: None,
            centres: 0,
            fake_tls: false,
        })
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts the server and returns when it listens: that is when its port is known.
    pub fn start(&self, engine: &mut Engine) -> Result<Server, String> {
        // A child begins on the core of its parent.
        let _ = sys::pin(SERVER_CORE);
        let spawned = sys::now();
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let _ = sys::pin(OWN_CORE);
        let mut child = child
            .map_err(|error| format!("{} can't be started: {error}", self.program.display()))?;
        let pipe = child
            .stderr
            .take()
            .ok_or("a child without standard error")?;
        let mut server = Server {
            name: self.name,
            child,
            output: 0,
            door: Door {
                port: 0,
                secret: self.secret,
                centres: self.centres,
                fake_tls: self.fake_tls,
            },
            spawned,
        };
        server.output = engine.follow(pipe).map_err(|error| error.to_string())?;
        server.door.port = server.await_output(engine, port_of)?;
        Ok(server)
    }
}

/// A running server; it is ended when this is dropped.
pub struct Server {
    pub name: &'static str,
    pub door: Door,
    /// When it was started, in nanoseconds of `sys::now`.
    pub spawned: u64,
    child: Child,
    output: usize,
}

impl Server {
    /// Waits until the server says that it accepts clients.
    pub fn await_ready(&self, engine: &mut Engine) -> Result<(), String> {
        self.await_output(engine, |text| {
            text.lines().any(|line| line == "ready").then_some(())
        })
    }

    fn await_output<T>(
        &self,
        engine: &mut Engine,
        look: impl Fn(&str) -> Option<T>,
    ) -> Result<T, String> {
        let limit = sys::now() + START_LIMIT;
        loop {
            let (text, open) = engine.output(self.output);
            if let Some(found) = look(text) {
                return Ok(found);
            }
            if !open || sys::now() > limit {
                return Err(format!(
                    "the {} did not start.{}",
                    self.name,
                    self.last_words(engine)
                ));
            }
            engine.turn(10, &mut Vec::new())?;
        }
    }

    /// The last lines that the server wrote, for an error message. All clients are closed.
    pub fn last_words(&self, engine: &mut Engine) -> String {
        engine.close_all_clients();
        // What it had to say may be on its way; a failure of the engine would only hide the first one.
        for _ in 0..10 {
            let _ = engine.turn(10, &mut Vec::new());
        }
        let (text, open) = engine.output(self.output);
        let lines: Vec<&str> = text.lines().collect();
        let state = if open { "It runs" } else { "It has ended" };
        let tail = lines[lines.len().saturating_sub(5)..].join("\n    ");
        format!(" {state}; its last lines:\n    {tail}")
    }

    /// Seconds of CPU, user and system, that the whole process has used.
    pub fn cpu(&self) -> f64 {
        cpu(&self.child.id().to_string())
    }

    /// Resident memory in KiB and the number of threads.
    pub fn memory(&self) -> (f64, f64) {
        let pid = self.child.id();
        let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        // The roll-up counts pages; the figure in `status` may lag behind by some dozens a thread.
        let resident = field(&rollup, "Rss:").or(field(&status, "VmRSS:"));
        (
            resident.unwrap_or(0.0),
            field(&status, "Threads:").unwrap_or(0.0),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        sys::terminate(self.child.id());
        let limit = sys::now() + 1_000_000_000;
        while sys::now() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of CPU of this process, the load generator.
pub fn own_cpu() -> f64 {
    cpu("self")
}

/// Seconds of CPU that the whole machine has spent on anything, interrupts included.
pub fn machine_cpu() -> f64 {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or("").split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|tick| tick.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq; what follows is counted elsewhere or not ours.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index));
    busy.sum::<f64>() / TICKS_A_SECOND
}

/// Kernel memory of the whole machine in KiB: thread stacks, slabs and page tables.
pub fn kernel_memory() -> f64 {
    let text = read_to_string("/proc/meminfo").unwrap_or_default();
    let names = ["KernelStack:", "Slab:", "PageTables:"];
    names.iter().filter_map(|name| field(&text, name)).sum()
}

fn cpu(process: &str) -> f64 {
    let text = read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    ticks
        .filter_map(|tick| tick.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS_A_SECOND
}

fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `listening on ADDRESS:PORT`, once the line is complete.
fn port_of(text: &str) -> Option<u16> {
    let mut lines = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    let address = lines.find_map(|line| line.strip_prefix("listening on "))?;
    address.rsplit_once(':')?.1.parse().ok()
}

/// A directory for the proxy's two files, removed at the end.
pub struct Files(PathBuf);

impl Files {
    pub fn new() -> std::io::Result<Files> {
        let path = std::env::temp_dir().join(format!("mtproxy-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Files(path))
    }

    fn write(&self, name: &str, content: &[u8]) -> std::io::Result<String> {
        let path = self.0.join(name);
        std::fs::write(&path, content)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What stands in the proxy-secret file: 128 bytes, as long as Telegram's.
pub fn proxy_secret() -> [u8; 128] {
    std::array::from_fn(|index| (index * 29 + 5) as u8)
}

const CLIENT_SECRET: Secret = [
    0x3a, 0x1c, 0x55, 0x02, 0x9e, 0x77, 0xd0, 0x48, 0x6b, 0xf1, 0x24, 0x83, 0xce, 0x90, 0x0d, 0xb6,
];
/// USER_HZ, the same on every architecture that this runs on.
const TICKS_A_SECOND: f64 = 100.0;
/// Nanoseconds that a server may take to say where it listens and that it is ready.
const START_LIMIT: u64 = 10_000_000_000;
