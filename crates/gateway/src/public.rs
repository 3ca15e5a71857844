//! The public listener's HTTP routes. Upgrades never get here: see `upgrade`.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use causeway_broker::PublishError;
use causeway_hub::PublishOutcome;
use causeway_protocol::Topic;
use percent_encoding::percent_decode_str;

use crate::client_addr::PeerAddr;
use crate::dev::DemoPage;
use crate::handshake;
use crate::node::{self, Node};
use crate::rejection::Rejection;
use crate::token::TokenError;

/// Where clients connect.
pub const CONNECT_PATH: &str = "/v1/connect";
/// What stands before the topic in the path of a publish.
pub const TOPICS_PATH: &str = "/v1/topics/";

/// The routes, with the demo page where there is one.
pub(crate) fn routes(config: &mut web::ServiceConfig, node: &Arc<Node>, demo: Option<&Arc<DemoPage>>) {
    config
        .app_data(web::Data::from(Arc::clone(node)))
        .service(
            web::resource(CONNECT_PATH)
                .route(web::get().to(verdict))
                .default_service(web::to(method_not_allowed)),
        )
        .service(
            web::resource(format!("{TOPICS_PATH}{{topic:.*}}"))
                .route(web::post().to(publish))
                .default_service(web::to(method_not_allowed)),
        )
        .default_service(web::to(not_found));
    if let Some(demo) = demo {
        config.app_data(web::Data::from(Arc::clone(demo))).route("/", web::get().to(demo_page));
    }
}

/// What an upgrade would be answered, for browsers, which are not told why theirs was refused.
async fn verdict(request: HttpRequest, node: web::Data<Node>) -> Result<HttpResponse, Rejection> {
    let peer = peer(&request)?;
    let without_handshake = |_: &actix_http::RequestHead| match handshake::is_upgrade(request.headers()) {
        // Not an upgrade to the HTTP machinery, for instance for lack of `Connection: Upgrade`.
        true => Err(Rejection::BadHandshake(
            "an upgrade needs Upgrade: websocket, Connection: Upgrade and no body",
        )),
        false => Ok(()),
    };
    match node.admit(peer, request.head(), without_handshake) {
        Ok(_) => Ok(HttpResponse::NoContent().finish()),
        Err(rejection) => {
            node.metrics.refused.with_label_values(&[rejection.code()]).inc();
            Err(rejection)
        }
    }
}

/// `POST /v1/topics/{topic}`: publishes the body, for services that would rather speak HTTP.
async fn publish(
    request: HttpRequest,
    node: web::Data<Node>,
    body: web::Payload,
) -> Result<HttpResponse, Rejection> {
    let token = node::bearer(request.headers()).ok_or(TokenError::Missing)?;
    let policy = node.verifier.verify(token)?.policy;
    let permit = policy.permit_publish(topic_of(request.path())?).ok_or(Rejection::Forbidden)?;
    let bytes_max = node.hub_limits.publish_bytes;
    let payload = match body.to_bytes_limited(bytes_max).await {
        Ok(Ok(payload)) => payload,
        Ok(Err(_)) => return Err(Rejection::UnreadablePayload),
        Err(_) => return Err(Rejection::TooLarge(bytes_max)),
    };
    let (outcome, answer) = match node.broker.publish(permit.into_topic(), payload).await {
        Ok(()) => (PublishOutcome::Published, Ok(HttpResponse::Accepted().json(serde_json::json!({})))),
        Err(PublishError::Unavailable | PublishError::Busy) => {
            (PublishOutcome::Unavailable, Err(Rejection::BrokerUnavailable))
        }
        Err(PublishError::Refused(cause)) => {
            tracing::warn!(%cause, "the broker refused a publish");
            (PublishOutcome::Refused, Err(Rejection::BrokerRefused))
        }
    };
    node.metrics.count_publish(&outcome);
    answer
}

fn topic_of(path: &str) -> Result<Topic, Rejection> {
    let name = path.strip_prefix(TOPICS_PATH).unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8().map_err(|_| Rejection::UnreadableTopic)?;
    Ok(Topic::parse(&name)?)
}

fn peer(request: &HttpRequest) -> Result<PeerAddr, Rejection> {
    request.peer_addr().map(PeerAddr::from).ok_or(Rejection::BadHandshake("the peer has no address"))
}

async fn demo_page(page: web::Data<DemoPage>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, DemoPage::POLICY))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page.html.clone())
}

async fn not_found() -> Result<HttpResponse, Rejection> {
    Err(Rejection::NotFound)
}

async fn method_not_allowed() -> Result<HttpResponse, Rejection> {
    Err(Rejection::MethodNotAllowed)
}
