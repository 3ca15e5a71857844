//! An issuer's published keys, kept fresh: a JWK set in a file or at a URL.
//!
//! Who verifies a token never waits for a fetch. A token whose key is not known is refused at once and the set is
//! asked for in the background, so that the client's next attempt finds the key. However many such tokens come,
//! the set is fetched for their sake once per [`COOL_DOWN`], one fetch at a time, and for the sake of one name
//! once a minute. A fetch that fails leaves the keys as they were.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::VerifyingKey;
use super::jwks::{self, Keys};

/// The longest document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// How long a fetch may take, from the name's look-up to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two fetches for the sake of unknown names, and between attempts while fetching fails.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// The first pause between attempts while there has been no document at all; the next ones double.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// For how long a name that was not there is not asked for again.
const ABSENT_FOR: Duration = Duration::from_secs(60);
/// How many such names are remembered.
const ABSENT_MAX: usize = 1024;

/// Where a JWK set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A URL, `https` or on this machine.
    Url(String),
}

/// Why a JWK set could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// The server cannot be reached, or breaks off.
    #[error("{0}")]
    Unreachable(String),
    /// The server answers something else than the document. A redirect is not followed.
    #[error("the answer is {0}")]
    Status(u16),
    /// The document is longer than 256 KiB.
    #[error("it is longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// It took longer than 5 s.
    #[error("no answer within {FETCH_TIMEOUT:?}")]
    TooSlow,
    /// The document is no JWK set.
    #[error("it is no JWK set: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// A JWK set and what is known of it.
pub struct KeySet {
    place: Place,
    algorithms: Box<[Algorithm]>,
    /// How often the set is fetched without anybody asking.
    refresh: Duration,
    /// The keys of the last good fetch. `None` before the first.
    keys: RwLock<Option<Arc<Keys>>>,
    absent: Mutex<Absent>,
    wanted: Notify,
}

/// Names that were asked for and are not there, as far as is known.
struct Absent {
    names: HashSet<Box<str>>,
    since: Instant,
}

impl KeySet {
    /// A set that has not been fetched yet.
    pub fn new(place: Place, algorithms: impl Into<Box<[Algorithm]>>, refresh: Duration) -> Self {
        Self {
            place,
            algorithms: algorithms.into(),
            refresh,
            keys: RwLock::default(),
            absent: Mutex::new(Absent { names: HashSet::new(), since: Instant::now() }),
            wanted: Notify::new(),
        }
    }

    /// This set, with what is known by `running`, of the same place, as far as it holds here too; or `running`
    /// itself, where nothing is different. A file was read again just now, and what it says counts.
    pub(crate) fn successor_of(self: &Arc<Self>, running: &Arc<Self>) -> Arc<Self> {
        if let Place::File(_) = self.place {
            return Arc::clone(self);
        }
        if self.algorithms == running.algorithms && self.refresh == running.refresh {
            return Arc::clone(running);
        }
        if let Some(keys) = running.keys() {
            let is_allowed = |key: &VerifyingKey| self.algorithms.contains(&key.algorithm);
            let keys = keys.iter().filter(|(_, key)| is_allowed(key));
            self.replace(keys.map(|(kid, key)| (kid.clone(), Arc::clone(key))).collect());
        }
        Arc::clone(self)
    }

    /// Reads the set if it is a file, as a configuration does before anything starts.
    ///
    /// # Errors
    /// [`FetchError`], for a file.
    pub fn read_file(&self) -> Result<(), FetchError> {
        if let Place::File(path) = &self.place {
            self.replace(self.parse(&read(path)?)?);
        }
        Ok(())
    }

    /// Where the set is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether it was ever fetched.
    pub(crate) fn is_known(&self) -> bool {
        self.keys().is_some()
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys().map_or(0, |keys| keys.len())
    }

    /// The key of this name.
    pub(super) fn find(&self, kid: &str) -> Option<Arc<VerifyingKey>> {
        self.keys()?.get(kid).cloned()
    }

    /// Any key; of use where there is only one.
    pub(super) fn any(&self) -> Option<Arc<VerifyingKey>> {
        self.keys()?.values().next().cloned()
    }

    /// Somebody has a token by a key of this name, which is not here.
    pub(super) fn ask_for(&self, kid: &str) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.since.elapsed() >= ABSENT_FOR {
            absent.clear();
        }
        if absent.names.contains(kid) {
            return;
        }
        // A name that is not remembered for lack of room may be asked for again: the cool-down bounds that, too.
        if absent.names.len() < ABSENT_MAX {
            absent.names.insert(kid.into());
        }
        self.wanted.notify_one();
    }

    /// Fetches the set now and whenever it should be, for as long as it is polled. Within an actix system.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        self.keep_fresh_by(async || self.fetch().await).await;
    }

    /// Fetches the set once, and says how many of its keys are of use. Within an actix system.
    ///
    /// # Errors
    /// [`FetchError`]
    pub(crate) async fn fetch_once(&self) -> Result<usize, FetchError> {
        self.replace(self.fetch().await?);
        Ok(self.len())
    }

    pub(super) async fn keep_fresh_by(&self, fetch: impl AsyncFn() -> Result<Keys, FetchError>) {
        let mut first_pause = FIRST_PAUSE;
        let mut ask_not_before = Instant::now();
        loop {
            let pause = match fetch().await {
                Ok(keys) => {
                    self.replace(keys);
                    self.refresh
                }
                Err(error) => {
                    tracing::warn!(place = %self.place, %error, is_known = self.is_known(), "cannot fetch a JWK set: keeping what there is");
                    // Nothing is known to be absent.
                    self.absent.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    ask_not_before = ask_not_before.max(Instant::now() + COOL_DOWN);
                    let pause = if self.is_known() { COOL_DOWN } else { first_pause };
                    first_pause = (first_pause * 2).min(COOL_DOWN);
                    pause
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.asked(ask_not_before) => ask_not_before = Instant::now() + COOL_DOWN,
            }
        }
    }

    /// Waits until somebody has asked for a key, and until that may be followed.
    async fn asked(&self, not_before: Instant) {
        self.wanted.notified().await;
        sleep_until(not_before).await;
    }

    async fn fetch(&self) -> Result<Keys, FetchError> {
        let document = match &self.place {
            Place::File(path) => read(path)?,
            // Fetched so rarely, the set is worth no connection kept open.
            Place::Url(url) => {
                timeout(FETCH_TIMEOUT, download(url)).await.unwrap_or(Err(FetchError::TooSlow))?
            }
        };
        Ok(self.parse(&document)?)
    }

    fn parse(&self, document: &[u8]) -> Result<Keys, serde_json::Error> {
        jwks::parse(document, &self.algorithms)
    }

    pub(super) fn replace(&self, fresh: Keys) {
        let fresh = Arc::new(fresh);
        let old = self.keys.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(&fresh));
        let names = |keys: &Keys| keys.keys().cloned().collect::<HashSet<_>>();
        if old.is_none_or(|old| names(&old) != names(&fresh)) {
            tracing::info!(place = %self.place, keys = fresh.len(), "a JWK set has changed");
        }
    }

    fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Absent {
    fn clear(&mut self) {
        self.names.clear();
        self.since = Instant::now();
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("place", &self.place)
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, FetchError> {
    use std::io::Read as _;
    let mut document = Vec::new();
    std::fs::File::open(path)?.take(DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut document)?;
    if document.len() > DOCUMENT_BYTES_MAX { Err(FetchError::TooLong) } else { Ok(document) }
}

async fn download(url: &str) -> Result<Vec<u8>, FetchError> {
    use awc::error::PayloadError;
    let client = awc::Client::builder().disable_redirects().timeout(FETCH_TIMEOUT).finish();
    let answer = client.get(url).insert_header(("accept", "application/json")).send().await;
    let mut answer = answer.map_err(|error| FetchError::Unreachable(error.to_string()))?;
    if answer.status() != awc::http::StatusCode::OK {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    match answer.body().limit(DOCUMENT_BYTES_MAX).await {
        Ok(document) => Ok(document.into()),
        Err(PayloadError::Overflow) => Err(FetchError::TooLong),
        Err(error) => Err(FetchError::Unreachable(error.to_string())),
    }
}
