//! A running server, asked over its admin listener.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::with_causes;
use crate::proxy::admin::model::{
    Collected, ExportPlan, ExportRequest, ImageDetail, ImagePage, ImportEvent, ImportRequest,
    PinChange, PinList, Refreshed, Removal, Statistics, VerifyEvent,
};
use crate::proxy::admin::{AdminError, Administration, Archive, Events, ImageQuery, Reply};
use crate::proxy::warm::model::{WarmEvent, WarmRequest};

/// A server's admin API.
pub(super) struct Remote {
    client: Client<HttpConnector, UnsyncBoxBody<Bytes, io::Error>>,
    /// `http://host:port`.
    origin: String,
    authorization: HeaderValue,
    /// The directory whose lock led here.
    locked: Option<PathBuf>,
}

/// What a request brings besides its head.
enum Sent {
    Nothing,
    Json(Bytes),
    Archive(Archive),
}

/// An answer that is no success.
#[derive(Deserialize)]
struct Refusal {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    code: String,
    message: String,
}

impl Remote {
    /// The server whose admin listener is at `url`; `locked` is the directory that it was found by.
    pub(super) fn new(
        url: &http::Uri,
        token: &SecretString,
        locked: Option<PathBuf>,
    ) -> Result<Self, AdminError> {
        let wrong = |why: &str| {
            AdminError::Invalid(format!("{url} {why}; write --admin http://127.0.0.1:5050"))
        };
        let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(wrong("is not http://host:port"));
        };
        if url.path() != "/" || url.query().is_some() {
            return Err(wrong("has a path"));
        }
        let bearer = format!("Bearer {}", token.expose_secret());
        let mut authorization = HeaderValue::try_from(bearer)
            .map_err(|_| AdminError::Denied("the token holds what no token can hold".to_owned()))?;
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            origin: format!("http://{authority}"),
            authorization,
            locked,
        })
    }

    /// Asks, and reads the answer whole.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        resource: &str,
        parameters: &[(&str, &str)],
    ) -> Result<T, AdminError> {
        self.ask_with(method, resource, parameters, Sent::Nothing)
            .await
    }

    /// The same, sending something along.
    async fn ask_with<T: DeserializeOwned>(
        &self,
        method: Method,
        resource: &str,
        parameters: &[(&str, &str)],
        sent: Sent,
    ) -> Result<T, AdminError> {
        let body = self.send(method, resource, parameters, sent).await?;
        let bytes = self.whole(body).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.nonsense(&error))
    }

    /// Asks; the body of a success.
    async fn send(
        &self,
        method: Method,
        resource: &str,
        parameters: &[(&str, &str)],
        sent: Sent,
    ) -> Result<Incoming, AdminError> {
        let request = Request::builder()
            .method(method)
            .uri(self.url(resource, parameters))
            .header(AUTHORIZATION, self.authorization.clone());
        let request = sent.with(request);
        let request = request.map_err(|error| AdminError::Invalid(error.to_string()))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| self.no_answer(&with_causes(&error)))?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let body = self.whole(answer.into_body()).await?;
        Err(self.refused(status, &body))
    }

    fn url(&self, resource: &str, parameters: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters);
        format!("{}/api/v1/{resource}?{}", self.origin, query.finish())
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, AdminError> {
        let collected = Limited::new(body, MOST_BYTES).collect().await;
        let collected = collected.map_err(|error| self.no_answer(&with_causes(&*error)))?;
        Ok(collected.to_bytes())
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> AdminError {
        let origin = &self.origin;
        if status == StatusCode::UNAUTHORIZED {
            return AdminError::Denied(format!(
                "{origin} refuses the token; it serves another data directory, or admin.token was replaced since it \
                 started: name the right directory with --data-dir, or its token with --token-file"
            ));
        }
        match serde_json::from_slice::<Refusal>(body) {
            Ok(Refusal { error }) => AdminError::from_code(&error.code, error.message),
            Err(_) => AdminError::Unreachable(format!(
                "{origin} answered {status}; this is not the admin listener of a Layby of this version"
            )),
        }
    }

    fn no_answer(&self, error: &str) -> AdminError {
        let mut message = String::new();
        // Writing to a String cannot fail.
        let _ = match &self.locked {
            Some(path) => write!(
                message,
                "{} is locked by another process, but its admin listener does not answer at {}: {error}; if it listens \
                 elsewhere, name that with --admin, or use the configuration file that it was started with (--config)",
                path.display(),
                self.origin
            ),
            None => write!(
                message,
                "{} does not answer: {error}; see whether Layby is running, and what its [admin] listen says",
                self.origin
            ),
        };
        AdminError::Unreachable(message)
    }

    fn nonsense(&self, error: &serde_json::Error) -> AdminError {
        AdminError::Unreachable(format!(
            "the answer of {} cannot be understood: {error}; is it a Layby of another version?",
            self.origin
        ))
    }

    /// Asks for something that tells how far it is.
    async fn events<T: DeserializeOwned + Send + 'static>(
        &self,
        resource: &str,
        parameters: &[(&str, &str)],
        sent: Sent,
    ) -> Result<Events<T>, AdminError> {
        let body = self.send(Method::POST, resource, parameters, sent).await?;
        let origin = self.origin.clone();
        let lines = stream::unfold(Some((body, BytesMut::new())), move |state| {
            let origin = origin.clone();
            async move {
                let (mut body, mut buffer) = state?;
                match next_line(&mut body, &mut buffer).await {
                    Ok(Some(line)) => {
                        let event =
                            serde_json::from_slice(&line).map_err(|error| error.to_string());
                        Some((
                            event.map_err(|error| broken(&origin, &error)),
                            Some((body, buffer)),
                        ))
                    }
                    Ok(None) => None,
                    Err(error) => Some((Err(broken(&origin, &error)), None)),
                }
            }
        });
        Ok(Box::pin(lines))
    }
}

impl Sent {
    fn json<T: Serialize>(value: &T) -> Result<Self, AdminError> {
        let bytes = serde_json::to_vec(value).map_err(io::Error::from)?;
        Ok(Self::Json(bytes.into()))
    }

    fn with(
        self,
        request: http::request::Builder,
    ) -> http::Result<Request<UnsyncBoxBody<Bytes, io::Error>>> {
        let in_memory = |bytes| {
            Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        match self {
            Self::Nothing => request.body(in_memory(Bytes::new())),
            Self::Json(bytes) => request
                .header(CONTENT_TYPE, "application/json")
                .body(in_memory(bytes)),
            Self::Archive(Archive { len, pieces }) => {
                let frames = pieces.map(|piece| piece.map(Frame::data));
                let request = match len {
                    Some(len) => request.header(CONTENT_LENGTH, len),
                    None => request,
                };
                request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(StreamBody::new(frames).boxed_unsync())
            }
        }
    }
}

/// A body as a file.
fn archive_of(body: Incoming, origin: &str) -> Archive {
    let len = body.size_hint().exact();
    let origin = origin.to_owned();
    let pieces = body.into_data_stream().map(move |piece| {
        piece.map_err(|error| io::Error::other(broken(&origin, &with_causes(&error)).to_string()))
    });
    Archive {
        len,
        pieces: Box::pin(pieces),
    }
}

/// The next line of a body; `None` at its end.
async fn next_line(body: &mut Incoming, buffer: &mut BytesMut) -> Result<Option<Bytes>, String> {
    loop {
        if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            let line = buffer.split_to(end + 1);
            return Ok(Some(line.freeze()));
        }
        if buffer.len() > LONGEST_LINE {
            return Err("a line has no end".to_owned());
        }
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    buffer.extend_from_slice(&data);
                }
            }
            Some(Err(error)) => return Err(with_causes(&error)),
            None if buffer.is_empty() => return Ok(None),
            None => return Err("it ended in the middle".to_owned()),
        }
    }
}

fn broken(origin: &str, error: &str) -> AdminError {
    AdminError::Unreachable(format!(
        "the answer of {origin} broke off: {error}; see Layby's log"
    ))
}

impl Administration for Remote {
    fn images(&self, query: ImageQuery) -> Reply<'_, ImagePage> {
        Box::pin(async move {
            let n = query.n.map(|n| n.to_string());
            let parameters = [
                ("n", n.as_deref()),
                ("last", query.last.as_deref()),
                ("match", query.matching.as_deref()),
            ];
            let written = parameters
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)));
            self.ask(Method::GET, "images", &written.collect::<Vec<_>>())
                .await
        })
    }

    fn image<'a>(&'a self, name: &'a str) -> Reply<'a, ImageDetail> {
        Box::pin(async move { self.ask(Method::GET, "image", &[("name", name)]).await })
    }

    fn statistics(&self) -> Reply<'_, Statistics> {
        Box::pin(self.ask(Method::GET, "statistics", &[]))
    }

    fn remove<'a>(&'a self, images: &'a str, dry_run: bool) -> Reply<'a, Removal> {
        Box::pin(async move {
            let dry_run = if dry_run { "true" } else { "false" };
            let parameters = [("name", images), ("dry_run", dry_run)];
            self.ask(Method::DELETE, "images", &parameters).await
        })
    }

    fn collect(&self, to: Option<u64>, dry_run: bool) -> Reply<'_, Collected> {
        Box::pin(async move {
            let to = to.map(|to| to.to_string());
            let dry_run = if dry_run { "true" } else { "false" };
            let mut parameters = vec![("dry_run", dry_run)];
            parameters.extend(to.as_deref().map(|to| ("to", to)));
            self.ask(Method::POST, "gc", &parameters).await
        })
    }

    fn pins(&self) -> Reply<'_, PinList> {
        Box::pin(self.ask(Method::GET, "pins", &[]))
    }

    fn pin<'a>(&'a self, images: &'a str) -> Reply<'a, PinChange> {
        Box::pin(async move { self.ask(Method::POST, "pins", &[("name", images)]).await })
    }

    fn unpin<'a>(&'a self, images: &'a str) -> Reply<'a, PinChange> {
        Box::pin(async move { self.ask(Method::DELETE, "pins", &[("name", images)]).await })
    }

    fn refresh<'a>(&'a self, images: &'a str) -> Reply<'a, Refreshed> {
        Box::pin(async move { self.ask(Method::POST, "refresh", &[("name", images)]).await })
    }

    fn warm(&self, request: WarmRequest) -> Reply<'_, Events<WarmEvent>> {
        Box::pin(async move { self.events("warm", &[], Sent::json(&request)?).await })
    }

    fn plan_export(&self, request: ExportRequest) -> Reply<'_, ExportPlan> {
        Box::pin(async move {
            let parameters = [("dry_run", "true")];
            let sent = Sent::json(&request)?;
            self.ask_with(Method::POST, "export", &parameters, sent)
                .await
        })
    }

    fn export(&self, request: ExportRequest) -> Reply<'_, Archive> {
        Box::pin(async move {
            let sent = Sent::json(&request)?;
            let body = self.send(Method::POST, "export", &[], sent).await?;
            Ok(archive_of(body, &self.origin))
        })
    }

    fn import(&self, request: ImportRequest, archive: Archive) -> Reply<'_, Events<ImportEvent>> {
        Box::pin(async move {
            let pin = if request.pin { "true" } else { "false" };
            let mut parameters = vec![("pin", pin)];
            parameters.extend(request.name.as_deref().map(|name| ("name", name)));
            self.events("import", &parameters, Sent::Archive(archive))
                .await
        })
    }

    fn verify<'a>(&'a self, image: Option<&'a str>) -> Reply<'a, Events<VerifyEvent>> {
        Box::pin(async move {
            let parameters: Vec<_> = image.map(|name| ("name", name)).into_iter().collect();
            self.events("verify", &parameters, Sent::Nothing).await
        })
    }
}

/// For a connection on the same machine or next to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer: ten thousand images of a page have some ten.
const MOST_BYTES: usize = 256 * 1024 * 1024;
/// Most bytes of one event.
const LONGEST_LINE: usize = 1024 * 1024;
