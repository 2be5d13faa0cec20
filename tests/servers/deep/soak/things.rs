//! The blobs, manifests and tags of the test. Their content is computed from numbers, so the test
//! stores none of it.

use serde_json::json;
use test_support::history::record::Fact;
use test_support::http::{self, CONFIG};
use test_support::image::{content, sha256};

/// A blob or a manifest of a repository, or the only tag of a manifest, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    Blob(u32, u32),
    Manifest(u32, u32),
    Tag(u32, u32),
}

/// The history knows only links, so a manifest or a tag is a link in a repository with another
/// number.
const MANIFESTS: u32 = 1_000_000;
const TAGS: u32 = 2_000_000;

/// The blob that every manifest consists of. It is never deleted.
pub(crate) const ANCHOR: u32 = u32::MAX;

/// A blob that is stored in parts.
pub(crate) const LARGE: u32 = u32::MAX - 1;

impl Thing {
    pub(crate) const fn fact(self) -> Fact {
        match self {
            Self::Blob(repository, number) => Fact::Link(repository, number),
            Self::Manifest(repository, number) => Fact::Link(MANIFESTS + repository, number),
            Self::Tag(repository, number) => Fact::Link(TAGS + repository, number),
        }
    }

    /// Returns the thing that a fact is about.
    pub(crate) fn of(fact: Fact) -> Self {
        match fact {
            Fact::Link(repository, number) if repository >= TAGS => {
                Self::Tag(repository - TAGS, number)
            }
            Fact::Link(repository, number) if repository >= MANIFESTS => {
                Self::Manifest(repository - MANIFESTS, number)
            }
            Fact::Link(repository, number) => Self::Blob(repository, number),
            Fact::Blob(_) => unreachable!("no blob is deleted here, only links"),
        }
    }

    /// Returns all facts that must hold for a reader to find the thing.
    pub(crate) const fn facts(self) -> [Option<Fact>; 2] {
        match self {
            Self::Tag(repository, number) => {
                let manifest = Self::Manifest(repository, number);
                [Some(manifest.fact()), Some(self.fact())]
            }
            _ => [Some(self.fact()), None],
        }
    }

    /// Returns all facts that its delete removes.
    pub(crate) fn deleted(self) -> Vec<Fact> {
        match self {
            Self::Manifest(repository, number) => {
                vec![self.fact(), Self::Tag(repository, number).fact()]
            }
            _ => vec![self.fact()],
        }
    }

    pub(crate) fn path(self) -> String {
        match self {
            Self::Blob(number, _) => format!("/v2/{}/blobs/{}", repository(number), self.digest()),
            Self::Manifest(number, _) => {
                format!("/v2/{}/manifests/{}", repository(number), self.digest())
            }
            Self::Tag(number, manifest) => {
                format!("/v2/{}/manifests/m{manifest}", repository(number))
            }
        }
    }

    /// Returns its key in the bucket.
    pub(crate) fn object(self) -> String {
        let digest = self.digest();
        let hex = digest.strip_prefix("sha256:").unwrap();
        let (Self::Blob(number, _) | Self::Manifest(number, _) | Self::Tag(number, _)) = self;
        let place = match self {
            Self::Blob(..) => format!("_layers/sha256/{hex}"),
            Self::Manifest(..) => format!("_manifests/revisions/sha256/{hex}"),
            Self::Tag(_, manifest) => format!("_manifests/tags/m{manifest}/current"),
        };
        let name = repository(number);
        format!("docker/registry/v2/repositories/{name}/{place}/link")
    }

    fn digest(self) -> String {
        self.identity().0
    }

    /// Returns the digest and the length of its content.
    pub(crate) fn identity(self) -> (String, usize) {
        let content = match self {
            Self::Blob(_, number) => blob_content(number),
            Self::Manifest(_, number) | Self::Tag(_, number) => manifest_content(number),
        };
        (sha256(&content), content.len())
    }
}

pub(crate) fn repository(number: u32) -> String {
    format!("soak/number-{number}")
}

pub(crate) fn blob_content(number: u32) -> Vec<u8> {
    let length = match number {
        ANCHOR => return CONFIG.to_vec(),
        LARGE => 9 << 20,
        _ if number.is_multiple_of(50) => 200_000,
        _ => 100 + number as usize * 7919 % 6_000,
    };
    content(u64::from(number), length)
}

pub(crate) fn manifest_content(number: u32) -> Vec<u8> {
    let mut manifest = http::manifest(CONFIG);
    manifest["annotations"] = json!({ "number": number.to_string() });
    manifest.to_string().into_bytes()
}
