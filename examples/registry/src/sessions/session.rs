//! The state of one upload: the bytes of a blob that were received so far.

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

/// The size of a part, in bytes. A smaller blob is written in one request, a larger one in parts of
/// this size. S3 takes at most 10,000 parts, and only the last one may be smaller than the others.
const PART: usize = 8 << 20;

/// How many parts are written at the same time.
const PARALLEL: usize = 2;

pub(crate) struct Session {
    id: Uuid,
    repository: RepositoryName,
    store: Arc<dyn ObjectStore>,
    path: Path,
    state: State,
    // The client names the algorithm only at the end, so both hashes are computed.
    sha256: Sha256,
    sha512: Sha512,
    received: u64,
    last: Option<Chunk>,
    limits: Limits,
    last_used: Instant,
    closing: watch::Receiver<()>,
}

/// The last chunk: where it began, and the hash of all bytes before it.
struct Chunk {
    start: u64,
    before: Sha256,
}

enum State {
    Open(BufWriter),
    /// The store could not write a part.
    Failed(BufWriter),
    /// The content is complete at the path, or the outcome of writing it is unknown.
    Closed,
}

impl Session {
    pub(crate) fn new(
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

    pub(crate) const fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) const fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// Returns the path of the content. The content is at this path once it is
    /// [complete](Self::complete).
    pub(crate) const fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    pub(crate) const fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) const fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Returns a channel that changes when the registry stops and no longer waits for clients.
    pub(crate) fn closing(&self) -> watch::Receiver<()> {
        self.closing.clone()
    }

    pub(crate) const fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// Returns whether all bytes are stored. Then nothing can be appended.
    pub(crate) const fn is_complete(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Begins a chunk: all bytes from here on belong to it.
    pub(crate) fn begin_chunk(&mut self) {
        self.last = Some(Chunk {
            start: self.received,
            before: self.sha256.clone(),
        });
    }

    /// Returns the hash of all bytes before the last chunk, if `range` is the last chunk. A client
    /// that got no answer sends that chunk again.
    pub(crate) fn before_last(&self, range: &RangeInclusive<u64>) -> Option<Sha256> {
        let last = self.last.as_ref()?;
        let is_last =
            last.start == *range.start() && self.received.checked_sub(1) == Some(*range.end());
        is_last.then(|| last.before.clone())
    }

    /// Returns whether `hash` covers exactly the received bytes.
    pub(crate) fn is_all(&self, hash: Sha256) -> bool {
        hash.finalize() == self.sha256.clone().finalize()
    }

    /// Appends a piece. The caller may drop the future at any time. The session has then hashed and
    /// counted the bytes that it wrote, and no others.
    pub(crate) async fn append(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        while !piece.is_empty() {
            let State::Open(writer) = &mut self.state else {
                return Err(Error::UploadInvalid("the upload has ended"));
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

    /// Returns whether the received bytes have this `digest`. Returns `false` for another algorithm.
    pub(crate) fn is_of(&self, digest: &Digest) -> bool {
        match digest {
            Digest::Sha256(hash) => self.sha256.clone().finalize()[..] == hash[..],
            Digest::Sha512(hash) => self.sha512.clone().finalize()[..] == hash[..],
            _ => false,
        }
    }

    /// Writes the bytes that are still in memory. The caller must not drop the future. A second
    /// call does nothing.
    pub(crate) async fn complete(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(mut writer) => Ok(writer.shutdown().await?),
            State::Failed(_) => Err(Error::UploadInvalid("the upload has failed")),
            State::Closed => Ok(()),
        }
    }

    /// Removes the content of the upload from the store.
    pub(crate) async fn discard(&mut self) {
        let discarded = match std::mem::replace(&mut self.state, State::Closed) {
            State::Open(mut writer) => {
                // A multipart upload that is being created must be created before it can be
                // aborted.
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
            tracing::warn!(%error, path = %self.path, "the content of an upload was not removed");
        }
    }
}
