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
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("pclmulqdq") {
        use mtproxy::crypto::crc32::clmul;
        return Checksums {
            // SAFETY: the processor has the instructions, as just asked.
            crc32: |data| unsafe { clmul::crc32(data) },
            // SAFETY: as above.
            crc32c: |data| unsafe { clmul::crc32c(data) },
        };
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("crc") {
        use mtproxy::crypto::crc32::instructions;
        return Checksums {
            // SAFETY: the processor has the instructions, as just asked.
            crc32: |data| unsafe { instructions::crc32(data) },
            // SAFETY: as above.
            crc32c: |data| unsafe { instructions::crc32c(data) },
        };
    }
    PORTABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_checksums_equal_the_tables() {
        let data: Vec<u8> = (0..1000u32).map(|i| ((i * i) >> 3) as u8).collect();
        let fast = checksums();
        for len in (0..300).chain([511, 512, 513, 1000]) {
            for from in [0, 1, 7] {
                let part = &data[from.min(len)..len];
                assert_eq!((fast.crc32)(part), (PORTABLE.crc32)(part), "{from}..{len}");
                assert_eq!(
                    (fast.crc32c)(part),
                    (PORTABLE.crc32c)(part),
                    "{from}..{len}"
                );
            }
        }
    }

    #[test]
    fn random_bytes_differ() {
        let (a, b) = (random_array::<32>().unwrap(), random_array::<32>().unwrap());
        assert_ne!(a, b);
    }
}
