//! The public listener's HTTP routes. Upgrades never get here: see `upgrade`.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use causeway_hub::PublishOutcome;
use causeway_protocol::Topic;
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::client_addr::PeerAddr;
use crate::dev::DemoPage;
use crate::entrance;
use crate::handshake;
use crate::node::Node;
use crate::rejection::Rejection;
use crate::traces;

/// How long the body of a publish may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
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
                .route(web::method(Method::OPTIONS).to(preflight))
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
async fn verdict(request: HttpRequest, node: web::Data<Node>) -> HttpResponse {
    let mut answer = judge(&request, &node).unwrap_or_else(|rejection| rejection.error_response());
    let_pages_read(&mut answer, &request, &node);
    answer
}

/// A page of another origin that sends its token in a header asks first whether it may (Fetch §4.8).
async fn preflight(request: HttpRequest, node: web::Data<Node>) -> HttpResponse {
    let mut answer = HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization"))
        .finish();
    let_pages_read(&mut answer, &request, &node);
    answer
}

/// Lets a page of an allowed origin read the answer, the pause it names included (Fetch §3.3).
fn let_pages_read(answer: &mut HttpResponse, request: &HttpRequest, node: &Node) {
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = node.settings().entrance.allowed_origins.allowed_origin(request.headers()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
    }
}

fn judge(request: &HttpRequest, node: &Node) -> Result<HttpResponse, Rejection> {
    let _span = tracing::info_span!(target: traces::TARGET, "verdict", otel.kind = "server").entered();
    let peer = peer(request)?;
    match node.admit(peer, request.head(), handshake::check_absent) {
        Ok(_) => Ok(HttpResponse::NoContent().finish()),
        Err(rejection) => {
            node.metrics.count_refused(&rejection);
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
    let span = tracing::info_span!(
        target: traces::TARGET, "HTTP publish", otel.kind = "server", error.type = Empty, otel.status_code = Empty
    );
    traces::continue_trace(&span, request.headers());
    let answer = try_publish(&request, &node, body).instrument(span.clone()).await;
    answer.inspect_err(|rejection| {
        traces::failed(&span, rejection.cause());
        node.tell_refused("publish", request.head(), rejection);
    })
}

async fn try_publish(
    request: &HttpRequest,
    node: &Arc<Node>,
    body: web::Payload,
) -> Result<HttpResponse, Rejection> {
    let policy = node.verify(entrance::bearer(request.headers()))?.policy;
    let permit = policy.permit_publish(topic_of(request.path())?).ok_or(Rejection::Forbidden)?;
    let bytes_max = node.settings().hub.publish_bytes;
    let payload = match timeout(BODY_TIMEOUT, body.to_bytes_limited(bytes_max)).await {
        Ok(Ok(Ok(payload))) => payload,
        Ok(Err(_)) => return Err(Rejection::TooLarge(bytes_max)),
        Ok(Ok(Err(_))) | Err(_) => return Err(Rejection::UnreadablePayload),
    };
    match node.publish(permit, payload).await {
        PublishOutcome::Published => Ok(HttpResponse::Accepted().json(serde_json::json!({}))),
        PublishOutcome::Unavailable => Err(Rejection::BrokerUnavailable),
        PublishOutcome::Refused => Err(Rejection::BrokerRefused),
    }
}

fn topic_of(path: &str) -> Result<Topic, Rejection> {
    let name = path.strip_prefix(TOPICS_PATH).unwrap_or_default();
    let name = percent_decode_str(name).decode_utf8().map_err(|_| Rejection::UnreadableTopic)?;
    Ok(Topic::parse(&name)?)
}

fn peer(request: &HttpRequest) -> Result<PeerAddr, Rejection> {
    request.peer_addr().map(PeerAddr::from).ok_or(Rejection::BadHandshake("the peer has no address"))
}

async fn demo_page(request: HttpRequest, page: web::Data<DemoPage>) -> Result<HttpResponse, Rejection> {
    // The page holds a token for everything. A foreign name that was made to resolve to loopback gets none.
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !DemoPage::is_for(host) {
        return Err(Rejection::NotFound);
    }
    let page = HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, DemoPage::POLICY))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(page.html.clone());
    Ok(page)
}

async fn not_found() -> Result<HttpResponse, Rejection> {
    Err(Rejection::NotFound)
}

async fn method_not_allowed() -> Result<HttpResponse, Rejection> {
    Err(Rejection::MethodNotAllowed)
}
