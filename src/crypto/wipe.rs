//! Memory that held keys is overwritten before it is given back.
//!
//! This keeps keys out of memory that is used again for something else, as far as safe code can: a compiler
//! could drop what it takes for a useless write, and the box is there to keep it from that. It can't reach
//! copies that were moved from, spilled registers, a cipher's expanded keys (the `aes` crate overwrites them
//! only with a further crate), nor a command line, which the kernel shows to others anyway. Client secrets
//! stay in memory as long as they are served.

use core::hint::black_box;

/// Overwrites key material.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}
