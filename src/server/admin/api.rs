//! `/api/v1/…`: administration as JSON, described in `docs/openapi.json`, which is served too.
//!
//! Parameters are in the query. Only what takes lists or archives has a body: JSON of a bounded size, or bytes that are
//! read as they are used. What takes long tells how far it is in lines of JSON, and ends when the connection does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::token::Token;
use crate::proxy::BrokenBody;
use crate::proxy::admin::model::ImportRequest;
use crate::proxy::admin::{AdminError, Administration, Archive, Events, ImageQuery};
use crate::server::answer::{Answer, Payload};
use crate::server::request_body::RequestBody;

/// Who does what operators ask for, and the secret by which they are known.
pub struct Administrator {
    /// Does it.
    pub administration: Arc<dyn Administration>,
    /// The token in the data directory.
    pub token: SecretString,
}

/// Answers operators.
pub(in crate::server) struct Api {
    administration: Arc<dyn Administration>,
    token: Token,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

impl fmt::Debug for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Administrator").finish_non_exhaustive()
    }
}

/// Whether a path is of this API.
pub(super) fn is_for(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// What can be asked, by path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Images,
    Image,
    Statistics,
    Pins,
    Collect,
    Refresh,
    Verify,
    Warm,
    Export,
    Import,
    Description,
}

impl Resource {
    fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/api/v1/")? {
            "images" => Self::Images,
            "image" => Self::Image,
            "statistics" => Self::Statistics,
            "pins" => Self::Pins,
            "gc" => Self::Collect,
            "refresh" => Self::Refresh,
            "verify" => Self::Verify,
            "warm" => Self::Warm,
            "export" => Self::Export,
            "import" => Self::Import,
            "openapi.json" => Self::Description,
            _ => return None,
        })
    }

    /// The methods that it takes.
    fn methods(self) -> &'static str {
        match self {
            Self::Images => "GET, DELETE",
            Self::Image | Self::Statistics | Self::Description => "GET",
            Self::Pins => "GET, POST, DELETE",
            Self::Collect
            | Self::Refresh
            | Self::Verify
            | Self::Warm
            | Self::Export
            | Self::Import => "POST",
        }
    }

    /// The parameters that it takes with a method.
    fn parameters(self, method: &Method) -> &'static [&'static str] {
        match self {
            Self::Images if method == Method::DELETE => &["name", "dry_run"],
            Self::Images => &["n", "last", "match"],
            Self::Pins if method == Method::GET => &[],
            Self::Image | Self::Pins | Self::Refresh | Self::Verify => &["name"],
            Self::Collect => &["to", "dry_run"],
            Self::Export => &["dry_run"],
            Self::Import => &["name", "pin"],
            Self::Statistics | Self::Warm | Self::Description => &[],
        }
    }
}

impl Api {
    pub(in crate::server) fn new(administrator: Administrator) -> Self {
        Self {
            administration: administrator.administration,
            token: Token::new(administrator.token),
        }
    }

    /// Does what is asked for, for those who may ask.
    pub(super) async fn answer(&self, request: &Parts, body: RequestBody) -> Answer {
        if !self.token.permits(&request.headers) {
            return error(
                StatusCode::UNAUTHORIZED,
                "denied",
                "send the token in admin.token of the data directory as Authorization: Bearer …",
            )
            .with_static(WWW_AUTHENTICATE, "Bearer realm=\"layby\"");
        }
        let Some(resource) = Resource::of(request.uri.path()) else {
            let message = "there is no such thing; GET /api/v1/openapi.json says what there is";
            return error(StatusCode::NOT_FOUND, "not_found", message);
        };
        let method = &request.method;
        if !resource.methods().split(", ").any(|one| method == one) {
            let message = format!("only {} can be done with it", resource.methods());
            return error(StatusCode::METHOD_NOT_ALLOWED, "invalid", &message)
                .with_static(ALLOW, resource.methods());
        }
        let query = Query::read(request.uri.query(), resource.parameters(method));
        let answered = match query {
            Ok(query) => self.act(resource, method, &query, body).await,
            Err(error) => Err(error),
        };
        answered
            .unwrap_or_else(|failure| error(status(&failure), failure.code(), &failure.to_string()))
            .with_static(CACHE_CONTROL, "no-store")
    }

    async fn act(
        &self,
        resource: Resource,
        method: &Method,
        query: &Query,
        body: RequestBody,
    ) -> Result<Answer, AdminError> {
        let admin = &*self.administration;
        let is = |other| method == other;
        match resource {
            Resource::Images if is(Method::DELETE) => {
                let removal = admin.remove(query.name()?, query.flag("dry_run")?);
                json_of(&removal.await?)
            }
            Resource::Images => json_of(&admin.images(query.images()?).await?),
            Resource::Image => json_of(&admin.image(query.name()?).await?),
            Resource::Statistics => json_of(&admin.statistics().await?),
            Resource::Pins if is(Method::POST) => json_of(&admin.pin(query.name()?).await?),
            Resource::Pins if is(Method::DELETE) => json_of(&admin.unpin(query.name()?).await?),
            Resource::Pins => json_of(&admin.pins().await?),
            Resource::Collect => {
                let collected = admin.collect(query.bytes("to")?, query.flag("dry_run")?);
                json_of(&collected.await?)
            }
            Resource::Refresh => json_of(&admin.refresh(query.name()?).await?),
            Resource::Verify => Ok(lines_of(admin.verify(query.get("name")).await?)),
            Resource::Warm => Ok(lines_of(admin.warm(read_json(body).await?).await?)),
            Resource::Export => {
                let request = read_json(body).await?;
                if query.flag("dry_run")? {
                    return json_of(&admin.plan_export(request).await?);
                }
                Ok(tar_of(admin.export(request).await?))
            }
            Resource::Import => {
                let request = ImportRequest {
                    name: query.get("name").map(str::to_owned),
                    pin: query.flag_or("pin", true)?,
                };
                let events = admin.import(request, body.into_archive()).await?;
                Ok(lines_of(events))
            }
            Resource::Description => Ok(Answer::json(
                StatusCode::OK,
                Bytes::from_static(DESCRIPTION.as_bytes()),
            )),
        }
    }
}

/// The parameters of a request, each once.
struct Query(BTreeMap<String, String>);

impl Query {
    fn read(query: Option<&str>, known: &[&str]) -> Result<Self, AdminError> {
        let mut parameters = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*key) {
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                let message = format!("{key:?} is not a parameter of it; there are: {known}");
                return Err(AdminError::Invalid(message));
            }
            if parameters
                .insert(key.to_string(), value.into_owned())
                .is_some()
            {
                return Err(AdminError::Invalid(format!("{key:?} is there twice")));
            }
        }
        Ok(Self(parameters))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn name(&self) -> Result<&str, AdminError> {
        self.get("name")
            .ok_or_else(|| AdminError::Invalid("the parameter \"name\" is missing".to_owned()))
    }

    fn flag(&self, key: &str) -> Result<bool, AdminError> {
        self.flag_or(key, false)
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool, AdminError> {
        match self.get(key) {
            None => Ok(default),
            Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(AdminError::Invalid(format!("{key:?} is true or false"))),
        }
    }

    fn bytes(&self, key: &str) -> Result<Option<u64>, AdminError> {
        let bytes = self.get(key).map(str::parse).transpose();
        bytes.map_err(|_| AdminError::Invalid(format!("{key:?} is a number of bytes")))
    }

    fn images(&self) -> Result<ImageQuery, AdminError> {
        let n = self.get("n").map(str::parse).transpose();
        Ok(ImageQuery {
            n: n.map_err(|_| AdminError::Invalid("\"n\" is a number".to_owned()))?,
            last: self.get("last").map(str::to_owned),
            matching: self.get("match").map(str::to_owned),
        })
    }
}

fn json_of<T: Serialize>(value: &T) -> Result<Answer, AdminError> {
    let body = serde_json::to_vec(value).map_err(std::io::Error::from)?;
    Ok(Answer::json(StatusCode::OK, body.into()))
}

/// What a long action tells, each a line when it happens.
fn lines_of<T: Serialize + 'static>(events: Events<T>) -> Answer {
    let lines = events.map(|event| {
        let event = event.map_err(|failure| broken(&failure.to_string()))?;
        let mut line =
            serde_json::to_vec(&event).map_err(|failure| broken(&failure.to_string()))?;
        line.push(b'\n');
        Ok(Bytes::from(line))
    });
    let answer = Answer::new(StatusCode::OK, Payload::Stream(Box::pin(lines), None));
    answer.with_static(CONTENT_TYPE, "application/x-ndjson")
}

/// Images as a file.
fn tar_of(archive: Archive) -> Answer {
    let Archive { len, pieces } = archive;
    let pieces = pieces.map(|piece| piece.map_err(|failure| broken(&failure.to_string())));
    let answer = Answer::new(StatusCode::OK, Payload::Stream(Box::pin(pieces), len));
    answer.with_static(CONTENT_TYPE, "application/x-tar")
}

/// The body of a request that has to be JSON of this kind.
async fn read_json<T: DeserializeOwned>(body: RequestBody) -> Result<T, AdminError> {
    let bytes = body.whole(MOST_JSON).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        AdminError::Invalid(format!(
            "the body of the request is not the JSON that it should be: {error}; GET /api/v1/openapi.json says what is"
        ))
    })
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = json!({ "error": { "code": code, "message": message } });
    Answer::json(status, body.to_string().into())
}

fn status(error: &AdminError) -> StatusCode {
    match error {
        AdminError::NotFound(_) => StatusCode::NOT_FOUND,
        AdminError::Invalid(_) => StatusCode::BAD_REQUEST,
        AdminError::Busy => StatusCode::CONFLICT,
        AdminError::Denied(_) => StatusCode::UNAUTHORIZED,
        AdminError::Failed(_) | AdminError::Unreachable(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn broken(message: &str) -> BrokenBody {
    BrokenBody {
        reason: "admin",
        message: message.to_owned(),
    }
}

/// Most bytes of JSON in a request: the digests of two hundred thousand blobs.
const MOST_JSON: usize = 16 * 1024 * 1024;

/// What there is.
const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const PATHS: [&str; 11] = [
        "images",
        "image",
        "statistics",
        "pins",
        "gc",
        "refresh",
        "verify",
        "warm",
        "export",
        "import",
        "openapi.json",
    ];

    /// Method, path and parameters of everything that is served.
    fn served() -> BTreeSet<String> {
        let mut served = BTreeSet::new();
        for name in PATHS {
            let path = format!("/api/v1/{name}");
            let resource = Resource::of(&path).unwrap();
            for method in resource.methods().split(", ") {
                let parameters = resource.parameters(&method.parse().unwrap());
                served.insert(format!("{method} {path} {parameters:?}"));
            }
        }
        served
    }

    fn described() -> BTreeSet<String> {
        let document: Value = serde_json::from_str(DESCRIPTION).unwrap();
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().unwrap();
                let names: Vec<_> = parameters
                    .iter()
                    .map(|one| one["name"].as_str().unwrap())
                    .collect();
                described.insert(format!("{} {path} {names:?}", method.to_uppercase()));
            }
        }
        described
    }

    #[test]
    fn the_description_names_everything_that_is_served_and_nothing_else() {
        assert_eq!(served(), described());
    }
}
