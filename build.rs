//! Link arguments.
//!
//! glommio's bundled liburing makes every ring through one C function and enters the kernel through another. The linker
//! sends their callers to `src/ring/setup.rs`, which adds a flag, and to `src/ring/enter.rs`, which decides what the kernel is
//! told and when; all call the real ones. The arguments reach binaries, tests and benches alike: whatever links glommio links this crate too.

fn main() {
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_enter");
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_enter2");
    println!("cargo:rerun-if-changed=build.rs");
}
