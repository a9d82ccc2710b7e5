//! A blob on its way.
//!
//! What breaks off goes on where it stopped, at the same place or at the next, so whoever takes the bytes does not notice. Nothing
//! is said about what they are: that is for the digest to say.

use std::collections::VecDeque;

use bennu_manifests::model::Digest;
use bytes::{Buf, Bytes};

use super::client::{Client, Repository};
use super::error::RegistryError;
use super::http::Response;
use super::mirror::Place;
use super::retry::MAX_TRIES;

/// Bytes that one try has to bring for the next one to count as the first again. One that lets a few through each time would keep us
/// for ever otherwise.
const PROGRESS: u64 = 64 << 10;
/// The largest piece that is given at once, in bytes: who has so many pieces waiting knows what they take.
pub(crate) const MAX_PIECE: usize = 64 << 10;

/// The bytes of a blob of known size.
#[derive(Debug)]
pub(crate) struct Blob {
    client: Client,
    repository: Repository,
    digest: Digest,
    size: u64,
    /// Where it will be asked for next, the first first.
    places: VecDeque<Place>,
    /// What is being read, and bytes of it that have been given already.
    from: Option<(Response, u64)>,
    /// What was read and not given yet.
    read: Bytes,
    given: u64,
    /// How often the registry has failed since there was progress, and bytes given since then.
    failed: u32,
    since: u64,
    /// The mirrors that some of the bytes came from, in their order.
    givers: Vec<String>,
}

impl Client {
    /// A blob of `size` bytes. Nothing is asked before its first piece is.
    pub(crate) fn blob(&self, repository: &Repository, digest: &Digest, size: u64) -> Blob {
        Blob {
            client: self.clone(),
            repository: repository.clone(),
            digest: *digest,
            size,
            places: self.places(repository, false).into(),
            from: None,
            read: Bytes::new(),
            given: 0,
            failed: 0,
            since: 0,
            givers: Vec::new(),
        }
    }
}

impl Blob {
    /// The next piece, which is not empty and has at most [`MAX_PIECE`] bytes; `None` after all bytes.
    ///
    /// # Errors
    /// What the registry itself did last, where its mirrors could not help.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if !self.read.is_empty() {
                let piece = self.read.split_to(self.read.len().min(MAX_PIECE));
                return Ok(Some(piece));
            }
            match self.read().await {
                Ok(Some(read)) => self.read = read,
                Ok(None) => return Ok(None),
                Err(error) => self.go_on(error).await?,
            }
        }
    }

    /// Whether a mirror gave some of the bytes, which then were not the right ones. It will not be asked for a while. Of several it
    /// is the first: who gives something else has more reason to break off than who goes on with it.
    pub(crate) fn blame(&mut self) -> bool {
        let Some(mirror) = self.givers.first() else { return false };
        let lie = RegistryError::Insecure { reason: format!("what was given as {} is not it", self.digest) };
        self.client.pass_over(mirror, &lie);
        true
    }

    /// Bytes that have not been given yet; `None` at the end.
    async fn read(&mut self) -> Result<Option<Bytes>, RegistryError> {
        if self.from.is_none() {
            if self.given == self.size {
                return Ok(None);
            }
            self.from = Some(self.open().await?);
        }
        let (response, skip) = self.from.as_mut().expect("opened above");
        let complete = self.given == self.size;
        let mut piece = match response.chunk().await {
            Ok(Some(piece)) => piece,
            // Whatever became of the connection after the last byte does not matter.
            Ok(None) | Err(_) if complete => return Ok(None),
            Ok(None) => return Err(self.broken_off()),
            Err(error) => return Err(error.into()),
        };
        let skipped = (*skip).min(piece.len() as u64);
        *skip -= skipped;
        piece.advance(skipped as usize);
        let bytes = piece.len() as u64;
        if bytes > self.size - self.given {
            return Err(RegistryError::TooLarge { what: self.digest.to_string(), limit: self.size });
        }
        self.given += bytes;
        self.since += bytes;
        if let Some(Place { mirror: Some(mirror), .. }) = self.places.front()
            && bytes > 0
            && !self.givers.contains(mirror)
        {
            self.givers.push(mirror.clone());
        }
        Ok(Some(piece))
    }

    /// Asks for what is missing. The second value is how many bytes come that are here already.
    async fn open(&mut self) -> Result<(Response, u64), RegistryError> {
        let place = self.places.front().expect("the registry itself is always left");
        let what = format!("blobs/{}", self.digest);
        if self.given == 0 {
            return Ok((self.client.get(place, &what, &[]).await?, 0));
        }
        let rest = self.given..self.size;
        match self.client.get_part(place, &what, &[], Some(rest.clone())).await {
            Ok(response) if response.is_range(&rest) => Ok((response, 0)),
            Ok(whole) => Ok((whole, self.given)),
            // Other parts than those that were asked for, or none at all: the whole is not refused for that.
            Err(RegistryError::Status { status: 206 | 416, .. }) => {
                Ok((self.client.get(place, &what, &[]).await?, self.given))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes ready for the next try, after a pause where one is due.
    async fn go_on(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.from = None;
        if let Some(Place { mirror: Some(mirror), .. }) = self.places.front() {
            self.client.pass_over(mirror, &error);
            self.places.pop_front();
            return Ok(());
        }
        if self.since >= PROGRESS {
            self.failed = 0;
        }
        self.since = 0;
        self.failed += 1;
        if !error.is_retryable() || self.failed == MAX_TRIES {
            return Err(error);
        }
        self.client.pause(self.failed, &error).await;
        self.places = self.client.places(&self.repository, true).into();
        Ok(())
    }

    fn broken_off(&self) -> RegistryError {
        RegistryError::Truncated { what: self.digest.to_string(), expected: self.size, found: self.given }
    }
}
