//! `mtproxy secret`: a new secret.

use std::io::Write;

use mtproxy::formats::link::spell;
use mtproxy::proto::secret::Form;

use crate::operator::access;

/// Prints a random secret to standard output: 32 hexadecimal digits, or the ee form with `domain`.
/// The error is a sentence for the operator.
pub fn run(domain: Option<String>) -> Result<(), String> {
    let secret = access::make().map_err(|e| format!("can't make up a secret: {e}"))?;
    let form = domain.map_or(Form::Plain, Form::FakeTls);
    writeln!(std::io::stdout(), "{}", spell(&secret, &form))
        .map_err(|e| format!("the secret can't be written: {e}"))
}
