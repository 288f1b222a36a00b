//! THE ALLOCATOR'S HEAPS. glibc gives up to eight threads a core a heap of their own, and what one
//! thread gave back no other gets. A run's stages work in turn, each on its own thread, so every one
//! of them kept what only it had needed: 447 MiB for the demo instead of 280, at the same speed
//! (benches/results). The command has one heap. A host decides that for itself (`MALLOC_ARENA_MAX`).

/// Has all threads share one heap. Before there are any.
pub(super) fn share() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(
        unsafe_code,
        reason = "a setting of the C library's allocator, which has no other way in"
    )]
    // SAFETY: the call sets a number in the allocator, under the allocator's own lock.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
