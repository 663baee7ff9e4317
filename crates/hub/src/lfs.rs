//! Large files to the hub by git-LFS's protocol: one question about all of them, then each file streamed from the disk,
//! whole (`basic`) or in parts (`multipart`), hashed again on its way. Knows no commits: what is sent here is in no
//! revision until a commit names it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde_json::json;
use sha2::Digest as _;
use ureq::http::Method;

use crate::error::{Error, Result};
use crate::fetch::Event;
use crate::http::{self, Failure, Retry};
use crate::prepared::Prepared;
use crate::send::{Ask, Reply, Sender};
use crate::settings::PUBLIC_HUB;

const KIND: &str = "application/vnd.git-lfs+json";
/// Files of one question.
const BATCH: usize = 100;

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Trouble>,
}

#[derive(Deserialize)]
struct Trouble {
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Clone, Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, serde_json::Value>,
}

/// Sends what the hub doesn't have yet. Sent twice is no harm: a file is named by its hash.
pub fn upload(sender: &Sender, files: &[&Prepared], on: &mut dyn FnMut(Event)) -> Result<()> {
    let address = sender.repo.address();
    let url = format!("{}/{address}.git/info/lfs/objects/batch", sender.settings.endpoint);
    for files in files.chunks(BATCH) {
        let what = "the question which large files are wanted";
        let objects: Vec<_> =
            files.iter().map(|f| json!({ "oid": f.sha256, "size": f.size })).collect();
        let ask = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256",
            "objects": objects,
        });
        let body = ask.to_string();
        let reply = http::persist(what, on, |_| sender.post_as(what, &url, KIND, body.as_bytes()))?;
        if !reply.is_ok() {
            return Err(sender.refused(what, &reply));
        }
        let batch: Batch =
            serde_json::from_str(&reply.text).map_err(|error| sender.odd(&url, error))?;
        for file in files {
            let object = batch.objects.iter().find(|object| object.oid == file.sha256);
            let Some(object) = object else {
                return Err(sender.odd(&url, format!("it says nothing of {}", file.sha256)));
            };
            one(sender, file, object, &url, on)?;
        }
    }
    Ok(())
}

fn one(
    sender: &Sender,
    file: &Prepared,
    object: &Object,
    url: &str,
    on: &mut dyn FnMut(Event),
) -> Result<()> {
    if let Some(trouble) = &object.error {
        return Err(sender.odd(url, format!("{}: {}", file.path, trouble.message)));
    }
    // Without an action the hub has the file already.
    let Some(Actions { upload, verify }) = &object.actions else { return Ok(()) };
    if let Some(action) = upload {
        let action = &at_home(sender, url, action)?;
        on(Event::Sending { file: &file.path, size: file.size });
        match number(action.header.get("chunk_size")) {
            Some(0) => return Err(sender.odd(url, "parts of 0 bytes")),
            Some(part) => in_parts(sender, file, action, part, url, on)?,
            None => whole(sender, file, action, on)?,
        }
        on(Event::Sent { file: &file.path, size: file.size });
    }
    if let Some(action) = verify {
        let action = &at_home(sender, url, action)?;
        let body = json!({ "oid": file.sha256, "size": file.size }).to_string();
        let headers = headers(action);
        let reply = http::persist(&file.path, on, |_| {
            let mut bytes = body.as_bytes();
            sender.send(Ask {
                what: &file.path,
                method: Method::POST,
                url: &action.href,
                kind: KIND,
                headers: &headers,
                length: body.len() as u64,
                body: &mut bytes,
            })
        })?;
        if !reply.is_ok() {
            return Err(sender.refused(&file.path, &reply));
        }
    }
    Ok(())
}

fn whole(
    sender: &Sender,
    file: &Prepared,
    action: &Action,
    on: &mut dyn FnMut(Event),
) -> Result<()> {
    let hash = RefCell::new(sha2::Sha256::new());
    let headers = headers(action);
    let reply = http::persist(&file.path, on, |on| {
        *hash.borrow_mut() = sha2::Sha256::new();
        put(sender, file, &action.href, &headers, (0, file.size), &hash, on)
    })?;
    if !reply.is_ok() {
        return Err(sender.refused(&file.path, &reply));
    }
    Ok(())
}

/// Each part has an address of its own; the last request names the parts by the tags that they were answered with.
fn in_parts(
    sender: &Sender,
    file: &Prepared,
    action: &Action,
    part_size: u64,
    url: &str,
    on: &mut dyn FnMut(Event),
) -> Result<()> {
    let address = |(name, value): (&String, &serde_json::Value)| {
        Some((name.parse::<u64>().ok()?, value.as_str()?.to_owned()))
    };
    let addresses: BTreeMap<u64, String> = action.header.iter().filter_map(address).collect();
    let n = file.size.div_ceil(part_size);
    if !addresses.keys().copied().eq(1..=n) {
        let found = addresses.len();
        return Err(sender.odd(url, format!("{found} addresses for {n} parts of {}", file.path)));
    }
    let hash = RefCell::new(sha2::Sha256::new());
    let mut parts = Vec::new();
    for (number, href) in &addresses {
        let start = (number - 1) * part_size;
        let section = (start, part_size.min(file.size - start));
        let before = hash.borrow().clone();
        let reply = http::persist(&file.path, on, |on| {
            *hash.borrow_mut() = before.clone();
            put(sender, file, href, &[], section, &hash, on)
        })?;
        let tag = reply.headers.get("etag").and_then(|value| value.to_str().ok());
        match tag {
            Some(tag) if reply.is_ok() => parts.push(json!({ "partNumber": number, "etag": tag })),
            _ if reply.is_ok() => {
                return Err(sender.odd(href, "a part is answered without an etag"));
            }
            _ => return Err(sender.refused(&file.path, &reply)),
        }
    }
    let body = json!({ "oid": file.sha256, "parts": parts }).to_string();
    let reply = http::persist(&file.path, on, |_| {
        sender.post_as(&file.path, &action.href, KIND, body.as_bytes())
    })?;
    match reply.is_ok() {
        true => Ok(()),
        false => Err(sender.refused(&file.path, &reply)),
    }
}

/// Streams `section` (first byte, bytes) of the file. The last byte is held back where the whole isn't what was
/// announced: the hub then has an upload that broke off, not a wrong one.
fn put(
    sender: &Sender,
    file: &Prepared,
    href: &str,
    headers: &[(String, String)],
    section: (u64, u64),
    hash: &RefCell<sha2::Sha256>,
    on: &mut dyn FnMut(Event),
) -> std::result::Result<Reply, Failure> {
    let mut source = File::open(&file.place).map_err(Error::unreadable(&file.place))?;
    source.seek(SeekFrom::Start(section.0)).map_err(Error::unreadable(&file.place))?;
    let mut body =
        Checked { source, left: section.1, have: section.0, file, hash, is_changed: false, on };
    let sent = sender.send(Ask {
        what: &file.path,
        method: Method::PUT,
        url: href,
        kind: "application/octet-stream",
        headers,
        length: section.1,
        body: &mut body,
    });
    match body.is_changed {
        true => {
            Err(Failure { error: Error::Changed { path: file.place.clone() }, retry: Retry::Never })
        }
        false => sent,
    }
}

/// A section of a file that is hashed while it is read.
struct Checked<'a> {
    source: File,
    left: u64,
    /// Bytes of the file that have passed by, for events.
    have: u64,
    file: &'a Prepared,
    hash: &'a RefCell<sha2::Sha256>,
    is_changed: bool,
    on: &'a mut dyn FnMut(Event),
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let n = self.source.read(&mut buffer[..room])?;
        self.hash.borrow_mut().update(&buffer[..n]);
        (self.left, self.have) = (self.left - n as u64, self.have + n as u64);
        let is_whole = self.have == self.file.size;
        let is_other =
            || format!("{:x}", self.hash.borrow().clone().finalize()) != self.file.sha256;
        if n == 0 || is_whole && is_other() {
            self.is_changed = true;
            return Err(io::Error::other("the file changed"));
        }
        (self.on)(Event::Bytes { file: &self.file.path, have: self.have });
        Ok(n)
    }
}

fn headers(action: &Action) -> Vec<(String, String)> {
    let text = |(name, value): (&String, &serde_json::Value)| {
        Some((name.clone(), value.as_str()?.to_owned()))
    };
    action.header.iter().filter_map(text).collect()
}

fn number(value: Option<&serde_json::Value>) -> Option<u64> {
    value?.as_u64().or_else(|| value?.as_str()?.parse().ok())
}

/// The action with an address that can be asked. Behind a mirror the hub still names itself: then it is the mirror's.
fn at_home(sender: &Sender, url: &str, action: &Action) -> Result<Action> {
    let Action { href, header } = action.clone();
    if !href.starts_with("https://") && !href.starts_with("http://") {
        return Err(sender.odd(url, "an address for a large file is none"));
    }
    let of_hub = href.strip_prefix(PUBLIC_HUB).filter(|rest| rest.starts_with('/'));
    let href = of_hub.map(|rest| format!("{}{rest}", sender.settings.endpoint));
    Ok(Action { href: href.unwrap_or_else(|| action.href.clone()), header })
}
