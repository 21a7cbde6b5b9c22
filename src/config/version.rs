//! The versions ringd answers with. Clients and peers parse them, so the first ones are etcd's.

/// The etcd release whose behaviour ringd has, and reports.
pub const SERVER_VERSION: &str = "3.6.14";
/// The lowest cluster version that a server of [`SERVER_VERSION`] can live in, as peers are told.
pub const CLUSTER_VERSION_MIN: &str = "3.0.0";
/// ringd's own version.
pub const RINGD_VERSION: &str = env!("CARGO_PKG_VERSION");
/// What stands where etcd names its Go compiler.
pub const COMPILER: &str = "none (ringd is written in Rust)";
/// What stands where etcd names its commit.
pub const GIT_SHA: &str = match option_env!("RINGD_GIT_SHA") {
    Some(sha) => sha,
    None => "Not provided",
};

/// What `--version` prints: etcd's lines first (tools read the first one), then ringd's.
pub fn version_text() -> String {
    format!(
        "etcd Version: {SERVER_VERSION}\nGit SHA: {GIT_SHA}\nGo Version: {COMPILER}\nGo OS/Arch: {}/{}\nringd Version: {RINGD_VERSION}\n",
        std::env::consts::OS,
        go_architecture(),
    )
}

/// The architecture under Go's name for it.
pub fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
