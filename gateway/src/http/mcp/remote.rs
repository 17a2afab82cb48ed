//! The gateway's API behind a socket: what `orien mcp` on standard input and output speaks to.
//!
//! Always true: the token goes nowhere but to the door it was given for; no redirection is followed.

use std::fmt;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::failure::Failure;

/// The door of a gateway, and the token that opens it.
pub(super) struct Remote {
    client: Client<HttpConnector, Body>,
    authority: Authority,
    base: String,
    bearer: HeaderValue,
}

/// Why a gateway cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum BadGateway {
    /// Not an address.
    #[error("'{0}' is not the address of a gateway; it looks like http://127.0.0.1:8402")]
    Address(String),
    /// Not a token.
    #[error("the token holds characters that no token has")]
    Token,
}

impl Remote {
    /// A client for the door at `address`, such as `http://127.0.0.1:8402`.
    pub(super) fn new(address: &str, token: &str) -> Result<Self, BadGateway> {
        let bad = || BadGateway::Address(address.chars().take(200).collect());
        let uri: Uri = address.trim_end_matches('/').parse().map_err(|_| bad())?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@')).ok_or_else(bad)?.clone();
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| BadGateway::Token)?;
        bearer.set_sensitive(true);
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, base: format!("http://{authority}"), authority, bearer })
    }

    /// Scheme and authority.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request whose address is a path.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Failure> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("{}{path}", self.base).parse().map_err(|_| Failure::new("invalid_arguments", "this is no path"))?;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.bearer.clone());
        headers.insert(HOST, HeaderValue::from_str(self.authority.as_str()).map_err(|error| Failure::internal(&error))?);
        match self.client.request(request).await {
            Ok(response) => Ok(response.map(Body::new)),
            Err(error) if error.is_connect() => Err(Failure::unreachable(format_args!("nothing answers at {}; is it running?", self.base))),
            Err(error) => Err(Failure::unreachable(error)),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("base", &self.base).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_address_of_a_door_is_taken() {
        assert_eq!(Remote::new("http://127.0.0.1:8402/", "t").unwrap().base(), "http://127.0.0.1:8402");
        for address in ["127.0.0.1:8402", "https://h", "http://user@h", "http://h/path", "http://h?q", "ftp://h", "", "http://"] {
            assert!(Remote::new(address, "t").is_err(), "{address}");
        }
        assert!(Remote::new("http://h", "a\nb").is_err());
    }

    #[test]
    fn the_token_is_not_shown() {
        let shown = format!("{:?}", Remote::new("http://h:1", "secret").unwrap());
        assert!(!shown.contains("secret") && shown.contains("http://h:1"), "{shown}");
    }
}
