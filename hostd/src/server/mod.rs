//! The API: one set of routes, on a Unix socket of the host and, where it was provisioned, under mutual TLS.
//!
//! **Invariant:** there is no way in without either root on this host or a certificate of the operators' authority;
//! and a manifest needs valid signatures besides. No request is answered that the client's role does not allow
//! ([`bennu_api::Operation`] says which).

mod caller;
mod copy;
mod metrics;
mod routes;
mod stream;
mod talk;
mod tls;
mod updates;
mod volumes;

use std::path::Path;
use std::sync::Arc;

use bennu_api::provision::ProvisionApi;
use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;

use crate::core::Core;
use caller::Caller;
use tls::MutualTls;
pub use tls::TlsError;

/// Why the API could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket can't be made.
    #[error("listen on {path}")]
    Socket {
        /// Where.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The network API can't be set up.
    #[error("serve the API over the network")]
    Network(#[from] TlsError),
    /// A server ended.
    #[error("the API server ended")]
    Ended(#[source] std::io::Error),
}

/// The API, listening.
#[derive(Debug)]
pub struct Server {
    local: UnixListener,
    network: Option<MutualTls>,
}

impl Server {
    /// Listens on the socket and, where the host was provisioned for it, on the network. Clients may connect when this
    /// returns; they are answered once [`Server::run`] runs.
    ///
    /// # Errors
    /// Where a socket can't be listened on or a certificate can't be used.
    pub async fn bind(api: Option<&ProvisionApi>, socket: &Path) -> Result<Self, ServeError> {
        let local = bind(socket).map_err(|source| ServeError::Socket { path: socket.to_owned(), source })?;
        let network = match api {
            Some(api) => Some(MutualTls::bind(api).await?),
            None => None,
        };
        Ok(Self { local, network })
    }

    /// Answers until a server fails.
    ///
    /// # Errors
    /// What made it fail.
    pub async fn run(self, core: Arc<Core>) -> Result<(), ServeError> {
        self.serve(routes::routes(core)).await
    }

    /// Answers everybody who may ask anything with the same words, for as long as the daemon can't do more.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub async fn tell(self, what: &str) -> Result<(), ServeError> {
        self.serve(routes::only(what)).await
    }

    async fn serve(self, routes: axum::Router) -> Result<(), ServeError> {
        let app = routes.into_make_service_with_connect_info::<Caller>();
        let local = axum::serve(self.local, app.clone()).into_future();
        match self.network {
            Some(network) => {
                let network = axum::serve(network, app).into_future();
                tokio::try_join!(local, network).map(|_| ())
            }
            None => local.await,
        }
        .map_err(ServeError::Ended)
    }
}

/// For root alone, from its first moment: the mask is in force while the socket is made.
fn bind(socket: &Path) -> std::io::Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(socket);
    umask(before);
    listener
}
