//! Who may speak HTTP to us: the `Host` header (against DNS rebinding) and the origin (CORS), as etcd sees them. Pure.

use std::borrow::Cow;

use super::health::{HttpResponse, error_response};
use crate::config::AllowList;

/// What becomes of a request before any handler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Goes on; these headers belong to its answer.
    Granted(Vec<(&'static str, Cow<'static, str>)>),
    /// Is answered with this at once.
    Answered(HttpResponse),
}

/// Looks at a request on a client URL. `host` and `origin` are the headers' values; empty if there are none.
pub fn check(
    cors: &AllowList,
    host_whitelist: &AllowList,
    is_secure: bool,
    method: &str,
    host: &str,
    origin: &str,
) -> Access {
    let hostname = host_without_port(host);
    if !is_secure && !host_whitelist.allows(hostname) {
        return Access::Answered(error_response(421, &misdirected_text(hostname)));
    }
    let headers = cors_headers(cors, origin);
    if method == "OPTIONS" {
        return Access::Answered(HttpResponse {
            status: 200,
            headers,
            body: Vec::new(),
        });
    }
    Access::Granted(headers)
}

fn cors_headers(cors: &AllowList, origin: &str) -> Vec<(&'static str, Cow<'static, str>)> {
    let allowed: Cow<'static, str> = if cors.is_open() {
        Cow::Borrowed("*")
    } else if cors.allows(origin) {
        Cow::Owned(origin.to_string())
    } else {
        return Vec::new();
    };
    vec![
        (
            "Access-Control-Allow-Headers",
            Cow::Borrowed("accept, content-type, authorization"),
        ),
        (
            "Access-Control-Allow-Methods",
            Cow::Borrowed("POST, GET, OPTIONS, PUT, DELETE"),
        ),
        ("Access-Control-Allow-Origin", allowed),
    ]
}

/// A host without its port; brackets of an IPv6 address go with it.
fn host_without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(address, _)| address);
    }
    match host.split_once(':') {
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    }
}

fn misdirected_text(host: &str) -> String {
    format!(
        "\nThe Host header of this request is none that this server answers to.\n\nEither use TLS, or name the host with \
         --host-whitelist {host:?}.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> AllowList {
        AllowList(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn an_unknown_host_is_misdirected_unless_it_came_by_tls() {
        let check = |host: &str, is_secure| check(&list(&["*"]), &list(&["a", "::1"]), is_secure, "GET", host, "");
        assert!(matches!(check("a:2379", false), Access::Granted(_)));
        assert!(matches!(check("[::1]:2379", false), Access::Granted(_)));
        assert!(matches!(check("b", true), Access::Granted(_)));
        assert!(matches!(check("b:1", false), Access::Answered(response) if response.status == 421));
    }

    #[test]
    fn origins_are_echoed_when_they_are_named() {
        let check = |origin: &str| check(&list(&["http://a"]), &list(&[]), false, "GET", "h", origin);
        let Access::Granted(headers) = check("http://a") else {
            panic!("not granted")
        };
        assert_eq!(headers[2], ("Access-Control-Allow-Origin", "http://a".into()));
        assert_eq!(check("http://b"), Access::Granted(Vec::new()));
    }
}
