//! What does a listed object prove?

use super::super::meta::describe_in_part;
use super::super::read::facts;
use super::listing::Listed;
use crate::cache::shared::{Fact, Facts, is_plausible};
use crate::types::Digest;
use crate::types::question::Question;
use md5::{Digest as _, Md5};
use object_store::ObjectMeta;

/// What a listed object proves.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "no value is stored, and most are the large one"
)]
pub(super) enum ListProof {
    /// The object proves these facts.
    Facts(Facts),
    /// The object proves nothing until its content is read.
    Unread,
    /// The object is not what its path says.
    Broken,
}

impl ListProof {
    pub(super) fn of(listed: &Listed) -> Self {
        let Listed { object, question } = listed;
        match question {
            // A link is a membership only if its content is its own digest.
            Question::Link(link) => match () {
                () if object.size != link.digest.text_len() as u64 => Self::Broken,
                () if has_text_of(object, &link.digest) => {
                    Self::Facts(Facts::one(Fact::member(link.clone())))
                }
                () => Self::Unread,
            },
            Question::Stat(_) | Question::Own(_) | Question::Meta(_) => {
                match describe_in_part(&object.location, object) {
                    Ok(meta) if is_plausible(question.digest(), &meta) => {
                        Self::Facts(facts(question, &meta))
                    }
                    _ => Self::Broken,
                }
            }
        }
    }
}

/// Returns whether the entity tag is the MD5 of the digest's text. A store that computes its tags
/// in another way makes no such tag. An attacker cannot make another content with the same tag
/// either: that needs a second preimage of MD5.
pub fn has_text_of(object: &ObjectMeta, digest: &Digest) -> bool {
    let Some(tag) = &object.e_tag else {
        return false;
    };
    let tag = tag.trim_matches('"').as_bytes();
    if tag.len() != 32 {
        return false;
    }
    let hash = Md5::digest(digest.to_string());
    let hex = |digit: u8| char::from_digit(u32::from(digit), 16);
    let digits = hash
        .iter()
        .flat_map(|byte| [hex(byte >> 4), hex(byte & 15)]);
    let tag = tag.iter().map(|byte| char::from(byte.to_ascii_lowercase()));
    digits.eq(tag.map(Some))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Link;
    use object_store::path::Path;
    use std::time::UNIX_EPOCH;

    fn listed(size: u64, e_tag: Option<&str>) -> Listed {
        let digest = Digest::Sha256([0xab; 32]);
        Listed {
            object: ObjectMeta {
                location: Path::from("a/link"),
                last_modified: UNIX_EPOCH.into(),
                size,
                e_tag: e_tag.map(str::to_owned),
                version: None,
            },
            question: Question::Link(Link::layer("a".parse().unwrap(), digest)),
        }
    }

    /// The output of `printf sha256:abab… | md5sum`.
    const TAG: &str = "36f6769913c757cd5f39ec96e06ef47d";

    #[test]
    fn a_tag_proves_a_link_only_if_it_is_the_md5_of_its_digest() {
        let quoted = format!("\"{TAG}\"");
        for tag in [TAG, &quoted, &quoted.to_uppercase()] {
            assert!(
                matches!(ListProof::of(&listed(71, Some(tag))), ListProof::Facts(_)),
                "{tag}"
            );
            assert!(matches!(
                ListProof::of(&listed(70, Some(tag))),
                ListProof::Broken
            ));
        }
        let other = quoted.replace(&TAG[..1], if TAG.starts_with('0') { "1" } else { "0" });
        for tag in [
            None,
            Some("\"1\""),
            Some(&other[..]),
            Some(&quoted[..20]),
            Some(""),
        ] {
            assert!(
                matches!(ListProof::of(&listed(71, tag)), ListProof::Unread),
                "{tag:?}"
            );
        }
        let of_parts = format!("\"{TAG}-1\"");
        assert!(matches!(
            ListProof::of(&listed(71, Some(&of_parts))),
            ListProof::Unread
        ));
    }
}
