//! One request that changes something at the hub, with its answer read. The token goes to the hub's own address and
//! nowhere else, no answer sends a request on, and what the hub says is scrubbed of the token before anybody sees it.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Method, Request, header};
use ureq::{Agent, SendBody};

use crate::error::Error;
use crate::http::{Failure, Retry, retry_of, wait_asked};
use crate::repo::Repo;
use crate::settings::Settings;

/// The hub works on a commit before it answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// Of a body: so much at least, and then a second for each so many bytes.
const SEND_LIMIT: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 32 << 10;
const REPLY_LIMIT: u64 = 16 << 20;
/// Of the hub's words in a message.
const SAID_LIMIT: usize = 300;

/// Who sends, and for which repository.
pub struct Sender<'s> {
    pub agent: &'s Agent,
    pub settings: &'s Settings,
    pub repo: &'s Repo,
}

pub struct Ask<'a> {
    /// For messages: "the commit", "model.safetensors".
    pub what: &'a str,
    pub method: Method,
    pub url: &'a str,
    pub kind: &'a str,
    /// Those that the hub gave for this request.
    pub headers: &'a [(String, String)],
    pub body: &'a mut dyn Read,
    /// Bytes of the body.
    pub length: u64,
}

/// Any answer but one that says "later".
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Sender<'_> {
    /// # Errors
    /// No answer, or one that says "later": both may pass.
    pub fn send(&self, ask: Ask) -> Result<Reply, Failure> {
        let Ask { what, method, url, kind, headers, body, length } = ask;
        let unsendable =
            |why: String| Failure { error: self.broken(what, &why), retry: Retry::Never };
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, kind)
            .header(header::CONTENT_LENGTH, length);
        let own =
            url.strip_prefix(&self.settings.endpoint).is_some_and(|rest| rest.starts_with('/'));
        if let (Some(token), true) = (&self.settings.token, own) {
            request = request.header(header::AUTHORIZATION, token.bearer());
        }
        for (name, value) in headers {
            // The hub may hand the token back for a request of its own, but no other host gets it.
            let is_secret = self.settings.token.as_ref().is_some_and(|t| t.is_in(value.as_bytes()));
            let is_set = name.eq_ignore_ascii_case("authorization") && own;
            if !is_secret && !is_set {
                request = request.header(name, value);
            }
        }
        let request = request.body(SendBody::from_reader(body)).map_err(|_| {
            unsendable("the hub gave an address or a header that can't be sent".into())
        })?;
        let request = self
            .agent
            .configure_request(request)
            .timeout_send_body(Some(SEND_LIMIT + Duration::from_secs(length / SLOWEST)))
            .timeout_recv_response(Some(ANSWER_LIMIT))
            .build();
        let mut reply = self.agent.run(request).map_err(|error| Failure {
            retry: retry_of(&error),
            error: self.broken(what, &error.to_string()),
        })?;
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        if matches!(status, 408 | 429 | 500..=599) {
            let (repo, endpoint) = (self.repo.boxed(), self.settings.endpoint.clone());
            let error = Error::UploadBusy { repo, endpoint, what: what.into(), status };
            return Err(Failure { error, retry: wait_asked(&headers) });
        }
        let text = reply.body_mut().with_config().limit(REPLY_LIMIT).read_to_string();
        let text = match text {
            Ok(text) => text,
            // What a refusal says is welcome, but its status is enough.
            Err(_) if !(200..300).contains(&status) => String::new(),
            Err(error) => {
                let error = self.broken(what, &error.to_string());
                return Err(Failure { error, retry: Retry::Later });
            }
        };
        Ok(Reply { status, headers, text })
    }

    /// JSON there and back.
    pub fn post(&self, what: &str, url: &str, body: &serde_json::Value) -> Result<Reply, Failure> {
        self.post_as(what, url, "application/json", body.to_string().as_bytes())
    }

    pub fn post_as(
        &self,
        what: &str,
        url: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Reply, Failure> {
        let (mut bytes, length) = (body, body.len() as u64);
        let body = &mut bytes;
        self.send(Ask { what, method: Method::POST, url, kind, headers: &[], body, length })
    }

    pub fn broken(&self, what: &str, reason: &str) -> Error {
        let (repo, endpoint) = (self.repo.boxed(), self.settings.endpoint.clone());
        let reason = self.scrubbed(reason);
        Error::UploadBroken { repo, endpoint, what: what.into(), reason }
    }

    /// A reply that isn't what a hub would say.
    pub fn odd(&self, url: &str, why: impl std::fmt::Display) -> Error {
        let url = url.split('?').next().unwrap_or(url).to_owned();
        Error::BadReply { repo: self.repo.boxed(), url, why: self.scrubbed(&why.to_string()) }
    }

    /// What a refusal means to whoever publishes.
    pub fn refused(&self, what: &str, reply: &Reply) -> Error {
        let (repo, endpoint) = (self.repo.boxed(), self.settings.endpoint.clone());
        let (what, status, said) = (what.to_owned(), reply.status, self.said(reply));
        match status {
            401 | 403 => Error::WriteRefused { repo, endpoint, what, status, said },
            300..=399 => Error::SentOn { repo, endpoint, what, status },
            _ => Error::UploadRefused { repo, endpoint, what, status, said },
        }
    }

    /// The hub's own words in brackets, short, printable, and without the token.
    fn said(&self, reply: &Reply) -> String {
        let header = reply.headers.get("x-error-message").and_then(|value| value.to_str().ok());
        let json = || serde_json::from_str::<serde_json::Value>(&reply.text).ok();
        let said = header.map(str::to_owned);
        let said = said.or_else(|| Some(json()?.get("error")?.as_str()?.to_owned()));
        match said {
            Some(said) if !said.is_empty() => format!(" (\"{}\")", self.scrubbed(&said)),
            _ => String::new(),
        }
    }

    fn scrubbed(&self, text: &str) -> String {
        let text = match &self.settings.token {
            Some(token) => token.scrub(text),
            None => text.to_owned(),
        };
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        text.chars().take(SAID_LIMIT).map(plain).collect()
    }
}
