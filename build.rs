//! Link arguments.
//!
//! glommio's bundled liburing makes every ring through one C function. The linker sends its callers to
//! `src/ring/setup.rs`, which adds a flag and calls the real one. The argument reaches binaries, tests and benches alike:
//! whatever links glommio links this crate too.

fn main() {
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
    println!("cargo:rerun-if-changed=build.rs");
}
