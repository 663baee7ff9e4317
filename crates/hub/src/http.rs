//! One request with its status understood, and the patience around requests. Knows addresses and repositories,
//! no files. Bounded: a failure that may pass is tried again a few times with growing waits, any other ends it.

use std::thread;
use std::time::Duration;

use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode, header};

use crate::error::{Error, Result};
use crate::fetch::Event;
use crate::repo::Repo;
use crate::settings::Settings;

const REDIRECTS: usize = 10;
const TRIES: u32 = 5;
/// Where nothing answers at all, the cache or a message is better than waiting.
const TRIES_TO_CONNECT: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Upper bound of a wait that the hub asks for; the public hub counts requests in windows of five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// An error, and what may still be done about it.
pub struct Failure {
    pub error: Error,
    pub retry: Retry,
}

pub enum Retry {
    Never,
    /// Nothing answered.
    Connect,
    /// May pass: wait longer each time.
    Later,
    /// The hub said when.
    After(Duration),
    /// Broke off, but brought a good piece forward: counts as a first failure.
    Progressed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, retry: Retry::Never }
    }
}

pub fn agent(settings: &Settings) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(settings.proxy.clone())
        // Followed by hand: ureq would take the token along to another port of the same host.
        .max_redirects(0)
        .timeout_resolve(Some(CONNECT_LIMIT))
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_recv_response(Some(SILENCE_LIMIT))
        .timeout_per_read(Some(SILENCE_LIMIT))
        .user_agent(concat!("lowchurn/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// Answers with 2xx, or with 416 where `from` was past the end; everything else is a failure.
/// `file` is `None` for the hub's own replies.
pub fn get(
    agent: &ureq::Agent,
    settings: &Settings,
    repo: &Repo,
    file: Option<&str>,
    url: &str,
    from: u64,
) -> std::result::Result<Response<Body>, Failure> {
    let mut address = url.to_owned();
    for _ in 0..REDIRECTS {
        // A compressed body would have another length than the listed one, and ranges of something else.
        let mut request = agent.get(&address).header(header::ACCEPT_ENCODING, "identity");
        // Large files live on other hosts, which must not see the token.
        let own =
            address.strip_prefix(&settings.endpoint).is_some_and(|rest| rest.starts_with('/'));
        if let (Some(token), true) = (&settings.token, own) {
            request = request.header(header::AUTHORIZATION, token.bearer());
        }
        if 0 < from {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let reply = request.call().map_err(|error| broken(settings, repo, file, error))?;
        match reply.status() {
            status if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE => {
                return Ok(reply);
            }
            status if status.is_redirection() => match redirect(&address, reply.headers()) {
                Some(next) => address = next,
                None => return Err(refused(settings, repo, file, url, status, reply.headers())),
            },
            status => return Err(refused(settings, repo, file, url, status, reply.headers())),
        }
    }
    let why = format!("it sends on more than {REDIRECTS} times");
    Err(Error::BadReply { repo: repo.boxed(), url: url.to_owned(), why }.into())
}

/// Where a reply from `address` sends on to: another address, or a path on the same host.
fn redirect(address: &str, headers: &HeaderMap) -> Option<String> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    if location.starts_with("https://") || location.starts_with("http://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = address.split_once("://")?;
    let host = rest.split('/').next()?;
    location.starts_with('/').then(|| format!("{scheme}://{host}{location}"))
}

/// Runs `attempt` until it succeeds, fails for good, or has failed too often; `what` names it in the events.
pub fn persist<T>(
    what: &str,
    on: &mut dyn FnMut(Event),
    mut attempt: impl FnMut(&mut dyn FnMut(Event)) -> std::result::Result<T, Failure>,
) -> Result<T> {
    let mut tries = 0;
    loop {
        let Failure { error, retry } = match attempt(on) {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        tries = if matches!(retry, Retry::Progressed) { 1 } else { tries + 1 };
        let grown = FIRST_WAIT * 2u32.pow(tries.min(TRIES) - 1);
        let (limit, wait) = match retry {
            Retry::Never => return Err(error),
            Retry::Connect => (TRIES_TO_CONNECT, grown),
            Retry::Later | Retry::Progressed => (TRIES, grown),
            Retry::After(wait) => (TRIES, wait.min(LONGEST_WAIT)),
        };
        if limit <= tries {
            return Err(error);
        }
        on(Event::Retrying { what, reason: brief(&error), wait });
        thread::sleep(wait);
    }
}

/// The core of an error, without the advice for when it is final.
fn brief(error: &Error) -> String {
    match error {
        Error::Unreachable { reason, .. }
        | Error::BrokenOff { reason, .. }
        | Error::UploadBroken { reason, .. } => reason.clone(),
        Error::BadReply { why, .. } => why.clone(),
        Error::Busy { status, .. }
        | Error::UploadBusy { status, .. }
        | Error::Status { status, .. } => format!("status {status}"),
        other => other.to_string(),
    }
}

/// What may be done where there was no reply, or one that isn't HTTP.
pub fn retry_of(error: &ureq::Error) -> Retry {
    use std::io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, TimedOut, UnexpectedEof,
        WouldBlock,
    };
    match error {
        // The connection stood, and broke: another one may hold.
        ureq::Error::Io(io) => match io.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | Interrupted | TimedOut
            | UnexpectedEof | WouldBlock => Retry::Later,
            _ => Retry::Connect,
        },
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => Retry::Connect,
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => Retry::Later,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Retry::Connect,
        _ => Retry::Never,
    }
}

/// When the hub wants to be asked again.
pub fn wait_asked(headers: &HeaderMap) -> Retry {
    // A date instead of seconds would need the clock: then our own wait serves.
    let asked = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = asked.and_then(|value| value.trim().parse().ok());
    seconds.map_or(Retry::Later, |seconds| Retry::After(Duration::from_secs(seconds)))
}

fn broken(settings: &Settings, repo: &Repo, file: Option<&str>, error: ureq::Error) -> Failure {
    let retry = retry_of(&error);
    let (endpoint, cache) = (settings.endpoint.clone(), settings.cache.clone());
    let (reason, file) = (error.to_string(), file.map(Box::from));
    let error = Error::Unreachable { repo: repo.boxed(), endpoint, reason, file, cache };
    Failure { error, retry }
}

fn refused(
    settings: &Settings,
    repo: &Repo,
    file: Option<&str>,
    url: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Failure {
    let (repo, endpoint, status) = (repo.boxed(), settings.endpoint.clone(), status.as_u16());
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let error = match (status, text("x-error-code"), file) {
        (408 | 429 | 500..=599, ..) => {
            let error = Error::Busy { repo, endpoint, status };
            return Failure { error, retry: wait_asked(headers) };
        }
        (401 | 403, ..) => match settings.token {
            None => Error::NeedsToken { repo, endpoint, status },
            Some(_) => Error::TokenRefused { repo, endpoint, status },
        },
        (404, Some("RevisionNotFound"), _) => Error::NoRevision { repo, endpoint },
        // The listing named the file at this commit, so the address is at fault, not the name.
        (404, _, None) => Error::NoRepo { repo, endpoint },
        _ => Error::Status { repo, url: url.to_owned(), status },
    };
    error.into()
}
