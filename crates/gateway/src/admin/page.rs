//! The operator page: three files, no build step, nothing from outside.
//!
//! The page itself knows nothing of the node and is open to whoever reaches the listener, like a probe. What it shows
//! and does goes through `/admin/…`, with the operator's token where one is needed.

use actix_web::http::header;
use actix_web::{HttpResponse, web};

/// What the page may do: its own script and style, and ask this listener. In a frame it could be made to act by
/// clicks that mean something else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Where the page and its files are.
pub(crate) fn routes(config: &mut web::ServiceConfig) {
    let html = include_str!("page/operator.html").replace("{{VERSION}}", env!("CARGO_PKG_VERSION"));
    config
        .route("/", file("text/html", html.into()))
        .route("/operator.css", file("text/css", include_str!("page/operator.css").into()))
        .route("/operator.js", file("text/javascript", include_str!("page/operator.js").into()));
}

fn file(media_type: &'static str, content: bytes::Bytes) -> actix_web::Route {
    web::get().to(move || {
        let answer = HttpResponse::Ok()
            .content_type(format!("{media_type}; charset=utf-8"))
            .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((header::REFERRER_POLICY, "same-origin"))
            // After an update of the node a page of the old version would misread the feed.
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .body(content.clone());
        std::future::ready(answer)
    })
}
