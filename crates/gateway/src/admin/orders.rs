//! What operators order of all nodes over HTTP (see `order` and `control`).

use std::sync::Arc;

use actix_web::{HttpRequest, web};
use serde::Serialize;

use super::{asker, bad_question};
use crate::control;
use crate::node::Node;
use crate::order::{DisconnectRequest, Order, UnsubscribeRequest};
use crate::rejection::Rejection;
use crate::tasks;

/// What came of [`disconnect`].
#[derive(Debug, Serialize)]
pub(super) struct Disconnected {
    node: Box<str>,
    /// On this node.
    disconnected: usize,
    /// To all nodes. Where it was not, the answer is an error.
    announced: bool,
}

/// What came of [`unsubscribe`].
#[derive(Debug, Serialize)]
pub(super) struct Unsubscribed {
    node: Box<str>,
    /// On this node.
    unsubscribed: usize,
    /// To all nodes. Where it was not, the answer is an error.
    announced: bool,
}

/// `POST /admin/disconnect`
pub(super) async fn disconnect(
    request: HttpRequest,
    node: web::Data<Node>,
    asked: web::Json<DisconnectRequest>,
) -> Result<web::Json<Disconnected>, Rejection> {
    let order = asked.into_inner().meant_on(&node.name).map_err(|error| bad_question(&error))?;
    let disconnected = give(&node, order, asker(&request)).await?;
    Ok(web::Json(Disconnected { node: node.name.clone(), disconnected, announced: true }))
}

/// `POST /admin/unsubscribe`
pub(super) async fn unsubscribe(
    request: HttpRequest,
    node: web::Data<Node>,
    asked: web::Json<UnsubscribeRequest>,
) -> Result<web::Json<Unsubscribed>, Rejection> {
    let order = asked.into_inner().meant_on(&node.name).map_err(|error| bad_question(&error))?;
    let unsubscribed = give(&node, order, asker(&request)).await?;
    Ok(web::Json(Unsubscribed { node: node.name.clone(), unsubscribed, announced: true }))
}

/// Gives an order to all nodes; says to how many sessions of this one it applied. An operator who leaves meanwhile does
/// not leave it half done.
async fn give(node: &web::Data<Node>, order: Order, by: String) -> Result<usize, Rejection> {
    let node = Arc::clone(node);
    let given = tasks::spawn(async move {
        let outcome = control::order(&node, &order).await;
        match &outcome {
            Ok(sessions) => tracing::info!(by, %order, sessions, "carried out, and told to all nodes"),
            Err(error) => tracing::warn!(by, %order, %error, "not carried out: the nodes could not be told"),
        }
        outcome
    });
    Ok(given.await.expect("an order is given without a panic")?)
}
