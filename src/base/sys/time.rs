//! The machine's clock, with 64 bits everywhere. std's SystemTime has 32 on 32-bit machines, and panics from
//! January 2038 on. Called by `base::clock` alone.

use std::ffi::c_int;

unsafe extern "C" {
    // musl's name for the one with 64-bit times, which knows older kernels, too.
    #[cfg_attr(target_pointer_width = "32", link_name = "__clock_gettime64")]
    fn clock_gettime(clock: c_int, seconds_and_rest: *mut [i64; 2]) -> c_int;
}

/// Seconds since 1970.
pub fn unix() -> i64 {
    const CLOCK_REALTIME: c_int = 0;
    let mut time = [0; 2];
    // SAFETY: 16 bytes, as a time with 64-bit seconds takes on all targets; the seconds come first.
    unsafe { clock_gettime(CLOCK_REALTIME, &mut time) };
    time[0]
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_time_is_that_of_std() {
        let std = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
        let before = std();
        let time = super::unix();
        assert!((before..=std()).contains(&time), "{time}");
    }
}
