//! [`Settings`]: all settings of a store's cache, from a file or from the environment; and how the
//! builders use them.

mod core_builder;
mod environment;
#[cfg(feature = "serde")]
mod file;

pub(crate) use core_builder::{CoreBuilder, core_setters};
pub use environment::SettingsError;

use crate::cache::MemoryConfig;
#[cfg(feature = "redis")]
use crate::cache::RedisConfig;
use crate::coherence::limiter::Limits;
use crate::layout::{Distribution, Layout};
use crate::read_through::VerifierConfig;
use std::sync::Arc;

/// All settings of a [`CachedStore`](crate::CachedStore), as an operator chooses them.
///
/// The settings come from environment variables ([`from_env`](Self::from_env)) or, with the feature
/// `serde`, from a file: `Settings` and each of its sections implement `Deserialize`. The names are
/// the same in both: the setting `timeout` of the section `redis` is the variable
/// `LAYERCACHE_REDIS_TIMEOUT`. [`guide::settings`](crate::guide::settings#all-settings) lists all of
/// them. What is not set has its default.
///
/// | value | how it is written |
/// |---|---|
/// | a time | with its unit: `50ms`, `2s`, `5min`, `1day` |
/// | a size in bytes | `67108864`, `512KiB`, `64MiB`, `1GiB` |
/// | a share | a number from 0 to 1 |
/// | a layout | as [`layout::parse`](crate::layout::parse) reads it, with its root in `root` |
///
/// ```no_run
/// use layercache::{CachedStore, Settings};
/// use object_store::memory::InMemory;
///
/// // LAYERCACHE_REDIS_URL=redis://redis.internal LAYERCACHE_MEMORY_CAPACITY=256MiB
/// let settings = Settings::from_env()?;
/// let store = CachedStore::builder(InMemory::new()).settings(settings).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The application can read the sections and change them before it uses them:
///
/// ```
/// use layercache::layout::Layout;
/// use layercache::{Limits, MemoryConfig, Settings};
/// # use layercache::Digest;
///
/// let settings = Settings::default();
/// let memory = settings.memory().with_capacity(1 << 30);
/// assert_eq!(memory, MemoryConfig::default().with_capacity(1 << 30));
/// assert_eq!(settings.limits(), Limits::default());
/// assert_eq!(settings.verifier(), None);
/// # #[cfg(feature = "redis")]
/// assert_eq!(settings.redis(), None);
/// # let digest = Digest::Sha256([0; 32]);
/// assert!(settings.layout().blob_path(&digest).is_some());
/// ```
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) layout: Arc<dyn Layout>,
    pub(crate) memory: MemoryConfig,
    pub(crate) limits: Limits,
    pub(crate) verifier: Option<VerifierConfig>,
    #[cfg(feature = "redis")]
    pub(crate) redis: Option<RedisConfig>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            layout: Arc::new(Distribution::default()),
            memory: MemoryConfig::default(),
            limits: Limits::default(),
            verifier: None,
            #[cfg(feature = "redis")]
            redis: None,
        }
    }
}

impl Settings {
    /// Reads the settings from the environment variables that begin with `LAYERCACHE_`.
    ///
    /// A variable that is empty counts as not set. A Redis is used if `LAYERCACHE_REDIS_URL` is set,
    /// and a verifier if any `LAYERCACHE_VERIFIER_…` is set. Variables that belong to no section, such
    /// as `LAYERCACHE_LISTEN`, are for the application. Variables that Kubernetes makes for a service
    /// named `layercache-redis`, such as `LAYERCACHE_REDIS_PORT`, are left alone too.
    ///
    /// # Errors
    /// Returns a [`SettingsError`] for a value that its setting does not accept, and for an unknown
    /// setting of a section. The error names the variable, but never shows the address of Redis. Whether a
    /// time is within its bounds is checked when the cache is made.
    pub fn from_env() -> Result<Self, SettingsError> {
        environment::read(std::env::vars_os())
    }

    /// Returns the layout of the store's paths.
    pub fn layout(&self) -> Arc<dyn Layout> {
        Arc::clone(&self.layout)
    }

    /// Returns the settings of the memory tier.
    pub const fn memory(&self) -> MemoryConfig {
        self.memory
    }

    /// Returns the limits on concurrent loads and changes.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the settings of the verifier, if there is to be one.
    pub const fn verifier(&self) -> Option<VerifierConfig> {
        self.verifier
    }

    /// Returns the settings of the Redis tier, if a Redis is named.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub const fn redis(&self) -> Option<&RedisConfig> {
        self.redis.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::setting::Section;

    const GUIDE: &str = include_str!("../guide/settings.md");

    /// Compares the table of a section with the setters in its file and with the rows of the guide.
    fn is_complete<T: Section>(file: &str, owner: &str) {
        let setters = file
            .split("pub fn with_")
            .chain(file.split("pub const fn with_"));
        let mut setters: Vec<_> = setters
            .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
            .filter(|name| file.contains(&format!("fn with_{name}(")))
            // No text can name code.
            .filter(|name| *name != "connector")
            .chain(T::REQUIRED)
            .collect();
        let mut table: Vec<_> = T::SETTINGS.iter().map(|setting| setting.name).collect();
        setters.sort_unstable();
        table.sort_unstable();
        assert_eq!(table, setters, "{}", T::NAME);
        for name in table {
            let variable = environment::variable::<T>(name);
            let method = match T::REQUIRED == Some(name) {
                true => "new".to_owned(),
                false => format!("with_{name}"),
            };
            let row = format!(
                "| [`{}.{name}`](crate::{owner}::{method}) | `{variable}` |",
                T::NAME
            );
            assert!(GUIDE.contains(&row), "guide/settings.md has no row {row}");
        }
    }

    #[test]
    fn every_setter_has_a_name_a_variable_and_a_row_in_the_guide() {
        is_complete::<MemoryConfig>(include_str!("../cache/memory/config.rs"), "MemoryConfig");
        is_complete::<Limits>(include_str!("../coherence/limiter.rs"), "Limits");
        let verifier = include_str!("../read_through/verifier/config.rs");
        is_complete::<VerifierConfig>(verifier, "VerifierConfig");
        #[cfg(feature = "redis")]
        is_complete::<RedisConfig>(include_str!("../cache/redis/config.rs"), "RedisConfig");
        for name in ["LAYOUT", "ROOT"] {
            let setting = name.to_lowercase();
            assert!(GUIDE.contains(&format!(
                "| [`{setting}`](crate::layout::parse) | `LAYERCACHE_{name}` |"
            )));
        }
    }
}
