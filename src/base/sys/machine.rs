//! What the machine offers: random bytes, and instructions that compute checksums faster.

use std::ffi::c_void;
use std::io;

use mtproxy::crypto::crc32::{Checksums, PORTABLE};

use super::consts::EINTR;

unsafe extern "C" {
    fn getrandom(buf: *mut c_void, len: usize, flags: u32) -> isize;
    #[cfg(target_env = "gnu")]
    fn mallopt(parameter: i32, value: i32) -> i32;
}

/// Keeps glibc from reserving 64 MiB of address space for each of several threads that allocate. To be
/// called before there are threads. musl has one heap for all.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes nothing but how glibc's allocator grows.
    unsafe {
        const M_ARENA_MAX: i32 = -8;
        mallopt(M_ARENA_MAX, 1);
    }
}

/// Fills `buf` from the system's random generator.
fn random(buf: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < buf.len() {
        let rest = &mut buf[at..];
        // SAFETY: pointer and length are those of a live slice.
        let n = unsafe { getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(n) {
            Ok(n) => at += n,
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(EINTR) => {}
            // A kernel before 3.17.
            Err(_) => return io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, rest),
        }
    }
    Ok(())
}

/// `N` random bytes.
pub fn random_array<const N: usize>() -> io::Result<[u8; N]> {
    let mut out = [0; N];
    random(&mut out)?;
    Ok(out)
}

/// The fastest checksums that this processor offers.
pub fn checksums() -> Checksums {
    found().into_iter().flatten().next().unwrap_or(PORTABLE)
}

/// Those that it has instructions for, the fastest first.
#[cfg(target_arch = "x86_64")]
fn found() -> [Option<Checksums>; 2] {
    use mtproxy::crypto::crc32::clmul;
    use std::arch::is_x86_feature_detected as has;
    let narrow = has!("pclmulqdq").then_some(Checksums {
        // SAFETY: the processor has the instructions, as just asked.
        crc32: |data| unsafe { clmul::crc32(data) },
        // SAFETY: as above.
        crc32c: |data| unsafe { clmul::crc32c(data) },
    });
    let wide = has!("avx512f") && has!("vpclmulqdq");
    let wide = narrow.filter(|_| wide).map(|_| Checksums {
        // SAFETY: the processor has the instructions, as just asked.
        crc32: |data| unsafe { clmul::crc32_wide(data) },
        // SAFETY: as above.
        crc32c: |data| unsafe { clmul::crc32c_wide(data) },
    });
    [wide, narrow]
}

/// As on x86-64.
#[cfg(target_arch = "aarch64")]
fn found() -> [Option<Checksums>; 1] {
    use mtproxy::crypto::crc32::instructions;
    let found = std::arch::is_aarch64_feature_detected!("crc");
    [found.then_some(Checksums {
        // SAFETY: the processor has the instructions, as just asked.
        crc32: |data| unsafe { instructions::crc32(data) },
        // SAFETY: as above.
        crc32c: |data| unsafe { instructions::crc32c(data) },
    })]
}

/// None are known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn found() -> [Option<Checksums>; 0] {
    []
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_checksums_equal_the_tables() {
        let data: Vec<u8> = (0..1400u32).map(|i| ((i * i) >> 3) as u8).collect();
        // Around the bounds of what is taken at once, too: 64 and 256 bytes, and each of the four lanes.
        let near = |bound: usize| bound - 17..bound + 18;
        let lengths = (0..300).chain([512, 576, 768, 1024, 1280].into_iter().flat_map(near));
        for (len, from) in lengths.flat_map(|len| [0, 1, 7, 33].map(|from| (len, from))) {
            let part = &data[from..from + len];
            let wanted = [(PORTABLE.crc32)(part), (PORTABLE.crc32c)(part)];
            for (form, fast) in found().into_iter().flatten().enumerate() {
                let got = [(fast.crc32)(part), (fast.crc32c)(part)];
                assert_eq!(got, wanted, "form {form}, {len} bytes at {from}");
            }
        }
    }

    #[test]
    fn random_bytes_differ() {
        let (a, b) = (random_array::<32>().unwrap(), random_array::<32>().unwrap());
        assert_ne!(a, b);
    }
}
