//! A WHOLE SERVER: connections with timeouts and a bound on them, and an end that waits for answers in
//! hand.

use crate::lm::cancel::Cancel;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// Connections at the same time; others wait to be taken.
const CONNECTIONS_MAX: usize = 1024;
/// A request's head is there within this time, or its sender is gone.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How a server is run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerSettings {
    /// How long the end waits for answers in hand.
    pub end_patience: Duration,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings { end_patience: Duration::from_secs(10) }
    }
}

/// Where a server listens.
#[derive(Debug)]
pub enum Listening {
    /// On an address.
    Tcp(TcpListener),
    /// On a Unix socket, which goes when the server does.
    Unix(UnixListener, PathBuf),
}

impl Listening {
    /// Listens on an address; 0 is any free port.
    ///
    /// # Errors
    /// What the system says.
    pub async fn tcp(address: SocketAddr) -> std::io::Result<Listening> {
        TcpListener::bind(address).await.map(Listening::Tcp)
    }

    /// Listens on a Unix socket that its owner alone may use.
    ///
    /// # Errors
    /// What the system says; there must be nothing of that name.
    pub fn unix(path: &Path) -> std::io::Result<Listening> {
        use std::os::unix::fs::PermissionsExt;
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Listening::Unix(socket, path.to_owned()))
    }

    /// The address, where it is one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Listening::Tcp(listener) => listener.local_addr().ok(),
            Listening::Unix(..) => None,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Listening::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn stopped(stop: &Cancel) {
    while !stop.is_cancelled() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Serves until `stop` is set; answers in hand are waited for then.
pub async fn serve(router: Router, listening: Listening, settings: ServerSettings, stop: Cancel) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let connection: std::io::Result<Box<dyn Connection>> = match &listening {
                Listening::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // Tokens are told one by one.
                    let _ = stream.set_nodelay(true);
                    Box::new(stream) as Box<dyn Connection>
                }),
                Listening::Unix(listener, _) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Box::new(stream) as Box<dyn Connection>),
            };
            let connection = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of file handles, say: those that are open go on.
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
            let service = TowerToHyperService::new(router.clone());
            let served = builder.serve_connection(TokioIo::new(connection), service).into_owned();
            let served = graceful.watch(served);
            tokio::spawn(async move {
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = stopped(&stop) => {}
    }
    drop(listening);
    if tokio::time::timeout(settings.end_patience, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections that did not end were cut");
    }
}

/// Bytes both ways.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}
