//! `mtproxy service systemd|openwrt|docker FLAGS`: prints what starts a server with these flags as a service.
//!
//! All input is the operator's. What is printed is meant for files that everybody may read, so it holds no
//! secret: the secrets of -S belong into a file, which standard error says.

use std::io::Write;
use std::path::Path;

use crate::base::log;
use crate::operator::Fatal;
use crate::operator::findings::quoted;
use crate::operator::options::{Kind, Service};

/// Prints it to standard output, and what else is to be done to standard error.
pub fn print(service: &Service) -> Result<(), Fatal> {
    let text = match service.kind {
        Kind::Systemd => systemd(service),
        Kind::Openwrt => openwrt(service),
        Kind::Docker => docker(service),
    };
    if let Some(place) = service.secrets_place() {
        let ours = match service.config.has_secrets() {
            true => "the secrets of -S, one a line",
            false => "a secret (`mtproxy secret` makes one)",
        };
        if service.config.secret_file.is_none() || service.kind != Kind::Systemd {
            log::say(format_args!(
                "{ours}: write to {place}, readable by its user alone; what is printed holds none"
            ));
        }
    }
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Fatal(format!("the service can't be written: {e}")))
}

impl Service {
    /// Where secrets are to be written; None if everybody is served.
    fn secrets_place(&self) -> Option<&'static str> {
        let place = match self.kind {
            Kind::Docker => "./secrets (chown 65534, chmod 400)",
            _ => "/etc/mtproxy/secrets (chmod 600)",
        };
        (!self.config.is_open() || self.config.has_secrets()).then_some(place)
    }

    /// The server's arguments: files at absolute paths, or by their names in `folder`; secrets in `secrets`,
    /// what must survive a restart in `state`.
    fn arguments(&self, secrets: &str, state: Option<&str>, folder: Option<&str>) -> Vec<String> {
        let mut all = Vec::new();
        for (name, value) in &self.flags {
            all.push(match (*name, value) {
                // The service manager's part, or nobody's.
                ("mtproto-secret" | "secret-file" | "state" | "user" | "print-links" | "qr", _) => {
                    continue;
                }
                (name, None) => format!("--{name}"),
                ("aes-pwd" | "config", Some(path)) => format!("--{name}={}", place(path, folder)),
                (name, Some(value)) => format!("--{name}={value}"),
            });
        }
        if self.secrets_place().is_some() {
            all.push(format!("--secret-file={secrets}"));
        }
        all.extend(state.map(|path| format!("--state={path}")));
        all.extend(self.file.iter().map(|path| place(path, folder)));
        all
    }

    /// Telegram's files and --config.
    fn files(&self) -> Vec<&String> {
        let named = self
            .flags
            .iter()
            .filter(|(name, _)| ["aes-pwd", "config"].contains(name));
        named
            .filter_map(|(_, value)| value.as_ref())
            .chain(&self.file)
            .collect()
    }
}

/// A path as a service finds it.
fn place(path: &str, folder: Option<&str>) -> String {
    let path = Path::new(path);
    let name = path.file_name().unwrap_or_default();
    let found = match folder {
        Some(folder) => Path::new(folder).join(name),
        None => std::path::absolute(path).unwrap_or(path.into()),
    };
    found.display().to_string()
}

fn systemd(service: &Service) -> String {
    let config = &service.config;
    let secrets = "${CREDENTIALS_DIRECTORY}/secrets";
    let line: Vec<String> = service
        .arguments(SECRETS_MARK, Some("/var/lib/mtproxy/state"), None)
        .iter()
        .map(|word| systemd_word(word).replace(SECRETS_MARK, secrets))
        .collect();
    let file = config
        .secret_file
        .as_ref()
        .map_or("/etc/mtproxy/secrets".into(), |path| {
            place(&path.display().to_string(), None)
        });
    let credential = match service.secrets_place() {
        Some(_) => format!("LoadCredential=secrets:{file}\n"),
        None => String::new(),
    };
    let stats = config
        .stats_ports
        .as_ref()
        .map_or(1024, |ports| *ports.start());
    let is_low = |port: &u16| (1..1024).contains(port);
    let (capability, users) = match config.ports.iter().chain([&stats]).any(is_low) {
        true => ("CAP_NET_BIND_SERVICE", ""),
        false => ("", "PrivateUsers=yes\n"),
    };
    format!(
        "# /etc/systemd/system/mtproxy.service; then: systemctl enable --now mtproxy\n\
         {UNIT}ExecStart=/usr/local/bin/mtproxy {}\n{credential}AmbientCapabilities={capability}\n\
         CapabilityBoundingSet={capability}\n{users}{HARDENING}",
        line.join(" ")
    )
}

/// A word of a command line in a unit.
fn systemd_word(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    match word.contains([' ', '"', '\'', '\\', ';']) {
        true => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        false => word,
    }
}

fn openwrt(service: &Service) -> String {
    let words = service.arguments(
        "/etc/mtproxy/secrets",
        Some("/etc/mtproxy/state"),
        Some("/etc/mtproxy"),
    );
    let lists = words.iter().map(|word| {
        let word = word.replace('\'', "'\\''");
        format!("\tlist argument '{word}'\n")
    });
    OPENWRT.replace("@ARGUMENTS@", &lists.collect::<String>())
}

fn docker(service: &Service) -> String {
    let arguments = service.arguments("/run/secrets/secrets", None, Some("/etc/mtproxy"));
    // Compose puts variables in the place of names behind a dollar.
    let list = |words: &[String]| -> String {
        let all: Vec<String> = words
            .iter()
            .map(|word| quoted(&word.replace('$', "$$")))
            .collect();
        format!("[{}]", all.join(", "))
    };
    let start: [String; 4] = ["CMD", "/mtproxy", "doctor", "--own"].map(String::from);
    let ports: Vec<String> = service
        .config
        .ports
        .iter()
        .map(|port| format!("{port}:{port}"))
        .collect();
    let volumes: Vec<String> = service
        .files()
        .iter()
        .map(|path| {
            format!(
                "{}:{}:ro",
                place(path, None),
                place(path, Some("/etc/mtproxy"))
            )
        })
        .collect();
    let (mount, secrets) = match service.secrets_place() {
        Some(_) => (
            "    secrets: [secrets]\n",
            "secrets:\n  secrets:\n    file: ./secrets\n",
        ),
        None => ("", ""),
    };
    format!(
        "{COMPOSE}    command: {}\n    ports: {}\n    volumes: {}\n{mount}    healthcheck:\n      test: {}\n      \
         interval: 60s\n      timeout: 10s\n{secrets}",
        list(&arguments),
        list(&ports),
        list(&volumes),
        list(&[&start[..], &arguments].concat()),
    )
}

/// Stands for a variable, which must not be escaped.
const SECRETS_MARK: &str = "@SECRETS@";

const UNIT: &str = "[Unit]
Description=Telegram MTProxy
Wants=network-online.target
After=network-online.target

[Install]
WantedBy=multi-user.target

[Service]
Type=exec
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
DynamicUser=yes
StateDirectory=mtproxy
StateDirectoryMode=0700
UMask=0077
TasksMax=infinity
LimitNOFILE=524288
";

/// What the server does without. It needs prlimit64 to raise its limits, and /proc to derive others.
const HARDENING: &str = "NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateTmp=yes
PrivateMounts=yes
PrivateDevices=yes
DevicePolicy=closed
KeyringMode=private
RestrictAddressFamilies=AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=prlimit64
";

const OPENWRT: &str = r#"#!/bin/sh
# Sets mtproxy up on OpenWrt: mtproxy service openwrt FLAGS | ssh root@ROUTER sh
# The program belongs into /usr/bin, and its files into /etc/mtproxy. An argument is another root folder.
set -e
cd "${1:-/}"
mkdir -p etc/config etc/init.d etc/mtproxy lib/upgrade/keep.d

[ -e etc/config/mtproxy ] || cat >etc/config/mtproxy <<'END'
config mtproxy 'main'
	option enabled '1'
@ARGUMENTS@END

cat >etc/init.d/mtproxy <<'END'
#!/bin/sh /etc/rc.common
# shellcheck shell=sh disable=SC2034
START=95
STOP=10
USE_PROCD=1

add_argument() {
	procd_append_param command "$1"
}

start_service() {
	config_load mtproxy
	config_get_bool enabled main enabled 1
	# shellcheck disable=SC2154
	[ "$enabled" = 1 ] || return 0
	procd_open_instance
	procd_set_param command /usr/bin/mtproxy
	config_list_foreach main argument add_argument
	procd_set_param file /etc/config/mtproxy
	procd_set_param limits nofile="16384 16384"
	procd_set_param no_new_privs 1
	procd_set_param reload_signal HUP
	procd_set_param respawn 3600 5 0
	procd_set_param stderr 1
	procd_close_instance
}

service_triggers() {
	procd_add_reload_trigger mtproxy
}
END
chmod 755 etc/init.d/mtproxy

# What an upgrade of the system keeps.
printf '/%s\n' etc/config/mtproxy etc/init.d/mtproxy etc/mtproxy/ usr/bin/mtproxy >lib/upgrade/keep.d/mtproxy
echo "then: /etc/init.d/mtproxy enable && /etc/init.d/mtproxy start"
"#;

const COMPOSE: &str =
    "# compose.yaml, beside the static program `mtproxy`; then: docker compose up -d --build
services:
  mtproxy:
    build:
      context: .
      dockerfile_inline: |
        FROM scratch
        COPY --chmod=0555 mtproxy /mtproxy
        USER 65534:65534
        ENTRYPOINT [\"/mtproxy\"]
    read_only: true
    cap_drop: [ALL]
    security_opt: [\"no-new-privileges:true\"]
    ulimits: {nofile: 524288}
    restart: unless-stopped
";
