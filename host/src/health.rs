//! `wafer health`: one GET, for the health check of a container that has no curl.
//!
//! Plain HTTP only: the check runs beside the server.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io::Write;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::report::WithHint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);
/// More than a health report ever needs, bytes.
const LARGEST_REPORT: usize = 64 << 10;

/// Asks the server and prints its report; an error unless the server says 200.
pub(crate) fn health(url: &str) -> anyhow::Result<()> {
    let target = Target::parse(url)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async { timeout(TIMEOUT, ask(&target)).await });
    let (status, report) = match asked {
        Ok(answer) => answer.with_context(|| format!("no answer from {url}"))?,
        Err(_) => bail!("no answer from {url} within {} s", TIMEOUT.as_secs()),
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(report.trim_ascii_end())?;
    stdout.write_all(b"\n")?;
    if status != StatusCode::OK {
        bail!("{url} answered {status}");
    }
    Ok(())
}

/// Where to ask.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// For the Host header and for connecting.
    authority: String,
    path: String,
}

impl Target {
    /// A URL without a path means /health.
    fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("{url:?} is not a URL"))
            .hint("it looks like http://127.0.0.1:8080")?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("{url:?} does not start with http://");
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target {
            authority: match authority.port() {
                Some(_) => authority.to_string(),
                None => format!("{authority}:80"),
            },
            path: if path == "/" { "/health" } else { path }.to_owned(),
        })
    }
}

async fn ask(target: &Target) -> anyhow::Result<(StatusCode, Bytes)> {
    let connecting = TcpStream::connect(&target.authority);
    let stream = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(stream) => stream?,
        Err(_) => bail!("not connected within {} s", CONNECT_TIMEOUT.as_secs()),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the runtime; an error of it is an error of the request as well.
    tokio::spawn(connection);
    let request =
        Request::get(&target.path).header(header::HOST, &target.authority).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let report = match Limited::new(response.into_body(), LARGEST_REPORT).collect().await {
        Ok(report) => report.to_bytes(),
        Err(error) => bail!("the answer broke off: {error}"),
    };
    Ok((status, report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_completed_or_refused() {
        for (url, expected) in [
            ("http://127.0.0.1:8080", Some(("127.0.0.1:8080", "/health"))),
            ("http://localhost/", Some(("localhost:80", "/health"))),
            ("http://[::1]:9/livez?x=1", Some(("[::1]:9", "/livez?x=1"))),
            ("https://localhost", None),
            ("localhost:8080", None),
            ("", None),
            ("http://", None),
        ] {
            let found = Target::parse(url).ok();
            let expected = expected
                .map(|(authority, path)| Target { authority: authority.to_owned(), path: path.to_owned() });
            assert_eq!(found, expected, "{url}");
        }
    }
}
