//! `layby healthcheck`.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::{FileArg, OverrideArgs, configure, reachable, with_causes};
use crate::config::Config;

/// Time for the answer's status line.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks a running Layby for `/healthz`.
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    #[command(flatten)]
    file: FileArg,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// What to ask instead of the configured listener; http:// alone.
    #[arg(long)]
    url: Option<http::Uri>,
}

/// Why Layby does not count as up.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("{0}")]
    Config(#[from] crate::config::Faults),
    #[error("no listener speaks plain HTTP; name a URL with --url")]
    NoListener,
    #[error("no request could be prepared: {0}; raise the limit of open files")]
    Setup(#[from] std::io::Error),
    #[error("{url} cannot be asked: {error}; see whether Layby is running")]
    Failed { url: http::Uri, error: String },
    #[error("{0} did not answer within 5 s; see Layby's log")]
    TimedOut(http::Uri),
    #[error("{url} answered {status}; see Layby's log")]
    Status {
        url: http::Uri,
        status: http::StatusCode,
    },
}

impl Healthcheck {
    /// Exits with 0 when the answer is 200, with 1 otherwise: Docker reserves 2.
    pub fn run(self) -> ExitCode {
        match self.check() {
            Ok(()) => ExitCode::SUCCESS,
            Err(unhealthy) => {
                eprintln!("{unhealthy}");
                ExitCode::FAILURE
            }
        }
    }

    fn check(self) -> Result<(), Unhealthy> {
        let url = match self.url {
            Some(url) => url,
            None => health_url(&configure(&self.file, self.overrides)?)?,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(ask(url))
    }
}

async fn ask(url: http::Uri) -> Result<(), Unhealthy> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    match tokio::time::timeout(TIMEOUT, client.get(url.clone())).await {
        Ok(Ok(answer)) if answer.status() == http::StatusCode::OK => Ok(()),
        Ok(Ok(answer)) => Err(Unhealthy::Status {
            url,
            status: answer.status(),
        }),
        Ok(Err(error)) => Err(Unhealthy::Failed {
            url,
            error: with_causes(&error),
        }),
        Err(_) => Err(Unhealthy::TimedOut(url)),
    }
}

/// Where this machine reaches `/healthz`: on the main listener, else on the admin one.
fn health_url(config: &Config) -> Result<http::Uri, Unhealthy> {
    let address = config.listen.first().or(config.admin.listen.as_ref());
    let address = address
        .copied()
        .map(reachable)
        .ok_or(Unhealthy::NoListener)?;
    format!("http://{address}/healthz")
        .parse()
        .map_err(|_| Unhealthy::NoListener)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::config::Overrides;

    fn url_for(text: &str) -> String {
        let config = Config::from_toml(text, &Overrides::default()).expect("right");
        health_url(&config).map_or_else(|e| e.to_string(), |url| url.to_string())
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        assert_eq!(
            url_for("listen = '0.0.0.0:5000'"),
            "http://127.0.0.1:5000/healthz"
        );
        assert_eq!(url_for("listen = '[::]:81'"), "http://[::1]:81/healthz");
        assert_eq!(
            url_for("listen = '192.0.2.1:81'"),
            "http://192.0.2.1:81/healthz"
        );
    }

    #[test]
    fn without_plain_http_the_admin_listener_is_asked() {
        let tls = "listen = []\n[tls]\nlisten = '127.0.0.1:0'\ncert_file = 'c'\nkey_file = 'k'\n";
        assert_eq!(url_for(tls), "http://127.0.0.1:5050/healthz");
        assert!(url_for(&format!("{tls}[admin]\nlisten = 'none'")).contains("--url"));
    }

    #[tokio::test]
    async fn only_a_200_is_healthy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let address = listener.local_addr().expect("address");
        let url: http::Uri = format!("http://{address}/healthz").parse().expect("url");
        for (status, healthy) in [("200 OK", true), ("503 Service Unavailable", false)] {
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("client");
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.expect("request");
                assert!(request[..length].starts_with(b"GET /healthz "));
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.expect("answered");
            };
            let (result, ()) = tokio::join!(ask(url.clone()), serve);
            assert_eq!(result.is_ok(), healthy, "{result:?}");
        }
        drop(listener);
        assert!(matches!(ask(url).await, Err(Unhealthy::Failed { .. })));
    }
}
