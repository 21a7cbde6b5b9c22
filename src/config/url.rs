//! The URLs of members and listeners: a scheme and an address, nothing else.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::duration::go_quote;

/// How one speaks at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

impl Scheme {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        }
    }
}

/// A URL that etcd would take, in etcd's spelling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: Option<u16>,
}

/// Why a text is no such URL, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlError(String);

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UrlError {}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// Reads one URL.
    ///
    /// # Errors
    /// Anything but `http(s)://host:port` and `unix(s)://...`.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let text = text.trim();
        let fail = |reason: &str| UrlError(format!("parse {}: {reason}", go_quote(text)));
        if let Some(control) = text.chars().find(|c| c.is_ascii_control()) {
            let _ = control;
            return Err(fail("net/url: invalid control character in URL"));
        }
        let scheme = split_scheme(text).map_err(fail)?;
        let Some((scheme_text, rest)) = scheme else {
            return Err(UrlError(format!(
                "URL scheme must be http, https, unix, or unixs: {text}"
            )));
        };
        let scheme = match scheme_text.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => {
                return Err(UrlError(format!(
                    "URL scheme must be http, https, unix, or unixs: {text}"
                )));
            }
        };
        let Some(rest) = rest.strip_prefix("//") else {
            return match scheme {
                Scheme::Unix | Scheme::Unixs => Ok(Url::local(scheme, rest)),
                _ => Err(UrlError(format!(
                    r#"URL address does not have the form "host:port": {text}"#
                ))),
            };
        };
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            return Ok(Url::local(scheme, &format!("//{rest}")));
        }
        let authority_len = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(authority_len);
        let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
        let (host, port) = split_host_port(host_port).map_err(|reason| match reason {
            HostError::Go(reason) => fail(&reason),
            HostError::Etcd => UrlError(format!(r#"URL address does not have the form "host:port": {text}"#)),
        })?;
        if behind.starts_with('/') {
            return Err(UrlError(format!("URL must not contain a path: {text}")));
        }
        let text = format!("{}://{authority}{behind}", scheme.name());
        Ok(Url {
            text,
            scheme,
            host,
            port,
        })
    }

    fn local(scheme: Scheme, rest: &str) -> Url {
        let host = rest.trim_start_matches('/').to_string();
        Url {
            text: format!("{}:{rest}", scheme.name()),
            scheme,
            host,
            port: None,
        }
    }

    /// A plain HTTP URL of an address.
    pub fn http(host: &str, port: u16) -> Url {
        let shown = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_string()
        };
        Url {
            text: format!("http://{shown}:{port}"),
            scheme: Scheme::Http,
            host: host.to_string(),
            port: Some(port),
        }
    }

    /// As etcd writes it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How one speaks there.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, without brackets; the path of a unix socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; `None` if it was left empty, and for unix sockets.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Host and port as they are written in a `Host` header.
    pub fn host_port(&self) -> &str {
        self.text.split_once("://").map_or(&self.text, |(_, behind)| behind)
    }

    /// Whether the host is an address or `localhost`, so that one can listen there.
    pub fn is_bindable(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok()
    }

    /// Where to listen or connect, if no name has to be looked up. `localhost` is 127.0.0.1, as Go prefers it.
    pub fn socket_address(&self) -> Option<SocketAddr> {
        let address = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            // Go listens on every address, of both families, when the host is empty.
            "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            host => host.parse().ok()?,
        };
        Some(SocketAddr::new(address, self.port?))
    }
}

/// Reads a list with commas, sorted as etcd sorts it.
///
/// # Errors
/// The first one that is wrong.
pub fn parse_urls(text: &str) -> Result<Vec<Url>, UrlError> {
    let mut urls = text
        .split(',')
        .map(Url::parse)
        .collect::<Result<Vec<Url>, UrlError>>()?;
    urls.sort();
    Ok(urls)
}

/// The scheme and what is behind its colon; `None` if there is no scheme.
fn split_scheme(text: &str) -> Result<Option<(&str, &str)>, &'static str> {
    if text.is_empty() {
        return Ok(None);
    }
    for (index, character) in text.char_indices() {
        match character {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' => {
                if index == 0 {
                    // `127.0.0.1:2379` looks like a path whose first segment has a colon.
                    let first_segment = text.split('/').next().unwrap_or(text);
                    if first_segment.contains(':') {
                        return Err("first path segment in URL cannot contain colon");
                    }
                    return Ok(None);
                }
            }
            ':' if index == 0 => return Err("missing protocol scheme"),
            ':' => return Ok(Some((&text[..index], &text[index + 1..]))),
            _ => break,
        }
    }
    Ok(None)
}

enum HostError {
    Go(String),
    Etcd,
}

fn split_host_port(text: &str) -> Result<(String, Option<u16>), HostError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, behind) = rest
            .split_once(']')
            .ok_or_else(|| HostError::Go("missing ']' in host".to_string()))?;
        (host, behind)
    } else {
        match text.rfind(':') {
            Some(index) => text.split_at(index),
            None => (text, ""),
        }
    };
    if let Some(bad) = host
        .chars()
        .find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'))
    {
        return Err(HostError::Go(format!(
            "invalid character {} in host name",
            go_quote(&bad.to_string())
        )));
    }
    let Some(digits) = port.strip_prefix(':') else {
        return if port.is_empty() {
            Err(HostError::Etcd)
        } else {
            Err(HostError::Go(format!("invalid port {} after host", go_quote(port))))
        };
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HostError::Go(format!("invalid port {} after host", go_quote(port))));
    }
    // Bare IPv6 addresses have more colons than one.
    if !text.starts_with('[') && host.contains(':') {
        return Err(HostError::Etcd);
    }
    if digits.is_empty() {
        return Ok((host.to_string(), None));
    }
    let number = digits
        .parse()
        .map_err(|_| HostError::Go(format!("invalid port {} after host", go_quote(port))))?;
    Ok((host.to_string(), Some(number)))
}

/// Runs outside bytes through the parser.
pub fn fuzz_url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(url) = Url::parse(&text) {
        assert_eq!(Url::parse(url.as_str()).as_ref(), Ok(&url), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_etcd_takes() {
        for (text, host, port, shown) in [
            (
                "http://localhost:2379",
                "localhost",
                Some(2379),
                "http://localhost:2379",
            ),
            (" HTTP://127.0.0.1:1 ", "127.0.0.1", Some(1), "http://127.0.0.1:1"),
            ("http://[::1]:2380", "::1", Some(2380), "http://[::1]:2380"),
            ("https://a.example:", "a.example", None, "https://a.example:"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host(), url.port(), url.as_str()), (host, port, shown));
        }
    }

    #[test]
    fn urls_etcd_refuses() {
        for (text, expected) in [
            (
                "localhost:2379",
                "URL scheme must be http, https, unix, or unixs: localhost:2379",
            ),
            (
                "127.0.0.1:2379",
                r#"parse "127.0.0.1:2379": first path segment in URL cannot contain colon"#,
            ),
            ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            (
                "http://a",
                r#"URL address does not have the form "host:port": http://a"#,
            ),
            ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
            ("http://a:x", r#"parse "http://a:x": invalid port ":x" after host"#),
            (
                "http://::1:2379",
                r#"URL address does not have the form "host:port": http://::1:2379"#,
            ),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            (":2379", r#"parse ":2379": missing protocol scheme"#),
        ] {
            assert_eq!(Url::parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn seeded_bytes_do_no_harm() {
        crate::config::fuzz_seeds(fuzz_url);
    }
}
