//! Who may enter: the secrets of -S and --secret-file together, or one that is made up; and the domains of
//! fake TLS, from -D and from ee secrets.
//!
//! Called at start by the server, and by `mtproxy link` and `mtproxy secret`. The secret file is the
//! operator's; errors name it and the line, never what stands there. The C proxy knows only -S and -D.

use std::io::{self, Write};
use std::path::Path;

use mtproxy::crypto::wipe::wipe;
use mtproxy::formats::allowance::Allowance;
use mtproxy::formats::secret::{Form, SecretEntry, spell};
use mtproxy::limits::{MAX_FILE_SECRETS, MAX_SECRET_FILE};
use mtproxy::proto::secret::Secret;

use crate::base::sys;
use crate::door::sites::Domain;
use crate::operator::options::{Config, needs_domain};
use crate::operator::{Fatal, files::read_file};

/// The secrets of a server.
#[derive(Clone)]
pub struct Secrets {
    /// Empty: everybody may enter.
    pub entries: Vec<SecretEntry>,
    /// None was given, so the one here is new.
    pub made_up: bool,
}

/// The secrets to serve: those that were given, or a new one, or none if [`Config::is_open`].
pub fn load(config: &Config) -> Result<Secrets, Fatal> {
    let mut entries = read(config)?;
    let made_up = entries.is_empty() && !config.is_open();
    if made_up {
        entries.push(SecretEntry {
            secret: make_up()?,
            form: config.domains.first().map_or(Form::Padded, fake_tls),
            label: None,
            limit: None,
            allowance: Allowance::default(),
        });
    }
    Ok(Secrets { entries, made_up })
}

/// The secrets that were given, in order: those of -S, then those of the file.
pub fn read(config: &Config) -> Result<Vec<SecretEntry>, Fatal> {
    let mut entries = config.secrets.clone();
    let Some(path) = &config.secret_file else {
        return Ok(entries);
    };
    let name = path.display().to_string();
    let text = read_text(path).map_err(|e| Fatal(format!("can't read secret file {name}: {e}")))?;
    if text.len() > MAX_SECRET_FILE {
        let text = format!("secret file {name}: expected at most 512 KiB");
        return Err(Fatal(text));
    }
    let added = add_lines(&mut entries, text.trim_start_matches('\u{feff}'), &name);
    wipe(&mut text.into_bytes());
    added.map_err(Fatal)?;
    needs_domain(config, !domains(config, &entries).is_empty()).map_err(Fatal)?;
    Ok(entries)
}

fn read_text(path: &Path) -> io::Result<String> {
    let bytes = read_file(path, MAX_SECRET_FILE)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Adds the secrets of the file's text to those of -S.
fn add_lines(entries: &mut Vec<SecretEntry>, text: &str, name: &str) -> Result<(), String> {
    let given = entries.len();
    let mut places: Vec<String> = (1..=given).map(|n| format!("number {n} of -S")).collect();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let place = format!("{name}:{number}");
        let entry = SecretEntry::parse(line).map_err(|e| format!("{place}: {e}"))?;
        places.push(place);
        entry.add_to(entries, MAX_FILE_SECRETS, |index| places[index].clone())?;
    }
    match entries.len() == given {
        true => Err(format!("{name}: expected at least one secret")),
        false => Ok(()),
    }
}

/// What fake-TLS clients may name: the domains of -D, then those of ee secrets. The first is for
/// whoever names none; if there is none at all, clients come without fake TLS.
pub fn domains(config: &Config, entries: &[SecretEntry]) -> Vec<Domain> {
    let mut all = config.domains.clone();
    for entry in entries {
        if let Form::FakeTls(name) = &entry.form {
            let own = Domain::named(name);
            if !all.iter().any(|known| known.name == own.name) {
                all.push(own);
            }
        }
    }
    all
}

/// The form that makes clients name this domain.
pub fn fake_tls(domain: &Domain) -> Form {
    Form::FakeTls(domain.name.clone())
}

/// `mtproxy secret`: prints a new secret to standard output, 32 hexadecimal digits or the ee form with
/// `domain`.
pub fn print_new(domain: Option<String>) -> Result<(), Fatal> {
    let form = domain.map_or(Form::Plain, Form::FakeTls);
    writeln!(io::stdout(), "{}", spell(&make_up()?, &form))
        .map_err(|e| Fatal(format!("the secret can't be written: {e}")))
}

/// `mtproxy config`: prints the sample with a secret of its own in place of the one that everybody can read
/// in the source.
pub fn print_sample(sample: &str) -> Result<(), Fatal> {
    let secret = spell(&make_up()?, &Form::Plain);
    let sample = sample.replacen("00112233445566778899aabbccddeeff", &secret, 1);
    io::stdout()
        .write_all(sample.as_bytes())
        .map_err(|e| Fatal(format!("the sample can't be written: {e}")))
}

fn make_up() -> Result<Secret, Fatal> {
    let bytes = sys::random_array();
    let secret = bytes.map(Secret::new);
    secret.map_err(|e| Fatal(format!("can't make up a secret: {e}")))
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
        let mut all = given.to_vec();
        add_lines(&mut all, &text, "f").unwrap();
        let wanted = [given[0].clone(), entry(&format!("dd{A}:bob:5")), entry(B)];
        assert_eq!(all, wanted);
    }

    #[test]
    fn errors_name_file_and_line_and_no_secret() {
        let given = [entry(&format!("{A}:bob"))];
        let many: String = (0..1024).map(|i| format!("{i:032x}\n")).collect();
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
            (many, "f:1024: expected at most 1024 secrets"),
            ("# none\n".into(), "f: expected at least one secret"),
        ] {
            let error = add_lines(&mut given.to_vec(), &text, "f").unwrap_err();
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
        let form = |flags: &str| load(&config(flags)).unwrap().entries[0].form.clone();
        assert_eq!(form(""), Form::Padded);
        let ee = Form::FakeTls("a.b".into());
        assert_eq!(form("-D A.b.:8443 -D c"), ee);
    }

    #[test]
    fn no_secret_is_made_up_twice() {
        assert_ne!(make_up().unwrap(), make_up().unwrap());
    }
}
