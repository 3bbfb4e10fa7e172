//! What the C library's allocator does with memory that was freed.

/// Has the allocator keep some of what was freed instead of giving it back to the kernel at once. Without that, the buffers
/// that an upstream's bytes arrive in, a few hundred KiB each, are given back and asked for again thousands of times in a
/// second, and each page of them is zeroed anew: a third of a large fetch's system time. Allocators of other C libraries
/// stay as they are.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    if !gnu::keep_freed_memory() {
        tracing::debug!("the allocator gives freed memory back as it sees fit");
    }
}

#[cfg(target_env = "gnu")]
#[allow(
    unsafe_code,
    reason = "no safe library sets this; the environment could, but only before the program starts"
)]
mod gnu {
    /// Freed memory at an arena's end that is not given back.
    const KEPT_BYTES: i32 = 8 << 20;

    /// Larger blocks than this are mapped, and given back when they are freed. The allocator's own rule begins at 128 KiB, and
    /// ends where either of the two is set.
    const MAPPED_FROM_BYTES: i32 = 4 << 20;

    /// Whether the allocator took it.
    pub(super) fn keep_freed_memory() -> bool {
        let settings = [
            (libc::M_TRIM_THRESHOLD, KEPT_BYTES),
            (libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
        ];
        // SAFETY: it takes two numbers and stores one, under the allocator's own lock; there is no value that makes memory
        // unsafe.
        let set = settings.map(|(setting, value)| unsafe { libc::mallopt(setting, value) });
        set == [1, 1]
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn the_allocator_takes_the_settings() {
            assert!(super::keep_freed_memory());
        }
    }
}
