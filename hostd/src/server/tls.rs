//! The API over the network: TLS in which both sides show a certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use bennu_api::provision::ProvisionApi;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client has to finish its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many handshakes are under way at once; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 32;

/// Why the network API could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate or key of the provisioning document can't be used.
    #[error("the {what} of the provisioning document can't be used: {reason}")]
    Unusable {
        /// Which one.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The address can't be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// Accepts connections whose client showed a certificate of the operators' authority; all others end in the handshake
/// and never reach a route.
#[derive(Debug)]
pub(super) struct MutualTls {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl MutualTls {
    /// Listens.
    ///
    /// # Errors
    /// Where the certificates can't be used or the address is taken.
    pub(super) async fn bind(api: &ProvisionApi) -> Result<Self, TlsError> {
        let acceptor = TlsAcceptor::from(Arc::new(config(api)?));
        let listener = TcpListener::bind(api.listen)
            .await
            .map_err(|source| TlsError::Listen { address: api.listen, source })?;
        let (sender, ready) = mpsc::channel(1);
        tokio::spawn(handshakes(listener, acceptor, sender));
        Ok(Self { address: api.listen, ready })
    }
}

/// Each handshake is a task of its own, so that a client that says nothing keeps nobody else out.
async fn handshakes(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, say: waiting lets connections end.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
                Ok(Err(error)) => tracing::info!(%peer, %error, "handshake refused"),
                Err(_) => tracing::info!(%peer, "handshake not finished in time"),
            }
        });
    }
}

fn config(api: &ProvisionApi) -> Result<ServerConfig, TlsError> {
    let unusable = |what: &'static str| {
        move |error: &dyn std::fmt::Display| TlsError::Unusable { what, reason: error.to_string() }
    };
    let certificates = |pem: &str, what: &'static str| {
        let list = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        match list {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(unusable(what)(&"it holds no certificate")),
            Err(error) => Err(unusable(what)(&error)),
        }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&api.client_ca, "client-ca")? {
        roots.add(certificate).map_err(|e| unusable("client-ca")(&e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| unusable("client-ca")(&e))?;
    let chain = certificates(&api.certificate, "certificate")?;
    let key = PrivateKeyDer::from_pem_slice(api.key.as_bytes()).map_err(|e| unusable("key")(&e))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable("key")(&e))?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|e| unusable("certificate")(&e))
}

impl Listener for MutualTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.ready.recv().await.expect("the accepting task never ends and keeps a sender")
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}
