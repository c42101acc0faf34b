//! `/openapi.json` and `/docs`: the description of the API for programs, and the page on which people read it and call
//! it. Served only where `SEALPOD_DOCS=on`.
//!
//! All of it comes with the program. The page is Swagger UI under a policy that runs no script and takes no style but
//! the files below, and that lets it talk to this server only; a key that is typed in stays in the page's memory.

use std::sync::LazyLock;

use axum::extract::FromRequestParts;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::body::Query;
use crate::error::ApiError;
use crate::routes;

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(document))
        .routes(routes!(page))
        .route("/docs/start.js", get(start))
        .route("/docs/swagger-ui.js", get(program))
        .route("/docs/swagger-ui.css", get(style))
}

/// The links carry the version, because browsers keep what stands behind them.
const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Sealpod API</title>\n",
    "<link rel=\"icon\" href=\"data:,\">\n",
    "<link rel=\"stylesheet\" href=\"docs/swagger-ui.css?",
    env!("CARGO_PKG_VERSION"),
    "\">\n</head>\n<body>\n<div id=\"swagger-ui\"></div>\n",
    "<noscript>This page needs JavaScript; the same description is at <a href=\"openapi.json\">openapi.json</a>.",
    "</noscript>\n<script src=\"docs/swagger-ui.js?",
    env!("CARGO_PKG_VERSION"),
    "\"></script>\n<script src=\"docs/start.js?",
    env!("CARGO_PKG_VERSION"),
    "\"></script>\n</body>\n</html>\n",
);
const START: &str = include_str!("start.js");
/// As gzip: see `build.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));
const STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const ASK_AGAIN: &str = "no-cache";
const KEEP: &str = "public, max-age=86400";

/// That the description is served here; 404 where it is not, as for any path that does not exist.
struct Served;

impl FromRequestParts<App> for Served {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, ApiError> {
        if app.serves_docs() {
            Ok(Self)
        } else {
            Err(ApiError::no_such_path())
        }
    }
}

fn text(kind: &'static str, caching: &'static str, body: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, body).into_response()
}

/// Every browser takes gzip; the few programs that do not can fetch the document instead.
fn gzip(kind: &'static str, body: &'static [u8]) -> Response {
    let mut response = text(kind, KEEP, "");
    *response.body_mut() = body.into();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(header::CONTENT_LENGTH);
    response
}

/// This document
///
/// Served where `SEALPOD_DOCS=on`.
#[utoipa::path(
    get, path = "/openapi.json", tag = "service",
    responses((status = 200, description = "An OpenAPI 3.1 document", body = serde_json::Value),
        (status = 404, description = "Not served here")),
)]
async fn document(_: Served, Query(()): Query<()>) -> Response {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| routes::document().to_string());
    text("application/json", ASK_AGAIN, &DOCUMENT)
}

/// A page to read this document and to try the calls
///
/// Served where `SEALPOD_DOCS=on`. It loads nothing from elsewhere; what is typed in goes to this server only.
#[utoipa::path(
    get, path = "/docs", tag = "service",
    responses((status = 200, description = "The page", body = String, content_type = "text/html"),
        (status = 404, description = "Not served here")),
)]
async fn page(_: Served, Query(()): Query<()>) -> Response {
    text("text/html; charset=utf-8", ASK_AGAIN, PAGE)
}

async fn start(_: Served) -> Response {
    text("text/javascript; charset=utf-8", KEEP, START)
}

async fn program(_: Served) -> Response {
    gzip("text/javascript; charset=utf-8", PROGRAM)
}

async fn style(_: Served) -> Response {
    gzip("text/css; charset=utf-8", STYLE)
}
