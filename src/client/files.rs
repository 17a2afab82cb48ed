//! The files of a session's workspace over HTTP: listed, looked at, stored and fetched in streams, from any offset.
//!
//! Always true: nothing is kept in memory but what is under way; a listing is read to its end or refused as too long, never cut silently.

use std::io::Read;

use anyhow::{Result, bail};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Body, SendBody};

use super::{Client, Problem, SILENCE_LIMIT, escaped, header, json};
use crate::show::each;

/// Most entries of one listing.
const ENTRIES_LIMIT: usize = 200_000;
/// A body at least this large is announced first, so that it is not sent for nothing.
const ANNOUNCED_BYTES: u64 = 1024 * 1024;

/// The workspace of a session.
#[derive(Clone, Copy)]
pub(crate) struct Workspace<'a> {
    client: &'a Client,
    session: &'a str,
}

/// An entry of a listing, as the provider tells it: nothing in it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) is_folder: bool,
    pub(crate) is_executable: bool,
    pub(crate) modified: Value,
}

/// What is known of a file without fetching it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) size: u64,
    /// Such as `blake3:...`, if the gateway can say it.
    pub(crate) hash: Option<String>,
}

/// An upload that broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes that the provider has.
    pub(crate) offset: u64,
    /// Bytes of the whole.
    pub(crate) size: u64,
}

/// A file that is being fetched.
pub(crate) struct Fetched {
    /// The offset that it begins at: what was asked for, or zero when the gateway sends all of it.
    pub(crate) from: u64,
    pub(crate) body: ureq::BodyReader<'static>,
}

/// A file that is to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parcel<'a> {
    pub(crate) path: &'a str,
    pub(crate) size: u64,
    pub(crate) is_executable: bool,
    /// Where the body begins.
    pub(crate) from: u64,
    /// What the whole has to be, if that is known before it is sent: anything else is not stored.
    pub(crate) hash: Option<&'a str>,
}

impl<'a> Workspace<'a> {
    pub(crate) const fn new(client: &'a Client, session: &'a str) -> Self {
        Self { client, session }
    }

    /// Everything below a path, folders before what they hold; nothing when there is no such path.
    pub(crate) fn list(self, below: &str) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let below = below.trim_end_matches('/');
            let page = match self.client.get(&format!("/api/sessions/{}/files?path={}{cursor}", self.session, escaped(below))) {
                Err(error) if is_missing(&error) => return Ok(all),
                page => page?,
            };
            all.extend(each(&page["files"]).map(entry));
            match page["nextCursor"].as_str() {
                Some(next) if all.len() < ENTRIES_LIMIT => cursor = format!("&cursor={}", escaped(next)),
                None if page["more"] != true => return Ok(all),
                _ => bail!("the workspace has more files than one listing can hold ({}); copy its folders one by one", all.len()),
            }
        }
    }

    /// Size and hash of a file, if there is one.
    pub(crate) fn stat(self, path: &str) -> Result<Option<Stat>> {
        let Some(response) = self.look(path, "hash=true")? else { return Ok(None) };
        let hash = header(&response, "x-content-hash");
        Ok(number(&response, "content-length").map(|size| Stat { size, hash }))
    }

    /// An upload to a path that broke off and can go on.
    pub(crate) fn held(self, path: &str) -> Result<Option<Held>> {
        let Some(response) = self.look(path, "upload=true")? else { return Ok(None) };
        let (offset, size) = (number(&response, "upload-offset"), number(&response, "upload-length"));
        Ok(offset.zip(size).map(|(offset, size)| Held { offset, size }))
    }

    fn look(self, path: &str, what: &str) -> Result<Option<Response<Body>>> {
        let path = format!("{}?{what}", self.path(path));
        let request = self.client.agent.head(self.client.url(&path)).header("Authorization", self.client.bearer());
        match self.client.checked(&path, super::limited(request).call()) {
            Err(error) if is_missing(&error) => Ok(None),
            response => response.map(Some),
        }
    }

    /// Stores a file, or the rest of one, and says what the gateway answers.
    pub(crate) fn store(self, parcel: Parcel<'_>, mut body: impl Read) -> Result<Value> {
        let path = self.path(parcel.path);
        let left = parcel.size.saturating_sub(parcel.from);
        let mut request = self.client.sending(self.client.agent.put(self.client.url(&path))).header("Content-Length", left.to_string());
        if parcel.is_executable {
            request = request.header("X-Executable", "true");
        }
        if parcel.from > 0 {
            request = request.header("Content-Range", format!("bytes {}-{}/{}", parcel.from, parcel.size.saturating_sub(1), parcel.size));
        }
        if let Some(hash) = parcel.hash {
            request = request.header("X-Content-Hash", hash);
        }
        if left >= ANNOUNCED_BYTES {
            request = request.header("Expect", "100-continue");
        }
        json(&path, self.client.checked(&path, request.send(SendBody::from_reader(&mut body)))?)
    }

    /// Makes what an archive names.
    pub(crate) fn unpack(self, archive: &[u8]) -> Result<Value> {
        let path = format!("/api/sessions/{}/archive", self.session);
        let request = self.client.sending(self.client.agent.put(self.client.url(&path))).header("Content-Type", "application/x-tar");
        json(&path, self.client.checked(&path, request.send(archive))?)
    }

    /// Fetches a file from an offset.
    pub(crate) fn fetch(self, path: &str, from: u64) -> Result<Fetched> {
        let path = self.path(path);
        let mut request = self.client.getting(&path);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let request = request.config().timeout_recv_response(Some(SILENCE_LIMIT)).timeout_per_read(Some(SILENCE_LIMIT)).build();
        let response: Response<Body> = self.client.checked(&path, request.call())?;
        let begins = if response.status() == 206 { from } else { 0 };
        Ok(Fetched { from: begins, body: response.into_body().into_reader() })
    }

    /// Removes a file or an empty folder, or a folder with everything in it.
    pub(crate) fn remove(self, path: &str, is_recursive: bool) -> Result<()> {
        let query = if is_recursive { "?recursive=true" } else { "" };
        self.client.delete(&format!("{}{query}", self.path(path)))
    }

    fn path(self, path: &str) -> String {
        let parts: Vec<String> = path.split('/').map(escaped).collect();
        format!("/api/sessions/{}/files/{}", self.session, parts.join("/"))
    }
}

fn entry(value: &Value) -> Entry {
    Entry {
        path: value["path"].as_str().unwrap_or_default().to_owned(),
        size: value["size"].as_u64().unwrap_or(0),
        is_folder: value["folder"] == true,
        is_executable: value["executable"] == true,
        modified: value["modified"].clone(),
    }
}

fn number(response: &Response<Body>, name: &str) -> Option<u64> {
    header(response, name)?.parse().ok()
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Problem>().is_some_and(|problem| problem.status == 404 && problem.code() != "session_not_found")
}
