//! Hub id → local folder, and local files → hub: lists a repository of the Hugging Face Hub, downloads the files that are wanted,
//! and answers with a snapshot folder in the cache layout that the Python clients share.
//!
//! Nothing is believed unchecked: each path, commit and digest the hub names is checked before it touches the
//! disk, a body gets its final name only when status, size and hash are right, and a file that lies in the cache
//! is hashed again before it is used: other programs write there, and disks fail. Without the hub its last listing
//! answers, so that a part of a repository isn't taken for the whole. This is the only crate that knows the network. It prints nothing, reads no environment (variables are passed in), and decides nothing
//! about which files are wanted.
//!
//! hf-hub 0.5 gives the names: folder of a repository, place of blobs and snapshots, path in an address. Its
//! download is not used, because no check can be put between the body and the final name: `download_with_progress`
//! compares neither size nor hash before it renames; it appends a 200 reply to the leftover of an earlier run; it
//! takes the blob's name from an unchecked header; it gives up on a lock after 5 seconds and doesn't look again
//! once it has it; it has no time limits and no offline mode; it takes the token along to another port of the same
//! host; a location header that isn't an address makes it panic; and `{:?}` of its client shows the token. So the
//! transfer is ours, on ureq. So is the way up (`publish`, `lfs`), which hf-hub 0.5 doesn't have; why not hf-hub 1.0 stands
//! in LOG.md.

mod settings;

mod repo;

mod listing;

mod kept;

mod cache;

mod state;

mod http;

mod fetch;

mod prepared;

mod send;

mod lfs;

mod publish;

mod error;

pub use error::{Error, Result};
pub use fetch::{Event, Hub};
pub use listing::{Digest, Listing, Origin, RemoteFile};
pub use prepared::{LocalFile, Prepared};
pub use publish::{Access, Change, Committed, Target};
pub use repo::{Kind, Repo};
pub use settings::{Network, Settings, Token};
