//! One upload: what was received of a blob.

use crate::error::Error;
use crate::limits::Limits;
use layercache::{Digest, RepositoryName};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest as _, Sha256, Sha512};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use uuid::Uuid;

/// Smaller blobs are written at once, larger ones in parts of this size. S3 takes 10,000 parts, and
/// none but the last may be smaller.
const PART: usize = 8 << 20;

/// How many parts are under way at the same time.
const PARALLEL: usize = 2;

pub(crate) struct Session {
    id: Uuid,
    repository: RepositoryName,
    store: Arc<dyn ObjectStore>,
    path: Path,
    state: State,
    // Which of the two the client means is known at the end only.
    sha256: Sha256,
    sha512: Sha512,
    received: u64,
    last: Option<Chunk>,
    limits: Limits,
    last_used: Instant,
    closing: watch::Receiver<()>,
}

/// Where the last chunk began, and the hash of all before it.
struct Chunk {
    start: u64,
    before: Sha256,
}

enum State {
    Open(BufWriter),
    /// The store has lost a part.
    Failed(BufWriter),
    /// All is at the path, or nothing is known of it.
    Closed,
}

impl Session {
    pub(super) fn new(
        id: Uuid,
        repository: RepositoryName,
        store: Arc<dyn ObjectStore>,
        path: Path,
        limits: Limits,
        closing: watch::Receiver<()>,
    ) -> Self {
        let writer = BufWriter::with_capacity(Arc::clone(&store), path.clone(), PART);
        Self {
            id,
            repository,
            store,
            path,
            state: State::Open(writer.with_max_concurrency(PARALLEL)),
            sha256: Sha256::new(),
            sha512: Sha512::new(),
            received: 0,
            last: None,
            limits,
            last_used: Instant::now(),
            closing,
        }
    }

    pub(super) const fn id(&self) -> Uuid {
        self.id
    }

    pub(super) const fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Where the content is once it is [complete](Self::complete).
    pub(super) const fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) const fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) const fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Changes when the registry stops and waits for nobody any more.
    pub(super) fn closing(&self) -> watch::Receiver<()> {
        self.closing.clone()
    }

    pub(super) const fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// Whether all of it is stored: nothing more is appended.
    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// What comes from here on is one chunk.
    pub(super) fn begin_chunk(&mut self) {
        self.last = Some(Chunk {
            start: self.received,
            before: self.sha256.clone(),
        });
    }

    /// The hash of what was before the last chunk, if that was this range: who has had no answer sends it
    /// once more.
    pub(super) fn before_last(&self, range: &RangeInclusive<u64>) -> Option<Sha256> {
        let last = self.last.as_ref()?;
        let is_last =
            last.start == *range.start() && self.received.checked_sub(1) == Some(*range.end());
        is_last.then(|| last.before.clone())
    }

    /// Whether what was hashed is all that was received.
    pub(super) fn is_all(&self, hash: Sha256) -> bool {
        hash.finalize() == self.sha256.clone().finalize()
    }

    /// Appends a piece. May be dropped at any time: what was written is hashed and counted, the
    /// rest is not.
    pub(super) async fn append(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        while !piece.is_empty() {
            let State::Open(writer) = &mut self.state else {
                return Err(Error::UploadInvalid("it has ended"));
            };
            let count = match writer.write(piece).await {
                Ok(count) => count,
                Err(error) => {
                    self.fail();
                    return Err(error.into());
                }
            };
            let (written, rest) = piece.split_at(count);
            self.sha256.update(written);
            self.sha512.update(written);
            self.received += count as u64;
            self.last_used = Instant::now();
            piece = rest;
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(writer) => State::Failed(writer),
            state => state,
        };
    }

    /// Whether `digest` is the name of what was received.
    pub(super) fn is_of(&self, digest: &Digest) -> bool {
        match digest {
            Digest::Sha256(hash) => self.sha256.clone().finalize()[..] == hash[..],
            Digest::Sha512(hash) => self.sha512.clone().finalize()[..] == hash[..],
        }
    }

    /// Writes what is not yet written. Must not be dropped. Another time it does nothing.
    pub(super) async fn complete(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(mut writer) => Ok(writer.shutdown().await?),
            State::Failed(_) => Err(Error::UploadInvalid("it has failed")),
            State::Closed => Ok(()),
        }
    }

    /// Leaves nothing of it in the store.
    pub(super) async fn discard(&mut self) {
        let discarded = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(mut writer) => {
                // What is being begun has to have begun before it can be given up.
                match writer.flush().await {
                    Ok(()) => writer.abort().await.map_err(Error::from),
                    Err(error) => Err(error.into()),
                }
            }
            State::Failed(mut writer) => writer.abort().await.map_err(Error::from),
            State::Closed => match self.store.delete(&self.path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted.map_err(Error::from),
            },
        };
        if let Err(error) = discarded {
            tracing::warn!(%error, path = %self.path, "an upload is left over");
        }
    }
}
