//! Where a request may come from: the names under which this door may be addressed, and no page but its own.
//!
//! Always true: a page on another site cannot reach a route by pointing its own name at this machine (its `Host` is
//! refused), nor by sending to ours (its `Origin` or `Sec-Fetch-Site` is refused). No CORS header is ever sent.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::extract::Request;
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use crate::problem::Problem;

/// The port a client leaves out of `Host` for plain HTTP.
const HTTP_PORT: u16 = 80;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The values of `Host` that mean this door, in lower case.
#[derive(Debug)]
pub(crate) struct Hosts(BTreeSet<String>);

impl Hosts {
    /// The loopback names with the door's port, the address it listens on, and `extra` (with that port if it has
    /// none). The error is the extra host that is not a host.
    pub(crate) fn new(address: SocketAddr, extra: &[String]) -> Result<Self, String> {
        let port = address.port();
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned(), "[::1]".to_owned()];
        // An address cannot be rebound as a name can.
        match address.ip().to_canonical() {
            ip if ip.is_unspecified() => {}
            std::net::IpAddr::V4(ip) => names.push(ip.to_string()),
            std::net::IpAddr::V6(ip) => names.push(format!("[{ip}]")),
        }
        let mut hosts = BTreeSet::new();
        for name in names {
            if port == HTTP_PORT {
                hosts.insert(name.clone());
            }
            hosts.insert(format!("{name}:{port}"));
        }
        for host in extra {
            let authority: Authority = host.parse().map_err(|_| host.clone())?;
            if host.contains(['@', '*']) || authority.host().is_empty() {
                return Err(host.clone());
            }
            let host = host.to_ascii_lowercase();
            if authority.port().is_none() {
                hosts.insert(format!("{host}:{port}"));
            }
            hosts.insert(host);
        }
        Ok(Self(hosts))
    }

    /// Refuses a request that is addressed to another host (421).
    pub(crate) fn check_host(&self, request: &Request) -> Result<(), Problem> {
        let mut values = request.headers().get_all(HOST).iter();
        let named = match (values.next(), values.next()) {
            (Some(value), None) => self.allows(value.as_bytes()),
            _ => false,
        };
        // A request line may name a host too, and a proxy would go by that one.
        let line = request.uri().authority().is_none_or(|authority| self.allows(authority.as_str().as_bytes()));
        if named && line {
            return Ok(());
        }
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "host_not_allowed", "This host is not served here").detail(
            "The Host header must name this machine as 127.0.0.1, localhost or [::1] with the door's port, or a \
                 host the operator has added.",
        ))
    }

    /// Refuses a request that a page of another origin made (403).
    pub(crate) fn check_origin(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let own_origin = headers.get_all(ORIGIN).iter().all(|origin| self.allows_origin(origin));
        if own_origin && !is_cross_site_fetch(headers) {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "cross_origin", "Requests from other sites are refused")
            .detail("A browser says that this request was made by a page of another origin."))
    }

    fn allows(&self, host: &[u8]) -> bool {
        std::str::from_utf8(host).is_ok_and(|host| self.0.contains(&host.to_ascii_lowercase()))
    }

    fn allows_origin(&self, origin: &HeaderValue) -> bool {
        let origin = origin.as_bytes();
        let host = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        host.is_some_and(|host| self.allows(host))
    }
}

/// Refuses (403) a request that would change something and comes with a cookie, unless the browser says that a page of this door made it: a cookie is sent
/// by the browser, whoever asked it to. The `Origin`, if there is one, has been found to be ours.
pub(crate) fn check_own_page(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter().peekable();
    let is_own = match sites.peek() {
        Some(_) => sites.all(|site| site == "same-origin" || site == "none"),
        None => headers.contains_key(ORIGIN),
    };
    if request.method().is_safe() || is_own {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "cross_site", "A page of this door has to ask for this").detail(
        "The request came with the cookie of a browser and does not say that a page of this door made it (Sec-Fetch-Site or Origin). Programs send a \
         token instead of the cookie.",
    ))
}

/// Whether a browser says that another site's page fetched this. Following a link to us is a navigation and allowed:
/// it can only read, and what it reads is shown to the user, not to the page. "same-site" is another port of ours.
fn is_cross_site_fetch(headers: &HeaderMap) -> bool {
    let foreign = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site == "cross-site" || site == "same-site");
    foreign && headers.get(SEC_FETCH_MODE).is_none_or(|mode| mode != "navigate")
}
