//! How the kernel gives this process memory.

/// Has memory come in pages of 4 KiB and never of 2 MiB, whatever the system's default and the allocator's wish.
///
/// What a relay takes anew is frames and groups of a few KiB from everywhere, held for a moment and given back. A huge
/// page is cleared as a whole for the first of them and kept for the last: with them a fifth of the CPU time of a relay
/// under load went into clearing pages, and its memory was a third more.
pub fn avoid() {
    // A kernel without the switch, or a sandbox that forbids it, costs speed and nothing else.
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}
