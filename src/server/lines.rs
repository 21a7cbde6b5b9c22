//! What a server says of its clients' ports and of its end, in etcd's words.

use tracing::info;

use crate::{
    config::{Config, Url},
    rpc::http::Port,
};

fn texts(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

/// The end begins, or has come.
pub(crate) fn closing(config: &Config, text: &str) {
    info!(
        name = config.name,
        "data-dir" = %config.data_dir.display(),
        "advertise-peer-urls" = ?texts(&config.initial_advertise_peer_urls),
        "advertise-client-urls" = ?texts(&config.advertise_client_urls),
        "{text}"
    );
}

/// A port is served.
pub(crate) fn serving(port: Port, address: &str) {
    let traffic = match port {
        Port::Clients => "grpc+http",
        Port::Grpc => "grpc",
        Port::Http | Port::Metrics => "http",
    };
    match port {
        Port::Metrics => info!(address, "serving metrics"),
        _ => info!(
            traffic,
            address, "serving client traffic insecurely; this is strongly discouraged!"
        ),
    }
}
