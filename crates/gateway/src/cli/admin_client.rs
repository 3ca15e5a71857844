//! What the commands ask of a node that runs, on its admin listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use awc::ClientRequest;
use awc::http::header;
use bytes::Bytes;
use causeway_gateway::config::{Config, Secret};

use super::CliError;

/// How long a node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the node that runs with a configuration.
pub(crate) struct AdminClient<'a> {
    addr: SocketAddr,
    token: Option<&'a Secret>,
}

impl<'a> AdminClient<'a> {
    /// The node at `admin_listen`; a wildcard address is asked on loopback.
    pub(crate) fn new(config: &'a Config) -> Self {
        let mut addr = config.admin_listen;
        if addr.ip().is_unspecified() {
            addr.set_ip(match addr {
                SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
                SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
            });
        }
        Self { addr, token: config.admin_token.as_ref() }
    }

    /// Whether it answers with success, and its answer.
    pub(crate) async fn get(&self, path: &str) -> Result<(bool, String), CliError> {
        self.ask(path, |client, url| client.get(url), Bytes::new()).await
    }

    /// Whether it answers with success, and its answer.
    pub(crate) async fn post(&self, path: &str, json: String) -> Result<(bool, String), CliError> {
        self.ask(path, |client, url| client.post(url).content_type("application/json"), json.into()).await
    }

    async fn ask(
        &self,
        path: &str,
        request: impl FnOnce(&awc::Client, &str) -> ClientRequest,
        body: Bytes,
    ) -> Result<(bool, String), CliError> {
        let client = awc::Client::builder().timeout(TIMEOUT).finish();
        let url = format!("http://{}{path}", self.addr);
        let mut request = request(&client, &url);
        if let Some(Secret(token)) = self.token {
            request = request.insert_header((header::AUTHORIZATION, format!("Bearer {token}")));
        }
        let mut answer = request.send_body(body).await.map_err(|error| format!("{url}: {error}"))?;
        let text = String::from_utf8_lossy(&answer.body().await?).trim().to_owned();
        Ok((answer.status().is_success(), text))
    }
}
