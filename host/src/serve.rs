//! `wafer serve`: checks the model, accepts connections, stops gracefully.
//!
//! Two sets of threads: one moves HTTP, the other runs guests. A guest computes for seconds, and
//! although it yields every few milliseconds, a queue of such slices in front of every read and write
//! would be felt; the operating system's scheduler interleaves the two sets better than one executor
//! can. What happens to a request is in `answer`.

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

use crate::answer::{SHORT_REQUESTS, Server};
use crate::config::{Serve, cores};
#[cfg(feature = "compiler")]
use crate::load::is_native;
use crate::load::{Loaded, Wanted, load};
use crate::logs;
use crate::report::WithHint;
use crate::runtime::executor;
use crate::signals::Stop;

/// Generations that run at once on the native engine, if nobody says otherwise.
const NATIVE_GENERATIONS: usize = 64;
/// A connection that sends no complete request head for so long is closed; also an idle one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long guests may take to be dropped at the end, many times what they need.
const LAST_SLICES: Duration = Duration::from_secs(1);
/// Pause after the system refused a connection, which it does when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until SIGTERM or SIGINT.
pub(crate) fn serve(config: Serve, format: logs::Format) -> anyhow::Result<()> {
    let guests = executor("guest")?;
    let result = executor("http")?.block_on(listen(config, format, guests.handle().clone()));
    // Guests that outlived the drain are dropped at the end of their time slice.
    guests.shutdown_timeout(LAST_SLICES);
    result
}

async fn listen(config: Serve, format: logs::Format, guests: tokio::runtime::Handle) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let listener = bind(config.listen).await?;
    let address = listener.local_addr().context("cannot read the address that is listened on")?;

    // On a guest's thread: baking and compiling take seconds in which a signal has to be heard.
    let concurrency = concurrency(&config)?;
    let loading = guests.spawn(load(Wanted {
        model: config.model.clone(),
        setup: config.setup.clone(),
        #[cfg(feature = "compiler")]
        compute: config.compute,
        code: config.code.clone(),
        memory: config.instance_memory,
        instances: Some(instances(concurrency)),
    }));
    let Loaded { runtime, model, .. } = tokio::select! {
        loaded = loading => loaded.context("loading the model broke off")??,
        signal = stop.received() => {
            tracing::info!("{signal}: stopped before the model was loaded");
            return Ok(());
        }
    };
    announce(format, &format!("listening on http://{address}"));
    announce(
        format,
        &format!("serving {} ({}, context {})", model.id, model.architecture, model.context_length),
    );
    let drain = config.drain;
    let server = Arc::new(Server::new(&config, concurrency, Arc::new(runtime), guests));
    accept(listener, server, drain, &mut stop).await
}

/// Generations that run at once. On the native engine they share the cores, in one batch.
fn concurrency(config: &Serve) -> anyhow::Result<NonZeroUsize> {
    #[cfg(feature = "compiler")]
    let is_native = is_native(&config.model, &config.compute)?;
    #[cfg(not(feature = "compiler"))]
    let is_native = false;
    let default = if is_native { NonZeroUsize::MIN.saturating_add(NATIVE_GENERATIONS - 1) } else { cores() };
    Ok(config.max_concurrency.unwrap_or(default))
}

/// How many instances can be alive: generations, short requests, and the one of the start.
fn instances(generations: NonZeroUsize) -> NonZeroU32 {
    let all = generations.get().saturating_add(SHORT_REQUESTS + 1);
    NonZeroU32::try_from(NonZeroUsize::new(all).unwrap_or(generations)).unwrap_or(NonZeroU32::MAX)
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::AddrInUse => {
                    "another program uses this port; choose one with --listen, or 0 for any"
                }
                ErrorKind::PermissionDenied => {
                    "ports below 1024 need privileges; choose another with --listen"
                }
                _ => "--listen takes an address of this machine",
            };
            Err(error).with_context(|| format!("cannot listen on {address}")).hint(hint)
        }
    }
}

/// Says what everybody who starts a server wants to know, whatever the log level.
fn announce(format: logs::Format, line: &str) {
    match format {
        logs::Format::Human => eprintln!("{line}"),
        logs::Format::Json => eprintln!("{}", serde_json::json!({"level": "INFO", "message": line})),
    }
}

/// Accepts connections until a signal, then waits for the requests that run.
async fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    drain: Duration,
    stop: &mut Stop,
) -> anyhow::Result<()> {
    let connections = GracefulShutdown::new();
    let signal = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connect(stream, server.clone(), &connections),
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            signal = stop.received() => break signal,
        }
    };
    drop(listener);
    tracing::info!("{signal}: stopping, {} requests still run", server.in_flight().count());
    tokio::select! {
        () = connections.shutdown() => Ok(()),
        () = tokio::time::sleep(drain) => {
            tracing::warn!(
                "{} requests were cut off after {} s of draining",
                server.in_flight().count(),
                drain.as_secs()
            );
            server.in_flight().close();
            Ok(())
        }
        signal = stop.received() => {
            server.in_flight().close();
            anyhow::bail!("{signal} again: {} requests were cut off", server.in_flight().count())
        }
    }
}

/// Serves the requests of one connection, one after another.
fn connect(stream: TcpStream, server: Arc<Server>, connections: &GracefulShutdown) {
    // Tokens are small and wanted at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("cannot turn off Nagle's algorithm: {error}");
    }
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("connection ended: {error}");
        }
    });
}
