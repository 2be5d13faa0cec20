//! How a script is called, by its hash or with its text.

use ::redis::{Pipeline, Script};
use std::fmt;

/// The text of a script, and the hash by which a server knows it.
pub(crate) struct Source {
    pub(crate) text: String,
    pub(crate) hash: String,
}

impl Source {
    pub(crate) fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        #[cfg(layercache_bends)]
        let text = crate::cache::redis::bent_scripts::bent(text);
        let hash = Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hash)
    }
}

/// Whether a call names its script by hash or by text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ScriptForm {
    Hash,
    Text,
}

impl ScriptForm {
    pub(crate) fn push<'a>(self, pipeline: &'a mut Pipeline, script: &Source) -> &'a mut Pipeline {
        match self {
            Self::Hash => pipeline.cmd("EVALSHA").arg(&script.hash),
            Self::Text => pipeline.cmd("EVAL").arg(&script.text),
        }
    }
}
