//! Reads the settings from a file, through any self-describing format of `serde`.

use super::Settings;
use crate::cache::MemoryConfig;
#[cfg(feature = "redis")]
use crate::cache::RedisConfig;
use crate::coherence::limiter::Limits;
use crate::layout;
use crate::read_through::VerifierConfig;
use crate::types::setting::{Section, shown};
use serde_core::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Reads the settings of one section.
struct OneSection<T>(PhantomData<T>);

impl<'de, T: Section> Visitor<'de> for OneSection<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings of `{}`: {}", T::NAME, names::<T>())
    }

    /// The error does not repeat the text, because an address may stand in the wrong place.
    fn visit_str<E: Error>(self, _: &str) -> Result<T, E> {
        let (section, known) = (T::NAME, names::<T>());
        Err(E::custom(format_args!(
            "`{section}` is no text, it has the settings {known}"
        )))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let (mut section, mut has_required) = (T::start(), T::REQUIRED.is_none());
        while let Some(name) = map.next_key::<String>()? {
            let Some(setting) = T::SETTINGS.iter().find(|setting| setting.name == name) else {
                let (section, known) = (T::NAME, names::<T>());
                return Err(A::Error::custom(format_args!(
                    "`{section}` has no setting `{name}`, known are {known}"
                )));
            };
            let Scalar(Some(text)) = map.next_value()? else {
                continue;
            };
            has_required |= T::REQUIRED == Some(setting.name);
            (setting.set)(&mut section, &text).ok_or_else(|| {
                let (section, accepts, text) = (T::NAME, setting.accepts, shown(&text));
                A::Error::custom(format_args!(
                    "{section}.{name}: `{text}` is not accepted, write {accepts}"
                ))
            })?;
        }
        match T::REQUIRED {
            Some(name) if !has_required => Err(A::Error::missing_field(name)),
            _ => Ok(section),
        }
    }
}

/// Returns the names of all settings of a section, for errors.
fn names<T: Section>() -> String {
    let names: Vec<_> = T::SETTINGS.iter().map(|setting| setting.name).collect();
    names.join(", ")
}

/// One value as the text that the environment would have. `None` if the value is null.
struct Scalar(Option<String>);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;

        impl Visitor<'_> for AsText {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number or a truth value")
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_owned())))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string())))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string())))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string())))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(Some(value.to_string())))
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar(None))
            }
        }

        deserializer.deserialize_any(AsText)
    }
}

macro_rules! deserialize {
    ($($(#[$cfg:meta])? $section:ty),*) => {$(
        $(#[$cfg])?
        impl<'de> Deserialize<'de> for $section {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // Not `deserialize_map`: its errors repeat a text, which may be an address.
                deserializer.deserialize_any(OneSection(PhantomData))
            }
        }
    )*};
}

deserialize!(
    MemoryConfig,
    Limits,
    VerifierConfig,
    #[cfg(feature = "redis")]
    RedisConfig
);

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllSections)
    }
}

/// Reads all sections.
struct AllSections;

impl<'de> Visitor<'de> for AllSections {
    type Value = Settings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings of layercache")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Settings, E> {
        Err(E::custom("the settings are no text, they have sections"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Settings, A::Error> {
        let mut settings = Settings::default();
        let (mut layout, mut root) = (None::<String>, None::<String>);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "layout" => layout = map.next_value()?,
                "root" => root = map.next_value()?,
                MemoryConfig::NAME => {
                    settings.memory = map.next_value::<Option<_>>()?.unwrap_or_default();
                }
                Limits::NAME => {
                    settings.limits = map.next_value::<Option<_>>()?.unwrap_or_default();
                }
                VerifierConfig::NAME => settings.verifier = map.next_value()?,
                #[cfg(feature = "redis")]
                RedisConfig::NAME => settings.redis = map.next_value()?,
                #[cfg(not(feature = "redis"))]
                "redis" => {
                    let error = "`redis` needs the feature `redis` of the crate layercache";
                    return Err(A::Error::custom(error));
                }
                _ => {
                    let known = "layout, root, memory, limits, verifier, redis";
                    return Err(A::Error::custom(format_args!(
                        "there is no setting `{name}`, known are {known}"
                    )));
                }
            }
        }
        let layout = layout.as_deref().unwrap_or("distribution");
        let layout = layout::parse(layout, root.as_deref());
        settings.layout = layout.map_err(A::Error::custom)?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};
    use std::time::Duration;

    fn refused(file: Value) -> String {
        from_value::<Settings>(file).unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_is_the_default() {
        for file in [
            json!({}),
            json!({ "memory": {}, "limits": null, "root": null }),
        ] {
            let settings: Settings = from_value(file).unwrap();
            assert_eq!(
                format!("{settings:?}"),
                format!("{:?}", Settings::default())
            );
        }
    }

    #[test]
    fn each_section_is_read() {
        let settings: Settings = from_value(json!({
            "layout": "oci-blobs/{digest}",
            "memory": { "capacity": 1 << 20, "ttl": "1min" },
            "limits": { "loads": 7, "changes": "8" },
            "verifier": { "hits": 0.5, "deletes": false },
        }))
        .unwrap();
        let memory = MemoryConfig::default().with_capacity(1 << 20);
        assert_eq!(settings.memory, memory.with_ttl(Duration::from_secs(60)));
        assert_eq!(
            settings.limits,
            Limits::default().with_loads(7).with_changes(8)
        );
        let verifier = VerifierConfig::default().with_hits(0.5).with_deletes(false);
        assert_eq!(settings.verifier, Some(verifier));
        assert!(format!("{:?}", settings.layout).contains("Template"));
    }

    #[test]
    fn an_error_names_the_setting_and_what_is_accepted() {
        for (file, parts) in [
            (
                json!({ "memory": { "ttl": 5 } }),
                ["memory.ttl: `5`", "`50ms`"],
            ),
            (
                json!({ "memory": { "tll": "5s" } }),
                ["`tll`", "capacity, ttl"],
            ),
            (
                json!({ "memory": { "ttl": ["5s"] } }),
                ["sequence", "a text"],
            ),
            (json!({ "limit": {} }), ["`limit`", "limits"]),
            (json!({ "layout": "zot" }), ["`zot`", "`oci`"]),
            (
                json!({ "limits": { "loads": -1 } }),
                ["limits.loads: `-1`", "a whole number"],
            ),
        ] {
            let said = refused(file);
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn a_redis_needs_the_feature() {
        let said = refused(json!({ "redis": { "url": "redis://:s3cret@host" } }));
        assert!(
            said.contains("feature `redis`") && !said.contains("s3cret"),
            "{said}"
        );
    }

    #[cfg(feature = "redis")]
    #[test]
    fn every_setting_of_a_redis_is_read_and_its_address_is_never_shown() {
        use crate::coherence::change::ChangePolicy;
        let file = json!({ "redis": {
            "url": "redis://:s3cret@host", "prefix": "p:", "namespace": "n", "ttl": "1h", "timeout": "20ms",
            "change_timeout": "1s", "omit_path": true, "trust_timeout": "3s", "lease_ttl": "4s", "fence_ttl": "5s",
            "change_policy": "strict",
        }});
        let settings: Settings = from_value(file).unwrap();
        let redis = RedisConfig::new("redis://:s3cret@host")
            .with_prefix("p:")
            .with_namespace("n")
            .with_ttl(Duration::from_secs(3600))
            .with_timeout(Duration::from_millis(20))
            .with_change_timeout(Duration::from_secs(1))
            .with_omit_path(true)
            .with_trust_timeout(Duration::from_secs(3))
            .with_lease_ttl(Duration::from_secs(4))
            .with_fence_ttl(Duration::from_secs(5))
            .with_change_policy(ChangePolicy::Strict);
        assert_eq!(settings.redis, Some(redis));
        assert!(!format!("{settings:?}").contains("s3cret"));
        for wrong in [
            json!({ "redis": { "prefix": "p" } }),
            json!({ "redis": { "url": { "redis": "s3cret" } } }),
            json!({ "redis": "redis://:s3cret@host" }),
            json!("redis://:s3cret@host"),
            json!({ "redis": { "url": "redis://:s3cret@host", "ttl": "redis://:s3cret@host" } }),
        ] {
            let said = refused(wrong);
            assert!(!said.contains("s3cret"), "{said}");
        }
    }
}
