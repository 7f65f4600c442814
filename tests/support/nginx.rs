//! Debian's nginx as the site behind the mask, with a certificate of its own making, and the programs that
//! visit it.

use super::programs::{Kept, are_there, end_of, output, run};
use super::proxy::Files;
use super::sockets::free_address;
use super::wait::Watch;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;

/// The name that the certificate is for, and that leads to this machine everywhere.
pub const NAME: &str = "localhost";

/// What runs behind the mask.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    pub protocols: &'a str,
    /// Further directives of its server block.
    pub directives: &'a str,
    /// Parameters of its listening socket.
    pub listen: &'a str,
    /// What `openssl req -newkey` makes.
    pub key: &'a [&'a str],
    /// Files that it serves, by name.
    pub pages: &'a [(&'a str, &'a [u8])],
    /// In place of its server block one that was written for other ports and files.
    pub sample: Option<&'a str>,
}

pub const EC_KEY: [&str; 3] = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
pub const RSA_KEY: [&str; 1] = ["rsa:2048"];

impl Default for Site<'_> {
    fn default() -> Self {
        Site {
            protocols: "TLSv1.2 TLSv1.3",
            directives: "",
            listen: "",
            key: &EC_KEY,
            pages: &[("index.html", b"<p>nothing to see here</p>\n")],
            sample: None,
        }
    }
}

pub struct Nginx {
    pub address: SocketAddr,
    _child: Kept,
    files: Files,
}

impl Site<'_> {
    /// Of this server block, but for its port, name and files.
    pub fn sample(block: &str) -> Site<'_> {
        Site {
            sample: Some(block),
            ..Site::default()
        }
    }

    /// None when a program is missing.
    pub fn start(&self) -> Option<Nginx> {
        self.start_as(&|directory, address| self.server(directory, address))
    }

    /// The same with these server blocks, of its directory and address, in place of the usual one.
    pub fn start_as(&self, servers: &dyn Fn(&str, SocketAddr) -> String) -> Option<Nginx> {
        if !are_there(&["openssl", "nginx"]) {
            return None;
        }
        let files = Files::new();
        make_certificate(&files, self.key);
        for (name, contents) in self.pages {
            files.write(name, contents);
        }
        // It can't choose a port itself, and somebody else may get a free one first: once more, then.
        for _ in 0..20 {
            let address = free_address();
            let servers = servers(&files.path(""), address);
            let config = files.write("nginx.conf", whole(&files, &servers).as_bytes());
            let mut child = Command::new("nginx")
                .args(["-p", &files.path(""), "-c", &config, "-e", "stderr"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start nginx");
            if is_listening(&mut child) {
                return Some(Nginx {
                    address,
                    _child: Kept(child),
                    files,
                });
            }
            end_of(&mut child, "nginx");
        }
        panic!("nginx finds no free port")
    }

    fn server(&self, directory: &str, address: SocketAddr) -> String {
        let (protocols, directives, listen) = (self.protocols, self.directives, self.listen);
        match self.sample {
            None => format!(
                "server {{\n listen {address} ssl {listen};\n server_name {NAME};\n root {directory};\n\
                 ssl_certificate {directory}/certificate;\n ssl_certificate_key {directory}/key;\n\
                 ssl_protocols {protocols};\n {directives}\n}}\n"
            ),
            Some(block) => block
                .replace("127.0.0.1:8443", &address.to_string())
                .replace("www.example.org;", &format!("{NAME}; root {directory};"))
                .replace(
                    "/etc/ssl/www.example.org.pem",
                    &format!("{directory}/certificate"),
                )
                .replace("/etc/ssl/www.example.org.key", &format!("{directory}/key")),
        }
    }
}

fn whole(files: &Files, servers: &str) -> String {
    let directory = files.path("");
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
        .collect();
    // One process, so that it ends with the one that was started.
    format!(
        "daemon off; master_process off; pid {directory}/pid; error_log stderr notice;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n{temporary}access_log {directory}/access;\n{servers}}}\n"
    )
}

impl Nginx {
    /// The certificate that it shows, in PEM.
    pub fn certificate(&self) -> String {
        self.files.read("certificate")
    }

    /// What it has logged of requests.
    pub fn access_log(&self) -> String {
        self.files.read("access")
    }

    /// The argument of -D that puts it behind its name.
    pub fn as_domain(&self) -> String {
        format!("{NAME}:{}", self.address.port())
    }
}

fn make_certificate(files: &Files, key: &[&str]) {
    let name = format!("/CN={NAME}");
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", &name])
        .args(["-addext", &format!("subjectAltName=DNS:{NAME}")])
        .arg("-newkey")
        .args(key)
        .args(["-keyout", &files.path("key")])
        .args(["-out", &files.path("certificate")]);
    let output = output(&mut command, b"").expect("openssl");
    assert!(output.status.success(), "openssl req: {output:?}");
}

/// Its events are set up once its ports are open; false when it ends instead.
fn is_listening(child: &mut Child) -> bool {
    let errors = BufReader::new(child.stderr.take().expect("its stderr"));
    let said = Arc::new(Watch::<(String, Option<bool>)>::default());
    let follower = Arc::clone(&said);
    thread::spawn(move || {
        for line in errors.lines().map_while(Result::ok) {
            follower.with(|(text, listening)| {
                if line.contains("event method") {
                    *listening = Some(true);
                }
                *text += &(line + "\n");
            });
        }
        follower.with(|(_, listening)| *listening = listening.or(Some(false)));
    });
    let listening = said.wait_for("nginx to start or end", |(_, listening)| *listening);
    let text = said.with(|(text, _)| text.clone());
    let taken = text.contains("Address already in use");
    assert!(listening || taken, "nginx doesn't start: {text}");
    listening
}

/// Fetches a page by HTTPS from wherever the name is said to be.
pub fn curl(address: SocketAddr, page: &str, options: &[&str]) -> Output {
    let port = address.port();
    let place = format!("{NAME}:{port}:{}", address.ip());
    let url = format!("https://{NAME}:{port}/{page}");
    let usual = ["--silent", "--show-error", "--insecure", "--max-time", "60"];
    let arguments = [&usual[..], &["--resolve", &place], options, &[&url]].concat();
    run("curl", &arguments, b"").expect("curl")
}

/// Connects as openssl's client does, says what is given and then waits for the other side's end.
pub fn s_client(address: SocketAddr, options: &[&str], input: &[u8]) -> Output {
    let address = address.to_string();
    let usual = ["s_client", "-connect", &address, "-servername", NAME];
    run("openssl", &[&usual[..], options].concat(), input).expect("openssl")
}
