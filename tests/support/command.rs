//! The commands of the program that end by themselves.

use super::programs;
use super::proxy::program;

/// How a command has ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

/// Runs the program to its end.
pub fn command(arguments: &[&str]) -> Said {
    let output = programs::output(program().args(arguments), b"").expect("the program");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said {
        code: output.status.code(),
        output: text(output.stdout),
        errors: text(output.stderr),
    }
}
