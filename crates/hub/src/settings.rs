//! The variables of the Hugging Face clients → settings. Pure but for the token file. Refuses an endpoint that
//! isn't a plain address and a token that can't be sent; never shows a token.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result};

pub(crate) const PUBLIC_HUB: &str = "https://huggingface.co";

/// Where the hub and the cache are, and how to reach them.
#[derive(Debug)]
pub struct Settings {
    /// Address without a slash at its end.
    pub endpoint: String,
    /// Folder of `models--owner--name` and its like.
    pub cache: PathBuf,
    pub token: Option<Token>,
    pub network: Network,
    pub proxy: Option<ureq::Proxy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    Allowed,
    /// HF_HUB_OFFLINE: the cache only.
    Off,
}

/// A secret: can be sent, never shown.
pub struct Token(String);

impl Token {
    /// # Errors
    /// [`Error::BadVariable`] where it can't be sent.
    pub(crate) fn parse(text: &str) -> Result<Token> {
        match text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Token(text.to_owned())),
            false => Err(Error::BadVariable {
                name: "HF_TOKEN",
                why: "the token has spaces or characters outside ASCII",
                expected: "hf_... as the hub shows it",
            }),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it stands somewhere in `bytes`. One of a few letters would be found in anything, so it counts as none.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        let token = self.0.as_bytes();
        5 < token.len() && bytes.windows(token.len()).any(|part| part == token)
    }

    /// The text with the token taken out.
    pub(crate) fn scrub(&self, text: &str) -> String {
        text.replace(&self.0, "(hidden)")
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Settings {
    /// `var` gives a variable's value; an empty one counts as not set. Precedence is that of huggingface_hub.
    pub fn from_vars(var: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let first = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| var(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()))
        };
        let user_home = first(&["HOME", "USERPROFILE"]).map(PathBuf::from);
        let folder = |names: &[&str]| {
            let text = first(names)?;
            Some(match (text.strip_prefix("~/"), &user_home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(text),
            })
        };
        let home = folder(&["HF_HOME"])
            .or_else(|| Some(folder(&["XDG_CACHE_HOME"])?.join("huggingface")))
            .or_else(|| Some(user_home.as_ref()?.join(".cache/huggingface")));
        let cache = folder(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
            .or_else(|| Some(home.as_ref()?.join("hub")))
            .ok_or(Error::NoCache)?;
        // Links inside the cache are relative, but a run may change its folder: settle the place now.
        let cache = std::path::absolute(&cache).map_err(Error::io(&cache))?;
        let endpoint = endpoint(first(&["HF_ENDPOINT"]))?;
        let token = match is_yes(first(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"])) {
            true => None,
            false => first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
                // An unreadable file is as good as none: the homes of others are shared on clusters.
                let path = folder(&["HF_TOKEN_PATH"]).or_else(|| Some(home?.join("token")))?;
                fs::read_to_string(path)
                    .ok()
                    .map(|text| text.trim().to_owned())
                    .filter(|t| !t.is_empty())
            }),
        };
        let network = match is_yes(first(&["HF_HUB_OFFLINE"])) {
            true => Network::Off,
            false => Network::Allowed,
        };
        let proxies: &[&str] = match endpoint.starts_with("https:") {
            true => &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
            false => &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        };
        let exceptions = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        let proxy = first(proxies).map(|address| proxy(&address, &exceptions)).transpose()?;
        Ok(Settings {
            endpoint,
            cache,
            token: token.as_deref().map(Token::parse).transpose()?,
            network,
            proxy,
        })
    }
}

fn is_yes(value: Option<String>) -> bool {
    value.is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_ascii_uppercase().as_str()))
}

fn endpoint(value: Option<String>) -> Result<String> {
    let Some(text) = value else { return Ok(PUBLIC_HUB.to_owned()) };
    let bad = |why| Error::BadVariable {
        name: "HF_ENDPOINT",
        why,
        expected: "https://host[:port][/path]",
    };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        None => Err(bad("it doesn't start with https:// or http://")),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Err(bad("it names no host")),
        // The endpoint is shown in messages, so it must not carry a password.
        Some(rest) if rest.contains('@') => Err(bad("it carries a user name")),
        Some(rest) if !rest.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#') => {
            Err(bad("it has characters that no address has"))
        }
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}

fn proxy(address: &str, exceptions: &str) -> Result<ureq::Proxy> {
    let bad = |_| Error::BadVariable {
        name: "HTTPS_PROXY / HTTP_PROXY / ALL_PROXY",
        why: "it is not the address of a proxy",
        expected: "http://host:port",
    };
    let plain = ureq::Proxy::new(address).map_err(bad)?;
    let mut built = ureq::Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    built = plain.username().into_iter().fold(built, |b, name| b.username(name));
    built = plain.password().into_iter().fold(built, |b, word| b.password(word));
    let names = exceptions.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.fold(built, |b, name| b.no_proxy(name)).build().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(vars: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_vars(&|name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string())
        })
    }

    #[test]
    fn places() {
        let check = |vars: &[(&str, &str)], endpoint: &str, cache: &str| {
            let got = settings(vars).unwrap();
            assert_eq!(
                (got.endpoint.as_str(), got.cache),
                (endpoint, PathBuf::from(cache)),
                "{vars:?}"
            );
        };
        let (home, hf, xdg) = (("HOME", "/h"), ("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/x"));
        let (new, old) = (("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old"));
        check(&[home], PUBLIC_HUB, "/h/.cache/huggingface/hub");
        check(&[home, xdg], PUBLIC_HUB, "/x/huggingface/hub");
        check(&[home, xdg, hf], PUBLIC_HUB, "/hf/hub");
        check(&[home, xdg, hf, old], PUBLIC_HUB, "/old");
        check(&[home, xdg, hf, old, new], PUBLIC_HUB, "/c");
        check(&[new], PUBLIC_HUB, "/c");
        check(&[home, ("HF_HOME", "~/hf")], PUBLIC_HUB, "/h/hf/hub");
        check(&[home, ("HF_HOME", "")], PUBLIC_HUB, "/h/.cache/huggingface/hub");
        check(
            &[home, ("HF_ENDPOINT", "http://127.0.0.1:80/hf/")],
            "http://127.0.0.1:80/hf",
            "/h/.cache/huggingface/hub",
        );
    }

    #[test]
    fn offline_is_a_yes() {
        for (value, expected) in [
            ("1", Network::Off),
            ("on", Network::Off),
            ("Yes", Network::Off),
            ("TRUE", Network::Off),
            ("0", Network::Allowed),
            ("", Network::Allowed),
            ("off", Network::Allowed),
        ] {
            let got = settings(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(got.network, expected, "{value}");
        }
    }

    #[test]
    fn token_is_found_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().to_str().unwrap();
        let other = home.path().join("other");
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        fs::write(&other, "hf_other").unwrap();
        let other = ("HF_TOKEN_PATH", other.to_str().unwrap());
        let (new, old) = (("HF_TOKEN", "hf_secret"), ("HUGGING_FACE_HUB_TOKEN", "hf_old"));
        let check = |more: &[(&str, &str)], expected: Option<&str>| {
            let got = settings(&[&[("HF_HOME", dir)], more].concat()).unwrap();
            assert_eq!(got.token.as_ref().map(|token| token.0.as_str()), expected, "{more:?}");
            let shown = format!("{got:?}");
            assert!(!shown.contains("hf_"), "{shown}");
        };
        check(&[], Some("hf_file"));
        check(&[other], Some("hf_other"));
        check(&[other, old], Some("hf_old"));
        check(&[other, old, new], Some("hf_secret"));
        check(&[other, old, new, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None);
        check(&[("HF_TOKEN_PATH", "/not/there")], None);
        assert_eq!(
            settings(&[("HF_HOME", dir), ("HF_TOKEN", "hf_a b")]).unwrap_err().to_string(),
            "HF_TOKEN is not usable: the token has spaces or characters outside ASCII; expected hf_... as the hub shows it"
        );
    }

    #[test]
    fn bad_endpoints_name_the_reason_and_no_password() {
        for (value, why) in [
            ("huggingface.co", "it doesn't start with https:// or http://"),
            ("ftp://huggingface.co", "it doesn't start with https:// or http://"),
            ("https://", "it names no host"),
            ("https:///path", "it names no host"),
            ("https://me:secret@hub", "it carries a user name"),
            ("https://hub/?q", "it has characters that no address has"),
            ("https://hub/a b", "it has characters that no address has"),
        ] {
            let error = settings(&[("HOME", "/h"), ("HF_ENDPOINT", value)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("HF_ENDPOINT is not usable: {why}; expected https://host[:port][/path]")
            );
        }
    }

    #[test]
    fn proxies_by_scheme_with_exceptions() {
        let base = [
            ("HOME", "/h"),
            ("HTTPS_PROXY", "http://me:secret@proxy:3128"),
            ("NO_PROXY", "127.0.0.1, .local"),
        ];
        let got = settings(&base).unwrap();
        let proxy = got.proxy.as_ref().unwrap();
        assert_eq!((proxy.host(), proxy.port(), proxy.password()), ("proxy", 3128, Some("secret")));
        assert!(proxy.is_no_proxy(&"https://127.0.0.1:1/".parse().unwrap()));
        assert!(proxy.is_no_proxy(&"https://hub.local/".parse().unwrap()));
        assert!(!proxy.is_no_proxy(&"https://huggingface.co/".parse().unwrap()));
        assert!(!format!("{got:?}").contains("secret"), "{got:?}");
        let plain = settings(&[&base[..], &[("HF_ENDPOINT", "http://h")]].concat()).unwrap();
        assert!(plain.proxy.is_none());
        assert_eq!(
            settings(&[("HOME", "/h"), ("ALL_PROXY", "nonsense://x")]).unwrap_err().to_string(),
            "HTTPS_PROXY / HTTP_PROXY / ALL_PROXY is not usable: it is not the address of a proxy; expected http://host:port"
        );
    }

    #[test]
    fn no_place() {
        assert_eq!(
            settings(&[]).unwrap_err().to_string(),
            "no place for downloads: neither HF_HOME, HF_HUB_CACHE, XDG_CACHE_HOME nor HOME is set; set HF_HOME to a folder"
        );
    }
}
