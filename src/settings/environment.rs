//! Reads the settings from environment variables.

use super::Settings;
use crate::layout::{self, LayoutError};
use crate::types::setting::{Section, shown};
use std::ffi::OsString;

/// Why the environment has no valid settings. Each error names the variable.
///
/// ```no_run
/// use layercache::{Settings, SettingsError};
///
/// match Settings::from_env() {
///     Err(SettingsError::Value { variable, accepts, .. }) => eprintln!("{variable} must be {accepts}"),
///     Err(error) => eprintln!("{error}"),
///     Ok(_) => {}
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The setting does not accept the value.
    #[error("{variable}: `{value}` is not accepted, write {accepts}")]
    Value {
        /// The variable.
        variable: String,
        /// Its value, or `(hidden)` if the value could be an address with a password.
        value: String,
        /// What the setting accepts.
        accepts: &'static str,
    },
    /// The section has no setting of this name.
    #[error("{variable} is no setting, known are {known}")]
    Unknown {
        /// The variable.
        variable: String,
        /// All variables of the section.
        known: String,
    },
    /// The value is not UTF-8.
    #[error("{variable}: the value is not UTF-8")]
    NotUnicode {
        /// The variable.
        variable: String,
    },
    /// A section has settings, but not the one that it needs.
    #[error(
        "{variable} is not set, but other settings of its section are: set it, or none of them"
    )]
    Missing {
        /// The variable that is missing.
        variable: String,
    },
    /// `LAYERCACHE_LAYOUT` and `LAYERCACHE_ROOT` make no layout.
    #[error("LAYERCACHE_LAYOUT, LAYERCACHE_ROOT: {source}")]
    Layout {
        /// Why they make none.
        #[from]
        source: LayoutError,
    },
    /// The setting needs a feature of this crate that is not on.
    #[error("{variable} needs the feature `{feature}` of the crate layercache")]
    Feature {
        /// The variable.
        variable: String,
        /// The feature.
        feature: &'static str,
    },
}

const PREFIX: &str = "LAYERCACHE_";

/// Returns the variable of a setting.
pub(super) fn variable<T: Section>(name: &str) -> String {
    format!("{PREFIX}{}_{}", T::NAME, name).to_uppercase()
}

pub(super) fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Settings, SettingsError> {
    let mut variables: Vec<_> = variables
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // The environment has no order, but the same environment has to have the same error.
    variables.sort_unstable();

    let (mut layout, mut root) = (None, None);
    let (mut memory, mut limits, mut verifier) = (None, None, None);
    #[cfg(feature = "redis")]
    let mut redis = None;
    for (name, value) in variables {
        let section = name[PREFIX.len()..].split('_').next();
        match section.unwrap_or_default() {
            "MEMORY" => set(&mut memory, name, value)?,
            "LIMITS" => set(&mut limits, name, value)?,
            "VERIFIER" => set(&mut verifier, name, value)?,
            #[cfg(feature = "redis")]
            "REDIS" => set(&mut redis, name, value)?,
            #[cfg(not(feature = "redis"))]
            "REDIS" if !is_of_kubernetes(&name, "LAYERCACHE_REDIS_") => {
                return Err(SettingsError::Feature {
                    variable: name,
                    feature: "redis",
                });
            }
            _ if name == "LAYERCACHE_LAYOUT" => layout = Some(text(&name, value)?),
            _ if name == "LAYERCACHE_ROOT" => root = Some(text(&name, value)?),
            // The application's own.
            _ => {}
        }
    }
    let layout = layout.as_deref().unwrap_or("distribution");
    Ok(Settings {
        layout: layout::parse(layout, root.as_deref())?,
        memory: complete(memory)?.unwrap_or_default(),
        limits: complete(limits)?.unwrap_or_default(),
        verifier: complete(verifier)?,
        #[cfg(feature = "redis")]
        redis: complete(redis)?,
    })
}

/// A section of which some settings are set.
struct PartialSection<T> {
    section: T,
    has_required: bool,
}

/// Sets one setting of a section to the value of a variable.
fn set<T: Section>(
    begun: &mut Option<PartialSection<T>>,
    name: String,
    value: OsString,
) -> Result<(), SettingsError> {
    let mut settings = T::SETTINGS.iter();
    let Some(setting) = settings.find(|setting| variable::<T>(setting.name) == name) else {
        if is_of_kubernetes(&name, &variable::<T>("")) {
            return Ok(());
        }
        let known = T::SETTINGS
            .iter()
            .map(|setting| variable::<T>(setting.name));
        return Err(SettingsError::Unknown {
            variable: name,
            known: known.collect::<Vec<_>>().join(", "),
        });
    };
    let value = text(&name, value)?;
    let begun = begun.get_or_insert_with(|| PartialSection {
        section: T::start(),
        has_required: T::REQUIRED.is_none(),
    });
    begun.has_required |= T::REQUIRED == Some(setting.name);
    (setting.set)(&mut begun.section, &value).ok_or_else(|| SettingsError::Value {
        variable: name,
        value: shown(&value).to_owned(),
        accepts: setting.accepts,
    })
}

fn complete<T: Section>(begun: Option<PartialSection<T>>) -> Result<Option<T>, SettingsError> {
    match begun {
        Some(PartialSection {
            has_required: false,
            ..
        }) => Err(SettingsError::Missing {
            variable: variable::<T>(T::REQUIRED.unwrap_or_default()),
        }),
        begun => Ok(begun.map(|begun| begun.section)),
    }
}

fn text(name: &str, value: OsString) -> Result<String, SettingsError> {
    value.into_string().map_err(|_| SettingsError::NotUnicode {
        variable: name.to_owned(),
    })
}

/// Returns whether Kubernetes makes this variable for a service that is named like the section.
fn is_of_kubernetes(name: &str, section: &str) -> bool {
    let rest = name.strip_prefix(section).unwrap_or_default();
    rest == "PORT" || rest.starts_with("PORT_") || rest.starts_with("SERVICE_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::MemoryConfig;
    use crate::coherence::limiter::Limits;
    use crate::read_through::VerifierConfig;
    use std::time::Duration;

    fn from(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        read(variables)
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        from(variables).unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_is_the_default() {
        let settings = from(&[("PATH", "/bin"), ("LAYERCACHE_MEMORY_TTL", "")]).unwrap();
        assert_eq!(
            format!("{settings:?}"),
            format!("{:?}", Settings::default())
        );
    }

    #[test]
    fn each_section_is_read() {
        let settings = from(&[
            ("LAYERCACHE_LAYOUT", "oci"),
            ("LAYERCACHE_ROOT", "zot"),
            ("LAYERCACHE_MEMORY_CAPACITY", "1GiB"),
            ("LAYERCACHE_MEMORY_TTL", "1min"),
            ("LAYERCACHE_LIMITS_LOADS", "7"),
            ("LAYERCACHE_VERIFIER_DELETES", "false"),
        ])
        .unwrap();
        let memory = MemoryConfig::default().with_capacity(1 << 30);
        assert_eq!(settings.memory, memory.with_ttl(Duration::from_secs(60)));
        assert_eq!(settings.limits, Limits::default().with_loads(7));
        let verifier = VerifierConfig::default().with_deletes(false);
        assert_eq!(settings.verifier, Some(verifier));
        let layout = format!("{:?}", settings.layout);
        assert!(
            layout.contains("OciImages") && layout.contains("zot"),
            "{layout}"
        );
    }

    #[test]
    fn an_error_names_the_variable_its_value_and_what_is_accepted() {
        let said = refused(&[("LAYERCACHE_MEMORY_TTL", "5 parsecs")]);
        for part in ["LAYERCACHE_MEMORY_TTL", "`5 parsecs`", "`50ms`"] {
            assert!(said.contains(part), "{said}");
        }
        let said = refused(&[("LAYERCACHE_LIMITS_LOAD", "1")]);
        assert!(said.contains("LAYERCACHE_LIMITS_LOADS"), "{said}");
        let said = refused(&[("LAYERCACHE_LAYOUT", "zot")]);
        assert!(
            said.contains("LAYERCACHE_LAYOUT") && said.contains("`oci`"),
            "{said}"
        );
        let said = refused(&[("LAYERCACHE_MEMORY_TTL", "redis://:s3cret@host")]);
        assert!(!said.contains("s3cret"), "{said}");
    }

    #[test]
    fn variables_of_the_application_and_of_kubernetes_are_left_alone() {
        let set = [
            ("LAYERCACHE_LISTEN", "x"),
            ("LAYERCACHE_PORT", "tcp://10.0.0.1:80"),
            ("LAYERCACHE_REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("LAYERCACHE_REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
            ("LAYERCACHE_REDIS_SERVICE_HOST", "10.0.0.1"),
        ];
        from(&set).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_unicode_is_refused_unless_it_is_the_applications_own() {
        use std::os::unix::ffi::OsStringExt;
        let value = || OsString::from_vec(vec![0xff]);
        let said = read([("LAYERCACHE_ROOT".into(), value())].into_iter()).unwrap_err();
        assert!(said.to_string().contains("LAYERCACHE_ROOT"), "{said}");
        read([("LAYERCACHE_X".into(), value()), (value(), value())].into_iter()).unwrap();
    }

    #[cfg(not(feature = "redis"))]
    #[test]
    fn a_redis_needs_the_feature() {
        let said = refused(&[("LAYERCACHE_REDIS_URL", "redis://:s3cret@host")]);
        assert!(
            said.contains("feature `redis`") && !said.contains("s3cret"),
            "{said}"
        );
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_redis_has_an_address_that_is_never_shown() {
        use crate::cache::RedisConfig;
        use crate::coherence::change::ChangePolicy;
        let url = ("LAYERCACHE_REDIS_URL", "redis://:s3cret@host");
        let policy = ("LAYERCACHE_REDIS_CHANGE_POLICY", "best-effort");
        let settings = from(&[url, policy, ("LAYERCACHE_REDIS_NAMESPACE", "a")]).unwrap();
        let redis = RedisConfig::new(url.1).with_change_policy(ChangePolicy::BestEffort);
        assert_eq!(settings.redis, Some(redis.with_namespace("a")));
        assert!(!format!("{settings:?}").contains("s3cret"));

        let said = refused(&[policy]);
        assert!(said.contains("LAYERCACHE_REDIS_URL is not set"), "{said}");
        let said = refused(&[url, ("LAYERCACHE_REDIS_CHANGE_POLICY", "none")]);
        assert!(
            said.contains("`best-effort`") && !said.contains("s3cret"),
            "{said}"
        );
        let said = refused(&[("LAYERCACHE_REDIS", url.1)]);
        assert!(
            said.contains("LAYERCACHE_REDIS_URL") && !said.contains("s3cret"),
            "{said}"
        );
    }
}
