//! Who may enter: the secrets of -S and --secret-file together, or one that is made up.
//!
//! Read once at start, by the server and by `mtproxy link`. The file is the operator's; errors name it
//! and the line, never what stands there. The domains of fake TLS come from -D and from ee secrets. The
//! C proxy knows only -S and -D.

use std::io::{self, Read};
use std::path::Path;

use mtproxy::limits::{MAX_SECRET_FILE, MAX_SECRETS};
use mtproxy::proto::secret::{Form, Secret, SecretEntry};

use crate::base::sys;
use crate::door::sites::Domain;
use crate::operator::options::{Config, NEEDS_DOMAIN};

/// The secrets of a server.
pub struct Secrets {
    /// Empty: everybody may enter.
    pub entries: Vec<SecretEntry>,
    /// Nobody gave a secret, so the one here is new.
    pub made_up: bool,
}

impl Secrets {
    /// What clients' headers are tried with.
    pub fn keys(&self) -> Vec<Secret> {
        self.entries.iter().map(|entry| entry.secret).collect()
    }
}

/// The secrets to serve: given ones, or a new one, or none if [`Config::open`]. The error is a
/// sentence for the operator.
pub fn load(config: &Config) -> Result<Secrets, String> {
    let entries = read(config)?;
    if !entries.is_empty() || config.open {
        return Ok(Secrets {
            entries,
            made_up: false,
        });
    }
    let secret = make().map_err(|e| format!("can't make up a secret: {e}"))?;
    let entry = SecretEntry {
        secret,
        form: config.domains.first().map_or(Form::Padded, fake_tls),
        label: None,
        limit: None,
    };
    Ok(Secrets {
        entries: vec![entry],
        made_up: true,
    })
}

/// The secrets that were given, in order: those of -S, then those of the file.
pub fn read(config: &Config) -> Result<Vec<SecretEntry>, String> {
    match &config.secret_file {
        None => Ok(config.secrets.clone()),
        Some(path) => {
            let entries = read_file(path, &config.secrets)?;
            match config.needs_domain {
                Some(flag) if domains(config, &entries).is_empty() => {
                    Err(format!("--{flag}: {NEEDS_DOMAIN}"))
                }
                _ => Ok(entries),
            }
        }
    }
}

/// What fake-TLS clients may name: the domains of -D, then those of ee secrets. The first is for
/// whoever names none; if there is none at all, clients come without fake TLS.
pub fn domains(config: &Config, entries: &[SecretEntry]) -> Vec<Domain> {
    let mut all = config.domains.clone();
    for entry in entries {
        let Form::FakeTls(name) = &entry.form else {
            continue;
        };
        let own = Domain::named(name);
        if !all.iter().any(|known| known.name == own.name) {
            all.push(own);
        }
    }
    all
}

/// The form that makes clients name this domain.
pub fn fake_tls(domain: &Domain) -> Form {
    Form::FakeTls(domain.name.clone())
}

/// A new random secret.
pub fn make() -> io::Result<Secret> {
    sys::random_array().map(Secret::new)
}

fn read_file(path: &Path, given: &[SecretEntry]) -> Result<Vec<SecretEntry>, String> {
    let name = path.display().to_string();
    let unreadable = |e: io::Error| format!("can't read secret file {name}: {e}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_SECRET_FILE as u64 + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() > MAX_SECRET_FILE {
        return Err(format!("secret file {name}: expected at most 64 KiB"));
    }
    add_lines(&text, &name, given)
}

/// The secrets `given` and those of the file's text behind them.
fn add_lines(text: &str, name: &str, given: &[SecretEntry]) -> Result<Vec<SecretEntry>, String> {
    let mut all = given.to_vec();
    let mut places: Vec<String> = (1..=given.len())
        .map(|number| format!("number {number} of -S"))
        .collect();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let place = format!("{name}:{number}");
        let entry = SecretEntry::parse(line).map_err(|e| format!("{place}: {e}"))?;
        for (other, known) in places.iter().zip(&all) {
            if let Some(clash) = entry.clash(known) {
                let (this, other) = (labelled(&place, &entry), labelled(other, known));
                return Err(format!("{this} {clash} {other}"));
            }
        }
        if all.len() == MAX_SECRETS {
            return Err(format!("{place}: expected at most {MAX_SECRETS} secrets"));
        }
        all.push(entry);
        places.push(place);
    }
    match all.len() == given.len() {
        true => Err(format!("{name}: expected at least one secret")),
        false => Ok(all),
    }
}

fn labelled(place: &str, entry: &SecretEntry) -> String {
    match &entry.label {
        Some(label) => format!("{place} ({label})"),
        None => place.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::options;
    use crate::operator::options::Command;

    const A: &str = "00112233445566778899aabbccddeeff";
    const B: &str = "ffeeddccbbaa99887766554433221100";

    fn entry(text: &str) -> SecretEntry {
        SecretEntry::parse(text).unwrap()
    }

    #[test]
    fn a_secret_a_line_with_comments() {
        let text = format!("# ours\r\n\n  dd{A}:bob:5  # of Bob\r\n\t#{A}\n{B}");
        let given = [entry("11112222333344445555666677778888")];
        let all = add_lines(&text, "f", &given).unwrap();
        let wanted = [given[0].clone(), entry(&format!("dd{A}:bob:5")), entry(B)];
        assert_eq!(all, wanted);
    }

    #[test]
    fn errors_name_file_and_line_and_no_secret() {
        let given = [entry(&format!("{A}:bob"))];
        let many: String = (0..16).map(|i| format!("{i:032x}\n")).collect();
        for (text, wanted) in [
            (format!("\n{A}0\n"), "f:2: expected a secret of 32 hex"),
            (format!("{B}:\n"), "f:1: expected a label"),
            (format!("{B}:x:0\n"), "f:1: expected a number of clients"),
            (
                format!("#\ndd{A}:eve"),
                "f:2 (eve) is the same secret as number 1 of -S (bob)",
            ),
            (format!("{B}:a\n\n{B}"), "f:3 is the same secret as f:1 (a)"),
            (
                format!("{B}:bob"),
                "f:1 (bob) has the same label as number 1 of -S (bob)",
            ),
            (many, "f:16: expected at most 16 secrets"),
            ("# none\n".into(), "f: expected at least one secret"),
        ] {
            let error = add_lines(&text, "f", &given).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
            assert!(!error.contains(&A[..8]) && !error.contains(&B[..8]));
        }
    }

    fn config(flags: &str) -> Config {
        let words = flags.split_whitespace().map(Into::into);
        match options::parse(words) {
            Ok(Command::Run(config)) => *config,
            other => panic!("{flags}: {other:?}"),
        }
    }

    #[test]
    fn domains_of_flags_come_first_and_none_twice() {
        let names = |flags: &str| -> Vec<(String, Option<u16>)> {
            let config = config(&format!("-H 1 {flags}"));
            let all = domains(&config, &config.secrets);
            all.into_iter().map(|d| (d.name, d.port)).collect()
        };
        assert_eq!(names(&format!("-S {A} -S dd{B}")), []);
        // Example, two dots, EXM and a.b.
        let secrets = format!("-S ee{A}4578616d706c65 -S ee{B}2e2e");
        let more = "-S ee0000000000000000000000000000000045584d -S ee00000000000000000000000000000001612e622e";
        let (dots, exm) = (("..".into(), None), ("exm".into(), None));
        let wanted = [
            ("a.b".into(), Some(7)),
            ("::1".into(), None),
            ("example".into(), None),
            dots,
            exm,
        ];
        let flags = format!("{secrets} {more} -D A.B:7 -D [::1]");
        assert_eq!(names(&flags), wanted);
    }

    #[test]
    fn what_is_made_up_has_the_form_that_is_served() {
        let form = |flags: &str| load(&config(flags)).map(|made| made.entries[0].form.clone());
        assert_eq!(form(""), Ok(Form::Padded));
        let ee = Form::FakeTls("a.b".into());
        assert_eq!(form("-D A.b.:8443 -D c"), Ok(ee));
    }

    #[test]
    fn no_secret_is_made_up_twice() {
        assert_ne!(make().unwrap(), make().unwrap());
    }
}
