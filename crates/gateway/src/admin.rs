//! The admin listener: what orchestrators and Prometheus ask. Never to be reached from outside.

use std::sync::Arc;

use actix_web::{HttpResponse, web};

use crate::node::Node;

/// Where readiness is told; also what `causeway check --live` asks.
pub const READY_PATH: &str = "/readyz";

pub(crate) fn routes(config: &mut web::ServiceConfig, node: &Arc<Node>) {
    config
        .app_data(web::Data::from(Arc::clone(node)))
        .route("/livez", web::get().to(live))
        .route(READY_PATH, web::get().to(ready))
        .route("/metrics", web::get().to(metrics));
}

/// Alive is who answers.
async fn live() -> &'static str {
    "alive\n"
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
        .body(node.metrics.render(node.broker.link()))
}
