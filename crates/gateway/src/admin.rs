//! The admin listener: what orchestrators, Prometheus and operators ask. Never to be reached from outside.

use std::sync::Arc;

use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::admission::Addresses;
use crate::drain::{self, Draining, Shedding};
use crate::explain::{Explanation, Question};
use crate::node::Node;
use crate::rejection::Rejection;
use crate::reload::{Reloaded, Reloader};
use crate::revocation::{RevokeRequest, Revoked};

pub(crate) mod access;
mod feed;
mod orders;
mod page;
mod sessions;
mod snapshot;
mod top;

/// Where readiness is told; also what `causeway check --live` asks.
pub const READY_PATH: &str = "/readyz";
/// Where a node explains; also what `causeway explain --live` asks.
pub const EXPLAIN_PATH: &str = "/admin/explain";
/// Where a node tells where its clients come from; also what `causeway doctor --live` asks.
pub const ADDRESSES_PATH: &str = "/admin/addresses";
/// Where tokens are revoked; also what `causeway revoke` asks.
pub const REVOKE_PATH: &str = "/admin/revoke";

pub(crate) fn routes(config: &mut web::ServiceConfig, node: &Arc<Node>, reloader: Option<&Arc<Reloader>>) {
    if let Some(reloader) = reloader {
        config.app_data(web::Data::from(Arc::clone(reloader)));
    }
    config
        .app_data(web::Data::from(Arc::clone(node)))
        .app_data(web::Data::new(feed::Feeds::default()))
        .route("/livez", web::get().to(live))
        .route(READY_PATH, web::get().to(ready))
        .route("/metrics", web::get().to(metrics))
        .configure(page::routes)
        // Everything that acts, or tells of single clients.
        .service(
            web::scope("/admin")
                .wrap(from_fn(access::guard))
                .app_data(web::JsonConfig::default().error_handler(|error, _| bad_question(&error).into()))
                .app_data(web::QueryConfig::default().error_handler(|error, _| bad_question(&error).into()))
                .route("/feed", web::get().to(feed::open))
                .route("/explain", web::post().to(explain))
                .route("/addresses", web::get().to(addresses))
                .route("/sessions", web::get().to(sessions::list))
                .route("/top", web::get().to(top::tell))
                .route("/disconnect", web::post().to(orders::disconnect))
                .route("/unsubscribe", web::post().to(orders::unsubscribe))
                .route("/reload", web::post().to(reload))
                .route("/revoke", web::post().to(revoke))
                .route("/drain", web::post().to(drain_all))
                .route("/shed", web::post().to(shed)),
        );
}

/// Whether every thread still comes round to its work; if not, which does not. Restarting would help then.
async fn live(node: web::Data<Node>) -> HttpResponse {
    match node.stuck_cause() {
        None => HttpResponse::Ok().body("alive\n"),
        Some(cause) => HttpResponse::ServiceUnavailable().body(format!("{cause}\n")),
    }
}

/// Whether new clients should be sent here; if not, why.
async fn ready(node: web::Data<Node>) -> HttpResponse {
    match node.unready_cause() {
        None => HttpResponse::Ok().body("ready\n"),
        Some(cause) => HttpResponse::ServiceUnavailable().body(format!("{cause}\n")),
    }
}

async fn metrics(node: web::Data<Node>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(node.metrics.render(&node.report()))
}

/// Why a client is let in or not: [`Question`] in, [`Explanation`] out, both JSON.
async fn explain(
    node: web::Data<Node>,
    question: web::Json<Question>,
) -> Result<web::Json<Explanation>, Rejection> {
    Explanation::by_node(&node, &question).map(web::Json).map_err(|error| bad_question(&error))
}

/// Where the clients come from, as far as it can be said without naming them: the busiest address only.
async fn addresses(node: web::Data<Node>) -> web::Json<Addresses> {
    web::Json(node.admission.addresses())
}

/// Reads the configuration again; says what changed, and what needs a restart.
async fn reload(
    request: HttpRequest,
    node: web::Data<Node>,
    reloader: Option<web::Data<Reloader>>,
) -> Result<web::Json<Reloaded>, Rejection> {
    let reloader = reloader.ok_or(Rejection::NotFound)?;
    reloader
        .reload(&node, &asker(&request))
        .map(web::Json)
        .map_err(|error| Rejection::BadConfiguration(error.to_string()))
}

/// Sends everybody away and stops, as on SIGTERM; says what that comes to.
async fn drain_all(request: HttpRequest, node: web::Data<Node>) -> HttpResponse {
    node.stop_serving(&asker(&request));
    HttpResponse::Accepted().json(Draining::of(&node))
}

/// What [`shed`] is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    percent: u8,
}

/// Sends a share of the clients away and goes on; says how many were told.
async fn shed(
    request: HttpRequest,
    node: web::Data<Node>,
    share: web::Query<Share>,
) -> Result<HttpResponse, Rejection> {
    let shedding = drain::shed(&node, share.percent).await?;
    let Shedding { told, of, .. } = shedding;
    tracing::info!(by = asker(&request), percent = share.percent, told, of, "sending some connections away");
    Ok(HttpResponse::Accepted().json(shedding))
}

/// Who asks, for the log.
fn asker(request: &HttpRequest) -> String {
    request.peer_addr().map_or_else(String::new, |peer| peer.to_string())
}

/// Ends tokens before their time: [`RevokeRequest`] in, [`Revoked`] out.
async fn revoke(
    request: HttpRequest,
    node: web::Data<Node>,
    asked: web::Json<RevokeRequest>,
) -> Result<web::Json<Revoked>, Rejection> {
    let revocation = node.revoke(asked.into_inner()).await?;
    tracing::info!(by = asker(&request), until = revocation.until(), "tokens are revoked");
    Ok(web::Json(Revoked { until: revocation.until() }))
}

fn bad_question(error: &dyn std::fmt::Display) -> Rejection {
    Rejection::BadQuestion(error.to_string())
}

/// How many are wanted on a list: as many as is said, from 1 to the most that may be, or else the usual number.
fn limit(said: Option<&str>, (most, usual): (usize, usize)) -> Result<usize, Rejection> {
    let Some(said) = said else { return Ok(usual) };
    let limit = said.parse().ok().filter(|limit| (1..=most).contains(limit));
    limit.ok_or_else(|| {
        bad_question(&format_args!("limit is `{said}`: expected a whole number from 1 to {most}"))
    })
}
